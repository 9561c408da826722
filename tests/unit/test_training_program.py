"""What the program of a training container keeps between its runs, and which examples it reads.

It trains in tests/integration/test_training_program.py.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from llmhost.resources import FILES


@pytest.fixture(scope="module")
def program() -> Any:
    specification = importlib.util.spec_from_file_location(
        "training_program", FILES / "images" / "training" / "train.py"
    )
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": 1 / step, "seconds": step * 2.5}) + "\n"


def test_lines_after_the_checkpoint_and_half_lines_are_dropped(
    program: Any, tmp_path: Path
) -> None:
    file = tmp_path / "progress.jsonl"
    file.write_text(line(1) + line(2) + line(3) + '{"step": 4, "lo')
    assert [each["step"] for each in program.Progress(file, 9).lines] == [1, 2, 3]
    progress = program.Progress(file, 2)
    assert file.read_text() == line(1) + line(2) and progress.seconds == 5
    progress.add(json.loads(line(3)))
    assert file.read_text() == line(1) + line(2) + line(3)
    assert program.Progress(file, 0).seconds == 0 and file.read_text() == ""


def test_first_run_has_no_progress(program: Any, tmp_path: Path) -> None:
    assert not program.Progress(tmp_path / "progress.jsonl", 0).lines


def test_newest_complete_checkpoint_counts_and_others_go(program: Any, tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    assert program.newest_checkpoint(place) is None and program.step_of(None) == 0
    for step, complete in ((90, True), (100, True), (110, False)):
        (place / f"checkpoint-{step}").mkdir()
        if complete:
            (place / f"checkpoint-{step}" / program.COMPLETE).touch()
    found = program.newest_checkpoint(place)
    assert found == place / "checkpoint-100" and program.step_of(found) == 100
    assert {each.name for each in place.iterdir()} == {"checkpoint-90", "checkpoint-100"}


@pytest.mark.parametrize(
    "wrong",
    [
        *("{", "[]", '"text"', "{}", '{"text": 1}', '{"text": ""}', '{"prompt": "Who?"}'),
        '{"prompt": "Who?", "completion": "Me.", "text": "Me."}',
    ],
)
def test_line_that_is_no_example_is_named(program: Any, tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "train.jsonl"
    good = [{"text": "A cat sat."}, {"prompt": "Who sat?", "completion": "A cat."}]
    file.write_text("\n".join([json.dumps(good[0]), "", json.dumps(good[1])]) + "\n")
    assert [*program.records(file)] == good
    file.write_text(f"{json.dumps(good[0])}\n\n{wrong}\n")
    with pytest.raises(program.MistakeError, match=r"^Line 3 of train\.jsonl has neither"):
        assert not [*program.records(file)]


def test_completion_begins_where_the_prompt_goes_on_in_another_way(program: Any) -> None:
    assert program.common([1, 2, 3], [1, 2, 3, 4]) == 3
    assert program.common([1, 2, 3], [1, 2, 7, 4]) == 2
    assert program.common([], [1]) == 0


def test_errors_of_libraries_become_one_sentence(program: Any) -> None:
    assert program.one_line(ValueError("Not so.\n Use another. Or none.")) == "Not so."
    assert program.one_line(ValueError("`r` is\n 0")) == "`r` is 0."


def test_loss_that_is_no_number_is_none(program: Any) -> None:
    assert program.number(float("nan")) is None and program.number(1.23456789) == 1.234568
