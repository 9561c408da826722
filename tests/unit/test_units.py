"""How far something is."""

import pytest

from llmhost.units import so_far
from llmhost.vram.ledger import GIB


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
