"""GGUF files in several parts, as llama.cpp names them: `NAME-00001-of-00003.gguf`. Pure."""

import re
from collections.abc import Iterable, Sequence

_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


def part_of(path: str) -> tuple[int, int] | None:
    """Number of a part and of all parts; none if the file is whole."""
    found = _PART.fullmatch(path)
    if found is None or int(found["count"]) < 2:
        return None
    return int(found["number"]), int(found["count"])


def all_parts(path: str) -> tuple[str, ...]:
    """Paths of all parts, by the path of one of them."""
    found = _PART.fullmatch(path)
    if found is None:
        return (path,)
    numbers = range(1, int(found["count"]) + 1)
    return tuple(f"{found['stem']}-{number:05}-of-{found['count']}.gguf" for number in numbers)


def first_part(paths: Sequence[str]) -> str:
    """The part that leads the engine to all others; empty if these are no parts of one file."""
    parts = [path for path in paths if part_of(path)]
    return min(parts) if parts and len(parts) == len(paths) else ""


def missing_part(paths: Iterable[str]) -> str:
    """The first part that is not among the files, by its name; empty if none is missing."""
    given = {*paths}
    wanted = [part for path in sorted(given) if part_of(path) for part in all_parts(path)]
    return next((part for part in wanted if part not in given), "")
