"""From flat inventory data to `Settings`; every mistake is reported in one sentence."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmhost.inventory.connection import PREFIX as SSH_PREFIX
from llmhost.inventory.connection import connection_problems
from llmhost.inventory.mistakes import details, listed, nearest, problem, quoted, shown_key
from llmhost.inventory.problem import Problem, SettingsError
from llmhost.inventory.profiles import KEY as PROFILE_KEY
from llmhost.inventory.profiles import PROFILES, with_profile
from llmhost.inventory.renames import Renamed
from llmhost.inventory.rules import broken_rules
from llmhost.models.lock import LockError, is_pinned, read_lock, with_pins
from llmhost.models.made import as_made, made_directory
from llmhost.models.trained import base_record, with_base
from llmhost.options.base import Section
from llmhost.options.kind import example_of, given
from llmhost.options.stack import Stack
from llmhost.services import catalogue
from llmhost.settings import RECORDS, Settings, component_sections

# Keys that belong to pyinfra: its connectors' data, and its global arguments (underscore).
PYINFRA_PREFIXES = (SSH_PREFIX, "_")

LOCK_KEY = "stack_models_lock"


def read_settings(
    data: Mapping[str, Any],
    rules: Callable[[Settings], Iterable[Problem]] = broken_rules,
    name: str = "",
) -> Settings:
    """Settings of one host from its merged inventory data (`host.data.dict()`); `name` is its name
    in the inventory.

    Raises SettingsError with one Problem for each mistake. An option with a mistake has its default
    while others are checked, so that one run shows all mistakes.
    """
    reader = _Reader(data)
    settings = reader.settings(name)
    reader.problems += connection_problems(data)
    mistaken = {_option(each.key) for each in reader.problems}
    broken = [each for each in rules(settings) if each.key not in mistaken]
    if problems := [*reader.problems, *broken]:
        raise SettingsError(problems)
    return settings


def known_keys() -> list[str]:
    """All keys of inventories, for all services."""
    options = [f"{name}_{option}" for name, section in _sections().items() for option in section]
    return sorted([*options, "services", *RECORDS])


def _sections() -> dict[str, list[str]]:
    """Option names by section or service."""
    services = {name: service.options for name, service in catalogue().items()}
    classes: dict[str, type[Section]] = {**component_sections(), **services}
    return {name: list(section.model_fields) for name, section in classes.items()}


class _Reader:
    """Collects values and problems in one pass over the data."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        own = {k: v for k, v in data.items() if not k.startswith(PYINFRA_PREFIXES)}
        renamed = Renamed(own)
        self.data = with_profile(renamed.data)
        self.problems = renamed.mistakes

    def settings(self, name: str) -> Settings:
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
        member = name if values["engine_group"].members else ""
        return Settings(member=member, services=(*services, *apps), **values)

    def _check_profile(self) -> None:
        profile = self.data.get(PROFILE_KEY)
        if profile is None or (isinstance(profile, str) and profile in PROFILES):
            return
        fix = nearest(profile, PROFILES, f"write {listed(PROFILES)}")
        self.problems.append(Problem(PROFILE_KEY, f"{quoted(profile)} is not a profile", fix))
        del self.data[PROFILE_KEY]

    @property
    def _lock_file(self) -> Path:
        return Path(str(self.data.get(LOCK_KEY) or Stack().models_lock)).expanduser()

    @cached_property
    def _lock(self) -> dict[str, dict[str, Any]]:
        """Pins of the lock file, if there is one."""
        try:
            return read_lock(self._lock_file.read_text())
        except FileNotFoundError:
            return {}
        except (LockError, OSError, ValueError) as error:
            why = error if isinstance(error, LockError) else "cannot be read"
            fix = "recreate it with: llmhost model lock INVENTORY"
            self.problems.append(Problem(LOCK_KEY, f"the lock file {why}", fix))
            return {}

    def _pinned(self, values: list[Any]) -> list[Any]:
        """Records of models, with pins from the lock file if they have none; of a made model, the
        result is the source."""
        records = [each for each in values if isinstance(each, Mapping)]
        if all(is_pinned(each) and not each.get("derive") for each in records):
            return values
        lock, made = self._lock, made_directory(self._lock_file)
        return [
            as_made(with_pins(each, lock), lock, made) if isinstance(each, Mapping) else each
            for each in values
        ]

    def _with_base(self, job: Any) -> Any:
        """A record of a training job with the pins of its base."""
        if not isinstance(job, Mapping):
            return job
        models = [each for each in self._list("models", "[]") if isinstance(each, Mapping)]
        base = base_record(job, models)
        pinned = with_pins(base, self._lock) if base and not is_pinned(base) else base
        return with_base(job, pinned)

    def _services(self) -> list[str]:
        known = []
        for name in self._list("services", "['llamacpp']"):
            if isinstance(name, str) and name in catalogue():
                known.append(name)
                continue
            what = f"{quoted(name)} is not a service"
            otherwise = f"write names such as {listed(catalogue())}"
            self.problems.append(Problem("services", what, nearest(name, catalogue(), otherwise)))
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
                fix = nearest(key, known_keys())
                self.problems.append(Problem(shown_key(key), "unknown key", fix))
        return options

    def _section(self, name: str, section: type[Section], options: dict[str, Any]) -> Section:
        try:
            return section.model_validate(options)
        except ValidationError as error:
            found = [problem(f"{name}_", section, detail) for detail in details(error)]
        self.problems += found
        mistaken = {_option(each.key).removeprefix(f"{name}_") for each in found}
        return _or_default(section, {k: v for k, v in options.items() if k not in mistaken})

    def _records(self, key: str, record: type[Section]) -> tuple[Section, ...]:
        good = []
        values = self._list(key, f"[{example_of(record)}]")
        if key == "models":
            values = self._pinned(values)
        elif key == "training_jobs":
            values = [self._with_base(each) for each in values]
        for index, value in enumerate(values):
            try:
                good.append(record.model_validate(value))
            except ValidationError as error:
                prefix = f"{key}[{index}]."
                self.problems += [problem(prefix, record, each) for each in details(error)]
        return tuple(good)


def _or_default(section: type[Section], options: dict[str, Any]) -> Section:
    try:
        return section.model_validate(options)
    except ValidationError:
        return section()


def _option(key: str) -> str:
    return re.split(r"[\[.]", key)[0]
