"""The page that shows which driver a host gets."""

from pathlib import Path

from llmhost.docs.matrix import matrix
from llmhost.nvidia.driver import RELEASES

PAGE = Path(__file__).parents[2] / "docs" / "nvidia-matrix.md"


def test_page_is_what_the_code_chooses() -> None:
    assert PAGE.read_text() == matrix(), "run script/docs"


def test_every_release_has_a_driver_for_every_gpu() -> None:
    rows = [line.split(" | ") for line in matrix().splitlines() if " | " in line]
    served = {(row[0].strip("| "), row[1]) for row in rows if "refused" not in row[3]}
    assert len(served) == 1 + 1 + 4 * len(RELEASES)  # the header and its rule, then the groups
