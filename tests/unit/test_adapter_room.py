"""The room for adapters in the plan, against what the real vLLM reserves.

The figures are from vLLM 0.32.0 for CPUs, with models of these sizes
(tests/engines/test_vllm_adapters.py measures them again).
"""

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.models.lora_values import values_in, values_of
from llmhost.models.memory import Use
from llmhost.models.safetensors import Matrices
from llmhost.options.shape import Shape
from llmhost.services.vllm_memory import vllm_memory
from llmhost.units import GIB
from llmhost.vram.ledger import GpuShare, Ledger, Load
from llmhost.vram.plan import vram_plan
from llmhost.vram.remedies import remedies
from tests.unit.peft_adapters import Data, two_adapters
from tests.unit.vllm_site import hub_directory, site_of

Sizes = dict[str, tuple[int, ...]]

CONFIG: Data = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 80,
    "vocab_size": 259,
    "max_position_embeddings": 512,
}

ATTENTION: Sizes = {"q": (320, 64), "k": (160, 64), "v": (160, 64), "o": (64, 320), "norm": (64,)}
DENSE: Sizes = {"gate": (128, 64), "up": (128, 64), "down": (64, 128)}
EXPERT: Sizes = {"gate": (96, 64), "up": (96, 64), "down": (64, 96)}
EXPERTS: Sizes = {"router": (8, 64)} | {
    f"{expert}.{name}": sizes for expert in range(8) for name, sizes in EXPERT.items()
}
TABLE: Sizes = {"model.embed_tokens.weight": (259, 64)}
HEAD: Sizes = {"lm_head.weight": (259, 64)}

KINDS = {
    "dense": (ATTENTION | DENSE, TABLE | HEAD, 1_000_192),
    "dense, one table": (ATTENTION | DENSE, TABLE, 1_000_192),
    "experts": (ATTENTION | EXPERTS, TABLE | HEAD, 2_708_224),
}
"""Tensors of a layer, the others, and bytes that vLLM reserved for two adapters of rank 32."""


def write_model(home: Path, layer: Sizes, others: Sizes) -> Path:
    home.mkdir()
    layers = {f"model.layers.{n}.{name}": layer[name] for n in range(4) for name in layer}
    header, end = {}, 0
    for name, sizes in (layers | others).items():
        offsets = [end, end := end + 2 * prod(sizes)]
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": offsets}
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + bytes(end)
    (home / "model.safetensors").write_bytes(content)
    (home / "config.json").write_text(json.dumps(CONFIG))
    return home


def planned_room(model: Mapping[str, Any], adapters: Sequence[Data], gpus: int = 1) -> int:
    """Bytes on each GPU in the plan that adapters add to a model's weights."""
    found = []
    for given in (adapters, []):
        data = site_of({**model, "adapters": given}, gpu_count=gpus, gpu_fraction=0.5)
        plan = vram_plan(read_settings(data), (24 * GIB,) * gpus)
        assert plan.uncounted == ()
        (weights,) = {ledger.loads[0].memory.weights_bytes for ledger in plan.ledgers}
        found.append(weights)
    return found[0] - found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_room_is_what_vllm_reserves(kind: str, tmp_path: Path) -> None:
    """The adapters have ranks of 8 and 20, and change three kinds of modules only."""
    layer, others, reserved = KINDS[kind]
    model = hub_directory(write_model(tmp_path / "model", layer, others))
    assert planned_room(model, two_adapters(tmp_path)) == reserved


def test_gpus_of_a_layer_have_more_than_their_part(tmp_path: Path) -> None:
    """Each of two processes that computed a layer together reserved 1,872,640 bytes."""
    layer, others, _ = KINDS["experts"]
    model = hub_directory(write_model(tmp_path / "model", layer, others))
    assert 1_872_640 <= planned_room(model, two_adapters(tmp_path), gpus=2) < 2 * 1_872_640


def test_stages_have_their_part() -> None:
    whole, stage = (
        vllm_memory(declared(1000), Use(512, adapter_rank=8, gpus=gpus)).weights_bytes
        for gpus in (1, 2)
    )
    assert whole == 2 * stage


