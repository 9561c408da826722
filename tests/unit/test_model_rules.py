"""What is wrong with model files is told before anything is built, all of it at once."""

from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Kind

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from tests.unit.model_files import Tensors, sizes, write_gguf, write_safetensors

TENSORS: Tensors = {
    "token_embd.weight": ((100, 256), Kind.F16),
    "output.weight": ((100, 256), Kind.F16),
    "blk.0.attn_q.weight": ((256, 256), Kind.F16),
}
SIZES = sizes(1, 256, 4, 2, 8192)
LORA: dict[str, Any] = {"general.type": "adapter", "adapter.type": "lora"}


def lora(outputs: int = 256) -> Tensors:
    return {
        "blk.0.attn_q.weight.lora_a": ((8, 256), Kind.F32),
        "blk.0.attn_q.weight.lora_b": ((outputs, 8), Kind.F32),
        "token_embd.weight.lora_a": ((100, 8), Kind.F32),
        "token_embd.weight.lora_b": ((256, 8), Kind.F32),
    }


def problems(source: Path | str, others: dict[str, Any] | None = None, **model: Any) -> list[str]:
    """All that is said of an inventory with this one model."""
    record = {"name": "m", "source": str(source), "sha256": "1" * 64, **model}
    client = {"name": "app", "sha256": "a" * 64}
    data = {"services": ["llamacpp"], "models": [record], "api_clients": [client]}
    try:
        read_settings({**data, **(others or {})})
    except SettingsError as error:
        return [problem.sentence("host") for problem in error.problems]
    return []


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "m.gguf", TENSORS, SIZES)


def test_good_model_is_accepted(good: Path) -> None:
    assert problems(good) == []
    assert problems(good, context_tokens=8192) == []


def test_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"<html>Sign in</html>"):
        (tmp_path / "page.gguf").write_bytes(content)
        (told,) = problems(tmp_path / "page.gguf")
        assert told == (
            "host: models: 'm': its file is not a GGUF file: it does not begin with the"
            " letters GGUF;"
            " download it again, and compare its SHA-256 with the publisher's"
        )


def test_truncated_file_is_refused(good: Path) -> None:
    with good.open("r+b") as file:
        file.truncate(good.stat().st_size - 100_000)
    (told,) = problems(good)
    assert "its file is truncated: its tensors need" in told


