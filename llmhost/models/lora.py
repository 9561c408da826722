"""LoRA adapters in PEFT's format on the controller."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from llmhost.models.lineage import compact
from llmhost.options.adapter import ADAPTER_FILES, LoraAdapter

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's --max-lora-rank (vllm/config/lora.py, MaxLoRARanks)."""


def rank_of(adapter: LoraAdapter) -> int:
    """The smallest of RANKS that holds it. Raises ValueError; its text continues "its adapter"."""
    rank = _config(adapter).get("r")
    if not isinstance(rank, int) or not 0 < rank <= RANKS[-1]:
        raise ValueError(f"has no rank from 1 to {RANKS[-1]} in its adapter_config.json")
    return next(each for each in RANKS if each >= rank)


def size_of(adapter: LoraAdapter) -> int:
    """Bytes of its weights; 0 if they are not there."""
    weights = Path(adapter.source, ADAPTER_FILES[1])
    return weights.stat().st_size if weights.is_file() else 0


def unfit(adapter: LoraAdapter, names: Iterable[str]) -> Iterator[str]:
    """Why it cannot be used with a model of these names; each text continues "its adapter"."""
    for file in ADAPTER_FILES:
        if not Path(adapter.source, file).is_file():
            yield f"has no {file} on the controller"
            return
    try:
        rank_of(adapter)
        config = _config(adapter)
    except ValueError as error:
        yield str(error)
        return
    if config.get("peft_type") != "LORA":
        yield "is not a LoRA adapter"
    base = str(config.get("base_model_name_or_path") or "").rstrip("/").rpartition("/")[2]
    if base and compact(base) not in {compact(name.rpartition("/")[2]) for name in names}:
        yield f"was made for '{base}'; if that is this model, add the name to its base_models"


def _config(adapter: LoraAdapter) -> dict[str, object]:
    try:
        config = json.loads(Path(adapter.source, ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise ValueError("has an adapter_config.json that cannot be read")
    return config
