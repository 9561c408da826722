"""The matrix: its file, the page and the command that show it."""

import json
from datetime import date
from pathlib import Path

from typer.testing import CliRunner

from llmhost.cli.app import app
from llmhost.docs.matrix import matrix
from llmhost.nvidia.data import MATRIX, version
from llmhost.nvidia.driver import RELEASES
from llmhost.nvidia.matrix import age, groups, rows

PAGE = Path(__file__).parents[2] / "docs" / "nvidia-matrix.md"


def test_page_is_what_the_code_chooses() -> None:
    assert PAGE.read_text() == matrix(), "run script/docs"


def test_every_release_has_a_driver_for_every_gpu_but_those_that_the_matrix_knows() -> None:
    missing = {
        (row.release, row.gpus) for row in rows(MATRIX.checked) if row.default and row.refusal
    }
    assert missing == {("debian-13", "Maxwell, Pascal, Volta")}
    assert len(groups()) == 4


def test_the_figures_of_the_file_fit_each_other() -> None:
    for number, branch in MATRIX.branches.items():
        assert not branch.floor or version(branch.floor)[0] == number
    for release in MATRIX.releases.values():
        for branches in release.branches.values():
            assert [*branches] == sorted(branches) and set(branches) <= set(MATRIX.branches)
    assert {name for _, name in MATRIX.blocks} - {""} == {*MATRIX.generations}
    assert [start for start, _ in MATRIX.blocks] == sorted(start for start, _ in MATRIX.blocks)
    assert {*MATRIX.releases} == {*RELEASES}


def test_age_is_told_in_days() -> None:
    assert age(MATRIX.checked) == f"checked on {MATRIX.checked}"
    assert age(date.fromordinal(MATRIX.checked.toordinal() + 40)).endswith(", 40 days ago")


def test_command_prints_the_matrix_and_its_age() -> None:
    ran = CliRunner().invoke(app, ["nvidia"])
    assert ran.exit_code == 0, ran.output
    for part in (age(date.today()), "580.178.04", "debian-13", "620.70.06", "Rubin", "5861"):
        assert part in ran.output


def test_command_prints_json() -> None:
    ran = CliRunner().invoke(app, ["nvidia", "--json"])
    found = json.loads(ran.output)
    assert found["checked"] == f"{MATRIX.checked}" and found["bulletin"]["number"] == "5861"
    assert {row["release"] for row in found["drivers"]} == {*RELEASES}
