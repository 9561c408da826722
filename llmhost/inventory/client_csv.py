"""Clients of a CSV file: all of them, or every mistake by line. Pure."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings

COLUMNS = (
    "name",
    "scope",
    "sources",
    "requests_per_minute",
    "burst",
    "concurrent_streams",
    "tokens_per_day",
    "expires",
)
"""Fields of a record in `api_clients` that a column may give; `name` is required."""

_NUMBERS = ("requests_per_minute", "burst", "concurrent_streams", "tokens_per_day")
_SCOPES = ("inference", "admin")
_SHA256 = "0" * 64


class CsvMistakes(ValueError):
    """One sentence for each wrong line; each continues the name of the file."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = tuple(sentences)


@dataclass(frozen=True)
class _Line:
    number: int
    record: dict[str, Any]


def clients_of(text: str) -> list[dict[str, Any]]:
    """Records for `api_clients`, without keys. Empty cells are left out; several sources, or the
    services of a scope, are separated by spaces. Raises CsvMistakes."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise CsvMistakes([f"line {reader.line_num}: is not CSV: {error}"]) from None
    if not rows:
        raise CsvMistakes([f"is empty; write a line with columns such as {','.join(COLUMNS[:3])}"])
    header = [cell.strip() for cell in rows[0][1]]
    _check_header(header)
    lines, mistakes = [], []
    for number, row in rows[1:]:
        if len(row) != len(header):
            mistakes.append(
                f"line {number}: has {len(row)} cells, and the first line {len(header)}"
            )
        else:
            lines.append(_Line(number, _record(dict(zip(header, row, strict=True)))))
    if not lines and not mistakes:
        raise CsvMistakes(["has no client below its first line"])
    mistakes += [f"line {n}: {what}" for line in lines for n, what in _mistakes(line)]
    mistakes += _repeated(lines)
    if mistakes:
        raise CsvMistakes(sorted(mistakes, key=_line_number))
    return [line.record for line in lines]


def _line_number(sentence: str) -> int:
    return int(sentence.split()[1].rstrip(":"))


def _check_header(header: Sequence[str]) -> None:
    known = ", ".join(COLUMNS)
    mistakes = [
        f"line 1: '{name}' is not a column; the columns are {known}"
        for name in header
        if name not in COLUMNS
    ]
    mistakes += [
        f"line 1: column '{name}' is there twice"
        for name in sorted({name for name in header if header.count(name) > 1})
    ]
    if "name" not in header:
        mistakes.append(f"line 1: column 'name' is missing; the columns are {known}")
    if mistakes:
        raise CsvMistakes(mistakes)


def _record(cells: Mapping[str, str]) -> dict[str, Any]:
    given = {key: cell.strip() for key, cell in cells.items() if cell.strip()}
    return {key: _value(key, cell) for key, cell in given.items()}


def _value(key: str, cell: str) -> Any:
    if key in _NUMBERS and re.fullmatch(r"\d{1,15}", cell):
        return int(cell)
    if key == "sources" or (key == "scope" and cell not in _SCOPES):
        return cell.split()
    return cell


def _mistakes(line: _Line) -> Iterator[tuple[int, str]]:
    """By the rules of the inventory."""
    try:
        read_settings({"api_clients": [{**line.record, "sha256": _SHA256}]}, lambda _: ())
    except SettingsError as error:
        for each in error.problems:
            column = each.key.partition(".")[2] or each.key
            given = line.record.get(column.partition("[")[0])
            shown = f"'{given}': " if isinstance(given, str) and given not in each.what else ""
            what = "; ".join(filter(None, (each.what, each.fix)))
            yield line.number, f"{column}: {shown}{what}"


def _repeated(lines: Sequence[_Line]) -> list[str]:
    first: dict[str, int] = {}
    sentences = []
    for line in lines:
        name = str(line.record.get("name", ""))
        if name in first:
            sentences.append(f"line {line.number}: '{name}' is also in line {first[name]}")
        first.setdefault(name, line.number)
    return sentences
