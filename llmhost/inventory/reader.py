"""From flat inventory data to `Settings`; every mistake is reported, each in one sentence."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmhost.inventory.problem import Problem, SettingsError
from llmhost.inventory.profiles import KEY as PROFILE_KEY
from llmhost.inventory.profiles import PROFILES, with_profile
from llmhost.inventory.renames import Renamed
from llmhost.inventory.rules import broken_rules
from llmhost.models.lock import LockError, is_pinned, read_lock, with_pins
from llmhost.options.base import Section
from llmhost.options.kind import WORD, example_of, given, kinds_of
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
    mistaken = {_option(problem.key) for problem in reader.problems}
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
        renamed = Renamed(own)
        self.data = with_profile(renamed.data)
        self.problems = renamed.mistakes

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
        if profile is None or (isinstance(profile, str) and profile in PROFILES):
            return
        fix = _nearest(profile, PROFILES, f"write {_listed(PROFILES)}")
        self.problems.append(Problem(PROFILE_KEY, f"{_quoted(profile)} is not a profile", fix))
        del self.data[PROFILE_KEY]

    def _lock(self) -> dict[str, dict[str, Any]]:
        """Pins of the lock file, if there is one."""
        path = Path(str(self.data.get(LOCK_KEY) or Stack().models_lock)).expanduser()
        try:
            return read_lock(path.read_text())
        except FileNotFoundError:
            return {}
        except (LockError, OSError, ValueError) as error:
            why = error if isinstance(error, LockError) else "cannot be read"
            fix = "recreate it with: llmhost model lock INVENTORY"
            self.problems.append(Problem(LOCK_KEY, f"the lock file {why}", fix))
            return {}

    def _pinned(self, values: list[Any]) -> list[Any]:
        """Records of models with the lock's pins, where they have none of their own."""
        if all(is_pinned(each) for each in values if isinstance(each, Mapping)):
            return values
        lock = self._lock()
        return [with_pins(each, lock) if isinstance(each, Mapping) else each for each in values]

    def _services(self) -> list[str]:
        known = []
        for name in self._list("services", "['llamacpp']"):
            if isinstance(name, str) and name in catalogue():
                known.append(name)
                continue
            what = f"{_quoted(name)} is not a service"
            otherwise = f"write names such as {_listed(catalogue())}"
            self.problems.append(Problem("services", what, _nearest(name, catalogue(), otherwise)))
        return known

    def _list(self, key: str, example: str) -> list[Any]:
        value = self.data.get(key, ())
        if isinstance(value, list | tuple):
            return list(value)
        fix = f"write a list, such as {example}"
        self.problems.append(Problem(key, f"is {given(value)}", fix))
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
                fix = _nearest(key, known_keys())
                self.problems.append(Problem(_shown_key(key), "unknown key", fix))
        return options

    def _section(self, name: str, section: type[Section], options: dict[str, Any]) -> Section:
        try:
            return section.model_validate(options)
        except ValidationError as error:
            found = [_problem(f"{name}_", section, detail) for detail in _details(error)]
        self.problems += found
        mistaken = {_option(problem.key).removeprefix(f"{name}_") for problem in found}
        return _or_default(section, {k: v for k, v in options.items() if k not in mistaken})

    def _records(self, key: str, record: type[Section]) -> tuple[Section, ...]:
        good = []
        values = self._list(key, f"[{example_of(record)}]")
        if key == "models":
            values = self._pinned(values)
        for index, value in enumerate(values):
            try:
                good.append(record.model_validate(value))
            except ValidationError as error:
                prefix = f"{key}[{index}]."
                self.problems += [_problem(prefix, record, each) for each in _details(error)]
        return tuple(good)


def _or_default(section: type[Section], options: dict[str, Any]) -> Section:
    try:
        return section.model_validate(options)
    except ValidationError:
        return section()


def _details(error: ValidationError) -> Iterator[ErrorDetails]:
    """Every mistake once: a name and a value of one mapping may both be wrong."""
    details = error.errors()
    names = {each["loc"][:-1] for each in details if each["loc"][-1:] == ("[key]",)}
    yield from (each for each in details if each["loc"] not in names)


def _problem(prefix: str, section: type[Section], detail: ErrorDetails) -> Problem:
    """What pydantic found, in our own words: they come from the option's type."""
    place = detail["loc"]
    if detail["type"] == "missing":
        owner = _owner(section, place[:-1])
        field = owner.model_fields[str(place[-1])]
        kind = next(kinds_of(field.annotation, field.metadata), None)
        what = f"{kind.expected}, such as " if kind else ""
        example = example_of(field.annotation, field.metadata)
        return Problem(_key(prefix, place), "is missing", f"add {what}{example}")
    if detail["type"] == "extra_forbidden":
        known = _owner(section, place[:-1]).model_fields
        fix = _nearest(str(place[-1]), known, f"the keys are {', '.join(known)}")
        key = _key(prefix, (*place[:-1], _shown_key(str(place[-1]))))
        return Problem(key, "unknown key", fix)
    error = detail["ctx"]["error"]
    what, _, fix = str(error).partition("; ")
    if place[-1:] == ("[key]",):
        return Problem(_key(prefix, place[:-2]), f"has a name that {what}", fix)
    option = getattr(error, "option", "")
    return Problem(_key(prefix, (*place, option) if option else place), what, fix)


def _owner(section: type[Section], place: Iterable[int | str]) -> type[Section]:
    """The section or record at a place within another."""
    for part in place:
        field = section.model_fields.get(str(part))
        section = next(_records_in(field.annotation), section) if field else section
    return section


def _records_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _records_in(argument)


def _key(prefix: str, place: Iterable[int | str]) -> str:
    """`firewall_` and `("rules", 0, "port")` as `firewall_rules[0].port`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{prefix}{''.join(parts).removeprefix('.')}".rstrip("._")


def _option(key: str) -> str:
    return re.split(r"[\[.]", key)[0]


def _shown_key(key: str) -> str:
    """A key that is not known; text that could not be a key is not repeated."""
    return key if re.fullmatch(r"[A-Za-z_]\w{0,47}", key, re.ASCII) else f"{key[:3]!r}…"


def _quoted(name: object) -> str:
    return given(name, WORD)


def _listed(words: Iterable[str]) -> str:
    *others, last = map(repr, words)
    return f"{', '.join(others)} or {last}"


def _nearest(
    name: object, known: Iterable[str], otherwise: str = "docs/options.md lists them all"
) -> str:
    text = name[:64] if isinstance(name, str) else ""
    near = get_close_matches(text, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else otherwise
