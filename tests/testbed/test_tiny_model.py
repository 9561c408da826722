"""The tiny model is a real one, and the same everywhere."""

from pathlib import Path

from gguf import GGUFReader

from testbed import tiny_model


def test_file_is_the_same_every_time(tmp_path: Path) -> None:
    digests = {tiny_model.write(tmp_path / name) for name in ("one.gguf", "two.gguf")}
    assert digests == {tiny_model.SHA256}


def test_file_is_small_and_read_as_a_two_layer_llama(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_model.write(path)
    assert path.stat().st_size < 1_000_000
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "llama"
    assert fields["llama.block_count"] == 2
    assert len(reader.tensors) == 2 * 9 + 3
    assert "add_generation_prompt" in fields["tokenizer.chat_template"]
