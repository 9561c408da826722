"""From flat inventory data to `Settings`, with every mistake told at once."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmhost.inventory.problem import Problem, SettingsError
from llmhost.inventory.profiles import KEY as PROFILE_KEY
from llmhost.inventory.profiles import PROFILES, with_profile
from llmhost.inventory.rules import broken_rules
from llmhost.models.lock import LockError, is_pinned, read_lock, with_pins
from llmhost.options.base import Section
from llmhost.options.stack import Stack
from llmhost.services import catalogue
from llmhost.settings import RECORDS, Settings, component_sections

# Keys that belong to pyinfra: its connectors' data, and its global arguments (underscore).
PYINFRA_PREFIXES = ("ssh_", "_")

LOCK_KEY = "stack_models_lock"


def read_settings(
    data: Mapping[str, Any], rules: Callable[[Settings], Iterable[Problem]] = broken_rules
) -> Settings:
    """Settings of one host from its merged inventory data (`host.data.dict()`).

    Raises SettingsError with one Problem for each mistake. A mistaken option counts as its
    default while the others are examined, so that one run shows all of them.
    """
    reader = _Reader(data)
    settings = reader.settings()
    mistaken = {re.split(r"[\[.]", problem.key)[0] for problem in reader.problems}
    broken = [problem for problem in rules(settings) if problem.key not in mistaken]
    if problems := [*reader.problems, *broken]:
        raise SettingsError(problems)
    return settings


def known_keys() -> list[str]:
    """Every key an inventory may hold, whatever services it declares."""
    options = [f"{name}_{option}" for name, section in _sections().items() for option in section]
    return sorted([*options, "services", *RECORDS])


def _sections() -> dict[str, list[str]]:
    """Option names by section or service."""
    services = {name: service.options for name, service in catalogue().items()}
    classes: dict[str, type[Section]] = {**component_sections(), **services}
    return {name: list(section.model_fields) for name, section in classes.items()}


class _Reader:
    """Collects values and problems while it walks through the data once."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        own = {k: v for k, v in data.items() if not k.startswith(PYINFRA_PREFIXES)}
        self.data = with_profile(own)
        self.problems: list[Problem] = []

    def settings(self) -> Settings:
        self._check_profile()
        services = self._services()
        options = self._sorted_options()
        values: dict[str, Any] = {
            name: self._section(name, section, options[name])
            for name, section in component_sections().items()
        }
        values |= {key: self._records(key, record) for key, record in RECORDS.items()}
        values["service_options"] = {
            name: self._section(name, catalogue()[name].options, options[name]) for name in services
        }
        apps = {app.name: app for app in values["apps"] if app.name not in catalogue()}
        values["service_options"] |= apps
        return Settings(services=(*services, *apps), **values)

    def _check_profile(self) -> None:
        profile = self.data.get(PROFILE_KEY)
        if profile is not None and profile not in PROFILES:
            what = f"'{profile}' is not a profile" if isinstance(profile, str) else "must be a name"
            near = _nearest(str(profile), PROFILES, f"the profiles are {', '.join(PROFILES)}")
            self.problems.append(Problem(PROFILE_KEY, what, near))

    def _lock(self) -> dict[str, dict[str, Any]]:
        """Pins of the lock file, if there is one."""
        path = Path(str(self.data.get(LOCK_KEY) or Stack().models_lock)).expanduser()
        try:
            return read_lock(path.read_text())
        except FileNotFoundError:
            return {}
        except (LockError, OSError, UnicodeDecodeError) as error:
            told = error if isinstance(error, LockError) else "can not be read"
            fix = "write it anew with: llmhost model lock INVENTORY"
            self.problems.append(Problem(LOCK_KEY, f"the lock file {told}", fix))
            return {}

    def _pinned(self, values: list[Any]) -> list[Any]:
        """Records of models with the lock's pins, where they have none of their own."""
        if all(is_pinned(each) for each in values if isinstance(each, Mapping)):
            return values
        lock = self._lock()
        return [with_pins(each, lock) if isinstance(each, Mapping) else each for each in values]

    def _services(self) -> list[str]:
        known = []
        for name in self._list("services", "names of services"):
            if name in catalogue():
                known.append(str(name))
            else:
                hint = _nearest(str(name), catalogue())
                self.problems.append(Problem("services", f"'{name}' is not a service", hint))
        return known

    def _list(self, key: str, of_what: str) -> list[Any]:
        value = self.data.get(key, ())
        if isinstance(value, list | tuple):
            return list(value)
        self.problems.append(Problem(key, f"must be a list of {of_what}", f"write {key} = [...]"))
        return []

    def _sorted_options(self) -> dict[str, dict[str, Any]]:
        """Move `docker_data_root` to `docker` → `data_root`; unknown keys become problems."""
        sections = _sections()
        options: dict[str, dict[str, Any]] = {name: {} for name in sections}
        for key, value in self.data.items():
            if key in RECORDS or key == "services":
                continue
            for name, fields in sections.items():
                option = key.removeprefix(f"{name}_")
                if option != key and option in fields:
                    options[name][option] = value
                    break
            else:
                self.problems.append(Problem(key, "unknown key", _nearest(key, known_keys())))
        return options

    def _section(self, name: str, section: type[Section], options: dict[str, Any]) -> Section:
        try:
            return section.model_validate(options)
        except ValidationError as error:
            self.problems += [_problem(f"{name}_", detail) for detail in error.errors()]
            mistaken = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
        return _or_default(section, {k: v for k, v in options.items() if k not in mistaken})

    def _records(self, key: str, record: type[Section]) -> tuple[Section, ...]:
        good = []
        values = self._list(key, "records")
        if key == "models":
            values = self._pinned(values)
        for index, value in enumerate(values):
            try:
                good.append(record.model_validate(value))
            except ValidationError as error:
                prefix = f"{key}[{index}]."
                self.problems += [_problem(prefix, detail) for detail in error.errors()]
        return tuple(good)


def _or_default(section: type[Section], options: dict[str, Any]) -> Section:
    try:
        return section.model_validate(options)
    except ValidationError:
        return section()


def _problem(prefix: str, detail: ErrorDetails) -> Problem:
    place = ".".join(str(part) for part in detail["loc"])
    key = f"{prefix}{place}".rstrip("._")
    if detail["type"] == "missing":
        return Problem(key, "is missing", "add it")
    if detail["type"] == "extra_forbidden":
        return Problem(key, "unknown key", "remove it, or look the name up in docs/options.md")
    what = detail["msg"].removeprefix("Value error, ")
    return Problem(key, what[0].lower() + what[1:], "see docs/options.md")


def _nearest(
    name: str, known: Iterable[str], otherwise: str = "docs/options.md lists them all"
) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else otherwise