def test_unreadable_file_is_refused(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    (told,) = problems(good)
    assert "its file cannot be read: Permission denied" in told


def test_unknown_architecture_is_refused_unless_measured(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", TENSORS, {}, "hal9000")
    (told,) = problems(path)
    assert "has the unsupported architecture 'hal9000'" in told
    assert "set vram_gib" in told
    assert problems(path, vram_gib=3.5) == []


def test_part_of_a_model_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", TENSORS, SIZES | {"split.count": 3})
    (told,) = problems(path)
    assert "is one of 3 parts" in told


def test_adapter_in_place_of_a_model_is_refused(tmp_path: Path) -> None:
    (told,) = problems(write_gguf(tmp_path / "a.gguf", lora(), LORA))
    assert "is an adapter, not a model" in told


def test_context_beyond_the_model_is_refused(good: Path) -> None:
    (told,) = problems(good, context_tokens=8193)
    assert told == (
        "host: models: 'm': context_tokens is 8193, but it was trained for 8192;"
        " set context_tokens to 8192 or less"
    )


def test_context_beyond_a_declared_shape_is_refused() -> None:
    shape = {
        "weights_bytes": 10**9,
        "cache_values": 10**5,
        "hidden_size": 4096,
        "vocabulary_size": 32_000,
        "trained_context_tokens": 4096,
    }
    remote: dict[str, Any] = {"source": "hf:a/b/m.gguf", "revision": "1" * 40, "shape": shape}
    (told,) = problems(**remote, context_tokens=5000)
    assert "context_tokens is 5000, but it was trained for 4096" in told
    assert problems(**remote) == []


def test_other_quantization_than_declared_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", TENSORS, SIZES | {"general.file_type": 7})
    (told,) = problems(path, quantization="Q4_K_M")
    assert "its file is quantized as Q8_0" in told
    assert problems(path, quantization="q8_0") == []


def about_adapter(good: Path, adapter: Path | str, **model: Any) -> list[str]:
    """What is said of an adapter; llama.cpp's service itself takes none."""
    found = problems(good, adapter=str(adapter), **model)
    return [told for told in found if "its adapter" in told]


def test_fitting_adapter_is_accepted(good: Path, tmp_path: Path) -> None:
    assert about_adapter(good, write_gguf(tmp_path / "a.gguf", lora(), LORA)) == []


def test_adapter_for_another_architecture_is_refused(good: Path, tmp_path: Path) -> None:
    adapter = write_gguf(tmp_path / "a.gguf", lora(), LORA, "qwen2")
    (told,) = about_adapter(good, adapter)
    assert "is for the architecture 'qwen2', and the model has 'llama'" in told


@pytest.mark.parametrize(
    "tensors",
    [
        lora(outputs=512),
        lora() | {"blk.9.attn_q.weight.lora_a": ((8, 256), Kind.F32)},
        {"blk.0.attn_q.weight.lora_a": ((8, 256), Kind.F32)},
        {"blk.0.attn_q.weight.lora_a": ((256,), Kind.F32)},
    ],
)
def test_adapter_of_another_size_is_refused(good: Path, tmp_path: Path, tensors: Tensors) -> None:
    (told,) = about_adapter(good, write_gguf(tmp_path / "a.gguf", tensors, LORA))
    assert "changes 1 tensors that the model lacks, or has with other sizes" in told


def test_adapter_for_another_base_is_refused_unless_declared(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf", TENSORS, SIZES | {"general.name": "EEVE 10.8B"})
    base = {"general.base_model.0.repo_url": "https://huggingface.co/upstage/SOLAR-10.7B"}
    adapter = write_gguf(tmp_path / "a.gguf", lora(), LORA | base)
    (told,) = about_adapter(model, adapter)
    assert "was made for 'SOLAR-10.7B'" in told
    assert about_adapter(model, adapter, base_models=["upstage/solar-10.7b"]) == []
    same = {"general.base_model.0.name": "eeve-10.8b"}
    assert about_adapter(model, write_gguf(tmp_path / "b.gguf", lora(), LORA | same)) == []


def test_missing_or_damaged_adapter_is_refused(good: Path, tmp_path: Path) -> None:
    (told,) = (each for each in problems(good, adapter="/nowhere") if "its adapter" in each)
    assert "its adapter does not exist" in told
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (told,) = about_adapter(good, tmp_path / "a.gguf")
    assert "its adapter is truncated" in told
    (told,) = about_adapter(good, good)
    assert "its adapter is a whole model" in told


def test_denied_model_is_refused_with_rule_and_ancestor(tmp_path: Path) -> None:
    base = {"general.base_model.0.repo_url": "https://huggingface.co/Qwen/Qwen2.5-14B"}
    path = write_gguf(tmp_path / "m.gguf", TENSORS, SIZES | base)
    (told,) = problems(path, {"policy_denied_publishers": ["qwen"]})
    assert told == (
        "host: models: 'm': is refused by policy_denied_publishers 'qwen': 'Qwen/Qwen2.5-14B', in"
        " general.base_model.0 of the file; use another model, or change the policy"
    )


def test_model_card_beside_the_file_is_read(good: Path) -> None:
    good.with_name("README.md").write_text("---\nbase_model: Qwen/Qwen3-8B\n---\n")
    (told,) = problems(good, {"policy_denied_publishers": ["qwen"]})
    assert "'Qwen/Qwen3-8B', in the model card" in told


def test_changed_file_is_read_again(good: Path) -> None:
    assert problems(good) == []
    good.write_bytes(b"no longer a model")
    assert "is not a GGUF" in "".join(problems(good))


ON_GPU = {"llamacpp_gpu": 0, "vram_gpus_gib": [1.0]}


def test_model_that_fits_its_gpu_is_accepted(good: Path) -> None:
    assert problems(good, ON_GPU) == []


def test_model_too_large_for_its_gpu_is_refused_with_what_would_fit(good: Path) -> None:
    (told,) = problems(good, ON_GPU | {"vram_reserve_gib": 0.55}, context_tokens=8192)
    assert "GPU 0 has 1.00 GiB, of which 0.45 GiB are available" in told
    assert "too much; 'm' fits with context_tokens = 7936; or 'm' fits as Q8_0" in told


def test_without_declared_gpus_nothing_is_compared(good: Path) -> None:
    assert problems(good, {"llamacpp_gpu": 0}) == []


def test_bad_file_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"rubbish")
    (told,) = problems(tmp_path / "m.gguf", ON_GPU)
    assert "is not a GGUF" in told


def test_gpu_that_is_not_there_is_refused(good: Path) -> None:
    (told,) = problems(good, ON_GPU | {"llamacpp_gpu": 1})
    assert "'llamacpp' runs on GPU 1, but the last one is GPU 0" in told


def test_model_of_unknown_size_is_refused() -> None:
    (told,) = problems("hf:a/b/m.gguf", ON_GPU, revision="1" * 40)
    assert "'m': its sizes are unknown; set its shape, or its measured vram_gib" in told
    assert problems("hf:a/b/m.gguf", ON_GPU, revision="1" * 40, vram_gib=0.4) == []


def test_recurrent_model_must_be_measured_only_on_a_gpu(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", TENSORS, {"mamba.block_count": 1}, "mamba")
    assert problems(path) == []
    (told,) = problems(path, ON_GPU)
    assert "'m': its file has the architecture 'mamba', whose memory is unknown" in told


def test_safetensors_are_sized_with_the_config_beside_them(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", (1024, 1024))
    (told,) = problems(path, ON_GPU)
    assert "has no config.json in its directory" in told
    config = (
        '{"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "vocab_size": 100,'
        ' "max_position_embeddings": 4096}'
    )
    (tmp_path / "config.json").write_text(config)
    assert problems(path, ON_GPU) == []
    (told,) = problems(path, ON_GPU | {"vram_gpus_gib": [0.9]})
    assert "0.45 GiB: 0.05 GiB too much" in told
    (told,) = problems(path, context_tokens=4097)
    assert "it was trained for 4096" in told


def test_index_of_safetensors_is_followed(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}')
    write_safetensors(tmp_path / "m-1.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (told,) = problems(index, ON_GPU)
    assert "names m-2.safetensors, which is not in its directory" in told
    write_safetensors(tmp_path / "m-2.safetensors")
    (told,) = problems(index, ON_GPU)
    assert "config.json without layers" in told


@pytest.mark.parametrize(
    "text", ["[1]", '"text"', "5", "null", "{", "", "[" * 100_000, '{"a":' * 100_000]
)
def test_config_that_is_no_record_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    (told,) = problems(path, ON_GPU)
    assert "its file has a config.json that is not a JSON object" in told


@pytest.mark.parametrize("option", ["draft", "projector", "adapter"])
def test_files_beside_a_model_are_judged_too(option: str, good: Path, tmp_path: Path) -> None:
    """A draft is a model of its own, and an adapter has a license of its own."""
    (tmp_path / "beside").mkdir()
    kind = {"draft": "llama", "projector": "clip", "adapter": "llama"}[option]
    metadata = {"general.organization": "Qwen", "general.license": "cc-by-nc-4.0"}
    metadata |= LORA if option == "adapter" else SIZES
    tensors = lora() if option == "adapter" else TENSORS
    path = write_gguf(tmp_path / "beside" / "b.gguf", tensors, metadata, kind)
    beside: dict[str, Any] = {option: str(path)}
    assert problems(good, **beside) == []
    (told,) = problems(good, {"policy_denied_publishers": ["qwen"]}, **beside)
    assert f"is refused by policy_denied_publishers 'qwen': 'Qwen', in its {option}" in told
    (told,) = problems(good, {"policy_denied_licences": ["cc-by-nc-4.0"]}, **beside)
    assert "its licence is 'cc-by-nc-4.0'" in told
    path.with_name("README.md").write_text("---\nbase_model: DeepSeek/R1\n---\n")
    (told,) = problems(good, {"policy_denied_publishers": ["deepseek"]}, **beside)
    assert f"'DeepSeek/R1', in the model card of its {option}" in told
