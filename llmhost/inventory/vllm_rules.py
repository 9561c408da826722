"""Models that vLLM cannot divide over its GPUs, of one host or of an engine group."""

from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.models.files import shape_of
from llmhost.options.shape import Shape
from llmhost.services.vllm import Parallel, VllmOptions, parallel_over
from llmhost.settings import Settings


def vllm_problems(settings: Settings) -> Iterator[Problem]:
    """vLLM 0.32 refuses heads that it cannot divide (vllm/config/model.py,
    verify_with_parallel_config; vllm/model_executor/layers/linear.py, QKVParallelLinear), and gives
    a stage at least one layer (vllm/distributed/utils.py, get_pp_indices)."""
    options = settings.service_options.get("vllm")
    if not isinstance(options, VllmOptions):
        return
    group = settings.engine_group
    option = "engine_group_tensor_parallel" if group.members else "vllm_tensor_parallel"
    for model in settings.models_of("vllm"):
        try:
            shape = shape_of(model)
        except ValueError:
            continue  # the rules for models report it
        if shape:
            for what, fix in _unfit_shape(shape, parallel_over(group, options)):
                yield Problem("models", f"'{model.name}' {what}", f"set {option} to {fix}")


def _unfit_shape(shape: Shape, parallel: Parallel) -> Iterator[tuple[str, str]]:
    heads, layers, cached = shape.attention_heads, shape.layers, shape.kv_heads
    if heads and heads % parallel.tensor:
        yield (
            f"has {heads} attention heads, which {parallel.tensor} GPUs cannot divide",
            "a divisor of both the heads and the GPUs",
        )
    elif cached and max(cached, parallel.tensor) % min(cached, parallel.tensor):
        yield (
            f"has {cached} heads of keys and values, which {parallel.tensor} GPUs cannot divide",
            f"a divisor or a multiple of {cached} that divides the GPUs",
        )
    if layers and layers < parallel.pipeline:
        yield (
            f"has {layers} layers, and they are divided into {parallel.pipeline} stages",
            "a larger number, so that there are fewer stages",
        )
