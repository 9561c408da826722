"""How far something is."""

import re
from pathlib import Path

import pytest

from llmhost import units
from llmhost.units import GIB, MIB, gib, so_far


def test_what_is_left_follows_from_what_came() -> None:
    assert so_far(20, 2 * GIB, 10 * GIB) == "2.0 GiB of 10.0 GiB, 20 s, about 80 s left"
    gone_on_with = so_far(20, 6 * GIB, 10 * GIB, begun_with=4 * GIB)
    assert gone_on_with == "6.0 GiB of 10.0 GiB, 20 s, about 40 s left"


@pytest.mark.parametrize(
    ("done", "size", "begun_with"), [(0, 0, 0), (0, 9, 0), (4, 9, 4), (4, 0, 0)]
)
def test_without_anything_to_go_by_only_the_time_is_told(
    done: int, size: int, begun_with: int
) -> None:
    assert so_far(20, done, size, begun_with) == "20 s so far"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (None, "–"),
        (0, "0.0 GiB"),
        (MIB, "1 MiB"),
        (GIB - MIB, "1023 MiB"),
        (GIB, "1.0 GiB"),
        (24 * GIB, "24.0 GiB"),
    ],
)
def test_sizes_are_in_gib_and_small_ones_in_mib(size: int | None, words: str) -> None:
    assert gib(size) == words


def test_every_place_takes_sizes_from_the_one_module() -> None:
    """No other module divides bytes into units of its own."""
    own = re.compile(r"1e[69]\b|10 ?\*\* ?[69]\b|/ ?2 ?\*\* ?[23]0|1024 ?\*\* ?[23]|>> ?[23]0")
    package = Path(units.__file__).parent
    found = [
        f"{path.relative_to(package)}:{number}"
        for path in sorted(package.rglob("*.py"))
        if path.name != "units.py" and "files" not in path.parts and "checks" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if own.search(line) and "://" not in line
    ]
    assert found == []
