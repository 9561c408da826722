"""What the program of a training container keeps between its runs, and which examples it reads.

It trains in tests/integration/test_training_program.py.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
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


class Tokenizer:
    """Has a token for each character, as some have for Chinese, and one at the end of a text."""

    chat_template = None
    eos_token_id = 0

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(each) for each in text]}


def read(program: Any, place: Path, monkeypatch: pytest.MonkeyPatch, longest: int) -> Any:
    loads = SimpleNamespace(from_pretrained=lambda _: Tokenizer())
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=loads))
    job = {"base": "x", "base_name": "x", "context_tokens": longest}
    return program.examples(place, job)


def lines(*records: dict[str, str]) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)


def test_text_with_more_tokens_than_expected_is_divided_and_not_lost(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n\n".join(f"Absatz {number} " + "字" * 40 for number in range(9))
    (tmp_path / "train.jsonl").write_text(lines({"text": text}, {"text": "short"}))
    (tmp_path / "held_back.jsonl").write_text(lines({"text": "字" * 200}))
    trained, held_back, left_out = read(program, tmp_path, monkeypatch, 128)
    assert left_out == 0
    every = [*trained, *held_back]
    assert all(len(each["input_ids"]) <= 128 and each["input_ids"][-1] == 0 for each in every)
    parts = ["".join(map(chr, each["input_ids"][:-1])) for each in trained]
    assert "".join(parts) == f"{text}short"
    # Each part but the last one ends with a paragraph.
    assert all(part.endswith("字\n\n") for part in parts[:-2]) and len(parts) > 4
    assert sum(len(each["input_ids"]) - 1 for each in held_back) == 200


def test_questions_that_are_too_long_are_counted(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"prompt": "Who?", "completion": "Ada."}
    long = {"prompt": "Why?", "completion": "Because " * 20}
    (tmp_path / "train.jsonl").write_text(lines(good, long, {"text": "A text."}))
    (tmp_path / "held_back.jsonl").write_text(lines(good, long))
    trained, held_back, left_out = read(program, tmp_path, monkeypatch, 64)
    assert (len(trained), len(held_back), left_out) == (2, 1, 2)
    (tmp_path / "train.jsonl").write_text(lines(long, long))
    with pytest.raises(program.MistakeError, match=r"Every example in train\.jsonl is longer"):
        read(program, tmp_path, monkeypatch, 64)


def test_lines_are_on_the_disk_before_the_checkpoint_that_needs_them(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, a complete checkpoint without its last line would end as a failure."""
    progress = program.Progress(tmp_path / "progress.jsonl", 0)
    synced: list[str] = []
    monkeypatch.setattr(
        program.os,
        "fsync",
        lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink().read_text()),
    )
    progress.add(json.loads(line(1)))
    assert synced == [line(1)]


@pytest.mark.parametrize("text", ["[1]", "5", "{", "[" * 100_000])
def test_config_that_is_no_record_is_one_sentence(program: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(program.MistakeError, match=r"has no config.json that can be read"):
        program.written_config({"base": str(tmp_path), "base_name": "Small"})


@pytest.mark.parametrize("quantized", [["fp8"], "fp8", {"quant_method": "fp8"}])
def test_quantized_base_is_one_sentence(program: Any, tmp_path: Path, quantized: object) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": quantized}))
    job = {"base": str(tmp_path), "base_name": "Small", "method": "lora"}
    with pytest.raises(program.MistakeError, match=r"is quantized .* and cannot be trained"):
        program.judge_method(job)
