"""The room that vLLM reserves for adapters of a small model, with random weights.

`python vllm_adapter_room.py DIRECTORY KIND RANK ADAPTERS GPUS`, by a Python that has vLLM for CPUs.
It writes a model of this kind, starts vLLM with it, without any adapter, and writes the bytes of
the buffers that each process has to DIRECTORY.json.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path

_SIZES = {"vocab_size": 259, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 80}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
_KINDS: dict[str, dict[str, object]] = {
    "llama": {"tie_word_embeddings": False},
    "llama-tied": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": False},
    "qwen3_moe": {"tie_word_embeddings": False, **_EXPERTS},
}


def write(home: str, kind: str) -> None:
    """Write the model as from the hub, without a tokenizer."""
    import torch  # type: ignore[import-not-found, unused-ignore]
    from transformers import (  # type: ignore[import-not-found, unused-ignore]
        AutoConfig,
        AutoModelForCausalLM,
    )

    sizes: dict[str, object] = {**_SIZES, **_HEADS, **_KINDS[kind], "max_position_embeddings": 512}
    config = AutoConfig.for_model(kind.partition("-")[0], dtype="bfloat16", **sizes)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(home)


def reserved(model: object) -> int:
    """Bytes of the buffers for adapters in a process with this model."""
    found = {}
    for module in model.modules():  # type: ignore[attr-defined]
        for name, value in vars(module).items():
            if name.endswith("_stacked"):
                for tensor in value if isinstance(value, tuple | list) else [value]:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def measure(home: str, rank: int, adapters: int, gpus: int) -> list[int]:
    """The bytes in each process of vLLM."""
    from vllm import LLM  # type: ignore[import-not-found, unused-ignore]

    # vLLM's own processes import the function by its name.
    function = import_module(Path(__file__).stem).reserved
    engine = LLM(
        model=home,
        skip_tokenizer_init=True,
        enforce_eager=True,
        kv_cache_memory_bytes=2**26,
        max_model_len=256,
        max_num_seqs=2,
        enable_lora=True,
        max_lora_rank=rank,
        max_loras=adapters,
        tensor_parallel_size=gpus,
    )
    found: list[int] = engine.apply_model(function)
    return found


if __name__ == "__main__":
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parent),
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
        # Several processes share the processors.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    write(*sys.argv[1:3])
    measured = measure(sys.argv[1], *map(int, sys.argv[3:6]))
    Path(f"{sys.argv[1]}.json").write_text(json.dumps(measured))
