"""LoRA adapters in PEFT's format on the controller, as vLLM loads them.

vLLM 0.32 refuses what it does not support when it starts. vLLM 0.31 ignores most of it, and answers
wrongly (docs/evidence/vllm.md).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from llmhost.models.lineage import compact
from llmhost.models.safetensors import SafetensorsError, shapes_of
from llmhost.options.adapter import ADAPTER_FILES, LoraAdapter
from llmhost.options.shape import Shape

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's --max-lora-rank (vllm/config/lora.py, MaxLoRARanks)."""

_NEEDED = ("lora_alpha", "target_modules")
"""Keys without which vLLM loads no adapter (vllm/lora/peft_helper.py, PEFTHelper.from_dict)."""

_UNSUPPORTED = (
    *("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication"),
    *("use_bdlora", "use_qalora", "trainable_token_indices"),
)
"""Keys of PEFT's LoraConfig for what vLLM does not implement."""

_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of `init_lora_weights` that do not change the weights of the base (vllm/lora/
peft_helper.py, _init_is_supported)."""

_HEADS = ("classifier", "score")
"""Modules that vLLM accepts whole (vllm/lora/peft_helper.py, _validate_features)."""

_MATRIX = re.compile(r"(?P<module>.+)\.(?P<side>lora_(?:embedding_)?[AB])(?P<end>\.weight)?$")
_HEAD = re.compile(rf"(.*\.)?({'|'.join(_HEADS)})\.(weight|bias)$")
_BASE = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
"""Ends of names of tensors that vLLM skips (vllm/lora/utils.py, is_base_embedding_weights)."""

_INPUTS = re.compile(r"\.(q|k|v|gate|up)_proj$")
"""Modules whose inputs are the hidden states of the model."""

_TOWER = re.compile(r"vis|image|audio|encoder")
"""Parts of a model that have layers of their own."""

_Shapes = Mapping[str, tuple[int, ...]]


def rank_of(adapter: LoraAdapter) -> int:
    """The smallest of RANKS that holds it. Raises ValueError; its text continues "its adapter"."""
    rank = max(_ranks(_config(adapter)))
    return next(each for each in RANKS if each >= rank)


def has_patterns(adapter: LoraAdapter) -> bool:
    """Whether some of its modules have another rank or scale than the others."""
    try:
        config = _config(adapter)
    except ValueError:
        return False
    return bool(config.get("rank_pattern") or config.get("alpha_pattern"))


def unfit(
    adapter: LoraAdapter, names: Iterable[str], shape: Shape | None, task: str
) -> Iterator[str]:
    """Why it cannot be used with a model of these names, sizes and task; each text continues "its
    adapter"."""
    for file in ADAPTER_FILES:
        if not Path(adapter.source, file).is_file():
            yield f"has no {file} on the controller"
            return
    try:
        config = _config(adapter)
        ranks = _ranks(config)
    except ValueError as error:
        yield str(error)
        return
    base = str(config.get("base_model_name_or_path") or "").rstrip("/").rpartition("/")[2]
    if base and compact(base) not in {compact(name.rpartition("/")[2]) for name in names}:
        yield f"was made for '{base}'; if that is this model, add the name to its base_models"
    if features := [*_unsupported(config)]:
        yield from features
        return
    try:
        tensors = _tensors(adapter)
    except SafetensorsError as error:
        yield f"has an {ADAPTER_FILES[1]} that {error}"
        return
    yield from _strange(tensors, ranks, task)
    if shape:
        yield from _of_other_sizes(tensors, shape)


def _config(adapter: LoraAdapter) -> dict[str, object]:
    try:
        config = json.loads(Path(adapter.source, ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ValueError("has an adapter_config.json that cannot be read")
    return config


def _ranks(config: Mapping[str, object]) -> set[int]:
    """Ranks of its modules: `r`, or those of `rank_pattern`."""
    pattern = config.get("rank_pattern") or {}
    others = pattern.values() if isinstance(pattern, dict) else [pattern]
    ranks = [config.get("r"), *others]
    found = [rank for rank in ranks if type(rank) is int and 0 < rank <= RANKS[-1]]
    if found != ranks:
        raise ValueError(f"has no rank from 1 to {RANKS[-1]} in its adapter_config.json")
    return {*found}


def _tensors(adapter: LoraAdapter) -> _Shapes:
    weights = Path(adapter.source, ADAPTER_FILES[1])
    with weights.open("rb") as stream:
        return shapes_of(stream, weights.stat().st_size)


def _unsupported(config: Mapping[str, object]) -> Iterator[str]:
    if config.get("peft_type") != "LORA":
        yield "is not a LoRA adapter"
    for key in _NEEDED:
        if key not in config:
            yield f"has no {key} in its adapter_config.json"
    found = [key for key in _UNSUPPORTED if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append("bias")
    saved, start = config.get("modules_to_save"), config.get("init_lora_weights")
    if saved and not (isinstance(saved, list) and all(each in _HEADS for each in saved)):
        found.append("modules_to_save")
    if isinstance(start, str) and start.lower() not in _STARTS:
        found.append("init_lora_weights")
    for key in found:
        value = json.dumps(config[key])
        yield f"has {key}: {value} in its adapter_config.json, which vLLM does not support"


def _strange(tensors: _Shapes, ranks: set[int], task: str) -> Iterator[str]:
    """Tensors that vLLM cannot load (vllm/lora/utils.py, parse_fine_tuned_lora_name)."""
    sides: dict[str, set[str]] = {}
    for name, sizes in tensors.items():
        matrix = _MATRIX.match(name)
        if matrix and bool(matrix["end"]) != ("embedding" in matrix["side"]):
            side = matrix["side"][-1]
            sides.setdefault(matrix["module"], set()).add(side)
            own = sizes["AB".index(side)] if len(sizes) > 1 else 0
            if ".experts" not in name and own not in ranks:
                yield f"has a matrix of rank {own}, and its adapter_config.json has no such rank"
                return
        elif not name.endswith(_BASE) and not (_HEAD.match(name) and task != "generate"):
            yield f"has a tensor that vLLM does not load: {name}"
            return
    halves = sorted(module for module, found in sides.items() if len(found) == 1)
    if halves or not sides:
        yield f"lacks one of the two matrices of {halves[0]}" if halves else "changes nothing"


def _of_other_sizes(tensors: _Shapes, shape: Shape) -> Iterator[str]:
    """vLLM fills smaller matrices up with zeros, and ignores layers that the model lacks."""
    inputs, layers = set(), set()
    for name, sizes in tensors.items():
        matrix = _MATRIX.match(name)
        if not matrix or not sizes or matrix["side"][-1] != "A" or _TOWER.search(name):
            continue
        if _INPUTS.search(matrix["module"]) and ".experts" not in name:
            inputs.add(sizes[-1])
        layers |= {int(number) for number in re.findall(r"\.layers\.(\d+)\.", name)}
    if inputs and shape.hidden_size not in inputs:
        yield (
            f"is for a hidden size of {min(inputs)}, and the model has one of {shape.hidden_size}"
        )
    if shape.layers and layers and max(layers) >= shape.layers:
        yield f"changes layer {max(layers)}, and the model has {shape.layers} layers from 0"
