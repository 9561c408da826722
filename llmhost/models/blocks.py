"""Into how many parts GPUs can divide the inputs of a model's matrices.

Each GPU of vLLM must get whole blocks of quantized weights. Read in vLLM 0.31 and 0.32, all below
vllm/model_executor/layers: `divide` in linear.py; `validate_fp8_block_shape` in quantization/utils/
fp8_utils.py; `refine_fp8_moe_block_shape` in fused_moe/oracle/fp8.py, which cuts the blocks of
experts down to 32; `verify_group_size_divides_partition` for compressed-tensors, and
AutoAWQLinearMethod, for groups.
"""

from collections.abc import Iterable, Mapping
from math import gcd
from typing import Any

from llmhost.models.safetensors import Divided

_SMALLEST = 32
"""Of the blocks of experts."""


def blocks_in(config: Mapping[str, Any], divided: Divided, hidden: int) -> int | None:
    """The largest number that divides the blocks of all these matrices; None without any."""
    quantized = config.get("quantization_config")
    known = quantized if isinstance(quantized, dict) else {}
    found = (_blocks(known, *each, hidden) for each in divided)
    return gcd(*filter(None, found)) or None


def _blocks(
    quantized: Mapping[str, Any], name: str, kind: str, sizes: tuple[int, ...], hidden: int
) -> int:
    """Of one matrix, or of the groups that its scales are for; 0 for other scales."""
    if name.endswith(".weight"):
        step = _step(quantized, ".experts." in name, hidden) if kind.startswith("F8") else 1
        return sizes[-1] // step if sizes[-1] % step == 0 else 1
    if name.endswith(".scales"):  # of AWQ and GPTQ
        return sizes[0] if sizes[0] > 1 else 0
    of_groups = {weights.get("strategy") for weights in _weights(quantized)} == {"group"}
    return sizes[-1] if of_groups and sizes[-1] > 1 else 0


def _step(quantized: Mapping[str, Any], of_experts: bool, hidden: int) -> int:
    """Inputs that share a scale; 1 if all do."""
    native = quantized.get("weight_block_size")
    given = native or next((each.get("block_structure") for each in _weights(quantized)), None)
    sizes = given if isinstance(given, list) else []
    if len(sizes) != 2 or not all(type(each) is int and each > 0 for each in sizes):
        return 1
    if native and of_experts and not any(each % _SMALLEST for each in (*sizes, hidden)):
        return _SMALLEST
    return int(sizes[1])


def _weights(quantized: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """How compressed-tensors quantizes the weights of each group of layers."""
    groups = quantized.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            yield weights