def declared(values: int | None = None, **more: int) -> Shape:
    """Llama-3-8B; its 32 layers and two tables have 2,886,144 values for a rank of one."""
    sizes = {"weights_bytes": 16_060_522_496, "cache_values": 65_536, "hidden_size": 4096}
    return Shape(**sizes, vocabulary_size=128_256, adapter_values=values, **more)


def test_values_are_those_of_the_documented_formula() -> None:
    layer = {(4096, 4096): 2, (1024, 4096): 2, (14336, 4096): 2, (4096, 14336): 1}
    matrices: Matrices = {("BF16", sizes): 32 * count for sizes, count in layer.items()}
    table: Matrices = {("BF16", (128_256, 4096)): 2}
    formula = 32 * (7 * 4096 + 2 * 128 * (32 + 8) + 3 * 14336) + 2 * (128_256 + 4096)
    assert values_in({**matrices, **table}, 4096, 128_256) == formula == 2_886_144
    assert values_in({}, 4096, 128_256) is None


@pytest.mark.parametrize(
    ("packed", "whole"),
    [
        (("I32", (512, 14336)), (4096, 14336)),  # GPTQ
        (("I32", (4096, 1792)), (4096, 14336)),  # AWQ
        (("U8", (4096 * 7168, 1)), (14336, 4096)),  # bitsandbytes
        (("F8_E4M3", (14336, 4096)), (14336, 4096)),
    ],
)
def test_packed_weights_have_as_many(
    packed: tuple[str, tuple[int, ...]], whole: tuple[int, ...]
) -> None:
    assert values_in({packed: 1}, 4096, 0) == sum(whole)


@pytest.mark.parametrize(
    ("kind", "fused", "down"),
    [
        ("BF16", (32, 2880, 5760), (32, 2880, 2880)),
        ("U8", (32, 5760, 90, 16), (32, 2880, 90, 16)),
    ],
)
def test_experts_in_one_tensor_have_enough(
    kind: str, fused: tuple[int, ...], down: tuple[int, ...]
) -> None:
    """The layers of gpt-oss-20b; each of the three matrices of an expert has its own inputs."""
    found = values_in({(kind, fused): 1, (kind, down): 1}, 2880, 0)
    assert found is not None
    assert 32 * 3 * (2880 + 2880) <= found <= 32 * 4 * (2880 + 2880)


@pytest.mark.parametrize(
    ("hidden", "parameters", "values"),
    [
        (4096, 8_030_261_248, 2_886_144),  # Llama-3-8B
        # Qwen3-30B-A3B: 48 layers of 128 experts with 768 each
        (2048, 30_532_122_624, 48 * (6 * 2048 + 36 * 2 * 128 + 128 * 3 * (2048 + 768)) + 307_968),
    ],
)
def test_room_of_an_unknown_model_is_enough(hidden: int, parameters: int, values: int) -> None:
    known = {"cache_values": 1, "hidden_size": hidden, "vocabulary_size": 151_936}
    for weights, more in ((2 * parameters, {"parameters": parameters}), (parameters // 2, {})):
        found = values_of(Shape(weights_bytes=weights, **known, **more))
        assert values <= found


def test_graphs_are_captured_with_and_without_adapters() -> None:
    without, one, graphless = (
        vllm_memory(declared(1), Use(512, parallel=64, adapter_rank=rank), graphs=graphs)
        for rank, graphs in ((0, True), (8, True), (8, False))
    )
    captured = without.work_bytes - graphless.work_bytes
    assert one.work_bytes - graphless.work_bytes == 2 * captured


def test_remedy_names_what_is_not_declared() -> None:
    def found(shape: Shape) -> list[str]:
        use = Use(4096, adapter_rank=64, gpu_bytes=24 * GIB)
        load = Load("m", "vllm", 0, shape, use, vllm_memory)
        plan = Ledger(0, 24 * GIB, GIB, (load,), (GpuShare("vllm", 0, 0.8),))
        return [each for each in remedies(plan) if "adapter_values" in each]

    (remedy,) = found(declared())
    assert remedy.startswith("'m' may fit with adapter_values in its shape")
    assert found(declared(2_886_144)) == []
