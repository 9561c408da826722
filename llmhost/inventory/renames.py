"""Renamed options: the old name works for one minor version, with a warning."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from llmhost.inventory.problem import Problem


@dataclass(frozen=True)
class Rename:
    """`old` and `new` are keys of an inventory, or of the records of a list: `models[].name`.

    Version `since` introduced the new name; version `removed` refuses the old one.
    """

    old: str
    new: str
    since: str
    removed: str


RENAMES = (Rename("models[].quantisation", "models[].quantization", since="0.2", removed="0.3"),)


class Renamed:
    """Data of a host with the new names, and warnings and mistakes for the operator."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = dict(data)
        self.warnings: list[Problem] = []
        self.mistakes: list[Problem] = []
        for rename in RENAMES:
            self._apply(rename)

    def _apply(self, rename: Rename) -> None:
        key, _, old = rename.old.rpartition("[].")
        new = rename.new.rpartition("[].")[2]
        records = self.data.get(key)
        if not key:
            self.data = self._moved(rename, self.data, "", old, new)
        elif isinstance(records, list | tuple):
            self.data[key] = [
                self._moved(rename, each, f"{key}[{place}].", old, new)
                if isinstance(each, Mapping)
                else each
                for place, each in enumerate(records)
            ]

    def _moved(
        self, rename: Rename, record: Mapping[str, Any], prefix: str, old: str, new: str
    ) -> dict[str, Any]:
        """A record with the value of the old name under the new one."""
        if old not in record:
            return dict(record)
        rest = {name: value for name, value in record.items() if name != old}
        if new in rest:
            what = f"is the old name of {new}, and both are set"
            self.mistakes.append(Problem(f"{prefix}{old}", what, f"remove {old}"))
            return rest
        if _numbers(version("llmhost")) >= _numbers(rename.removed):
            what = f"was renamed to {new} in version {rename.since}"
            self.mistakes.append(Problem(f"{prefix}{old}", what, f"write {new}"))
        else:
            what = f"was renamed to {new}; version {rename.removed} will refuse the old name"
            self.warnings.append(Problem(f"{prefix}{old}", what, f"write {new}"))
        return {**rest, new: record[old]}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(".")[:2]]


def warn_of_old_names(host: str, data: Mapping[str, Any]) -> None:
    """One line for each option of a host with an old name, once in a process."""
    for sentence in _warnings(host, data):
        _warn(sentence)


def _warnings(host: str, data: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each option, for any number of records."""
    sentences: dict[str, str] = {}
    for problem in Renamed(data).warnings:
        sentences.setdefault(problem.key.rpartition(".")[2], problem.sentence(host))
    yield from sentences.values()


@cache
def _warn(sentence: str) -> None:
    logging.getLogger("llmhost").warning("warning: %s", sentence)
