"""LoRA adapters as PEFT writes them, for the small Qwen3 of the tests (testbed/tiny_qwen.py).

The weights are random and large, so that an adapter changes every answer.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Data = dict[str, Any]
Weights = Mapping[str, np.ndarray]

LAYERS = 4
SIZES = {
    "self_attn.q_proj": (64, 320),
    "self_attn.v_proj": (64, 160),
    "mlp.down_proj": (128, 64),
}
"""Inputs and outputs of the modules that are adapted."""

SHAPE = {
    "weights_bytes": 2**19,
    "cache_values": 2 * LAYERS * 2 * 80,
    "hidden_size": 64,
    "vocabulary_size": 259,
    "layers": LAYERS,
}
"""Of the model, for an inventory."""


def tensors(rank: int, seed: int = 1, **ranks: int) -> dict[str, np.ndarray]:
    """Tensors of three modules in each layer under PEFT's names; `ranks` has those of modules with
    another one."""
    random, found = np.random.default_rng(seed), {}
    for layer in range(LAYERS):
        for module, (inputs, outputs) in SIZES.items():
            own = ranks.get(module.rpartition(".")[2], rank)
            place = f"base_model.model.model.layers.{layer}.{module}"
            found[f"{place}.lora_A.weight"] = random.standard_normal((own, inputs))
            found[f"{place}.lora_B.weight"] = random.standard_normal((outputs, own))
    return found


def two_adapters(place: Path) -> list[Data]:
    """Adapters of different ranks, `style` and `legal`."""
    return [
        write_adapter(place / "style", 8, tensors(8, seed=1)),
        write_adapter(place / "legal", 20, tensors(20, seed=2)),
    ]


def write_adapter(
    home: Path,
    rank: int = 8,
    weights: Weights | None = None,
    without: Sequence[str] = (),
    **config: Any,
) -> Data:
    """Write `adapter_config.json` and `adapter_model.safetensors`; the adapter for an inventory.

    `config` replaces what PEFT 0.21 writes, and `without` are keys that are left out.
    """
    home.mkdir(parents=True, exist_ok=True)
    weights = tensors(rank) if weights is None else weights
    usual = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank}
    usual |= {"bias": "none", "modules_to_save": None, "use_rslora": False, "use_dora": False}
    usual |= {"target_modules": ["q_proj", "v_proj", "down_proj"], "base_model_name_or_path": ""}
    usual |= {"rank_pattern": {}, "alpha_pattern": {}, "init_lora_weights": True}
    usual |= {"lora_bias": False, "layer_replication": None, "alora_invocation_tokens": None}
    whole = {key: value for key, value in (usual | config).items() if key not in without}
    (home / "adapter_config.json").write_text(json.dumps(whole))
    (home / "adapter_model.safetensors").write_bytes(safetensors(weights))
    return {"name": home.name, "source": str(home)}


def safetensors(weights: Weights) -> bytes:
    """A file in this format, with values of 32 bits."""
    header, content = {}, b""
    for name, values in weights.items():
        data = np.ascontiguousarray(values, "<f4").tobytes()
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
        content += data
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + content
