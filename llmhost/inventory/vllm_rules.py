"""Models that vLLM cannot divide over its GPUs, of one host or of an engine group; adapters that
its image would answer wrongly with."""

import re
from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.models.files import longest_text, shape_of
from llmhost.models.lora import has_patterns
from llmhost.options.shape import Shape
from llmhost.services.base import flag_of, is_short_for
from llmhost.services.vllm import Parallel, VllmOptions, parallel_over
from llmhost.settings import Settings
from llmhost.units import counted

_WITH_PATTERNS = (0, 32)
"""The first version of vLLM that reads `rank_pattern` and `alpha_pattern`; older ones ignore both
(docs/evidence/vllm.md)."""


_WHOLE_EXPERTS = "--enable-expert-parallel"

_VOCABULARY_STEP = 64
"""vLLM pads a vocabulary to a multiple of this."""


def vllm_problems(settings: Settings) -> Iterator[Problem]:
    """Mistakes in models of vLLM that depend on its other options."""
    options = settings.service_options.get("vllm")
    if isinstance(options, VllmOptions):
        yield from _undivided(settings, options)
        yield from _ignored_patterns(settings, options)
        yield from _longer_than_texts(settings)


def _longer_than_texts(settings: Settings) -> Iterator[Problem]:
    """vLLM does not start with a longer context than sentence-transformers read, even if the model
    was trained for it (vllm/config/model.py, _get_and_verify_max_len)."""
    for model in settings.models_of("vllm"):
        longest = longest_text(model)
        if longest and model.context_tokens > longest:
            yield Problem(
                "models",
                f"'{model.name}': context_tokens is {model.context_tokens}, and its file for"
                f" sentence-transformers has max_seq_length {longest}, which vLLM does not exceed",
                f"set context_tokens to {longest} or less",
            )


def _ignored_patterns(settings: Settings, options: VllmOptions) -> Iterator[Problem]:
    tag = re.search(r":v?(\d+)\.(\d+)[^/]*$", options.image)
    if tag and (int(tag[1]), int(tag[2])) >= _WITH_PATTERNS:
        return
    for model in settings.models_of("vllm"):
        for adapter in filter(has_patterns, model.adapters):
            yield Problem(
                "models",
                f"'{model.name}': its adapter '{adapter.name}' has rank_pattern or alpha_pattern,"
                " which vLLM ignores before 0.32",
                "train it with one rank and lora_alpha for all modules, or set vllm_image to an"
                " image whose tag is a newer version",
            )


def _undivided(settings: Settings, options: VllmOptions) -> Iterator[Problem]:
    """vLLM 0.32 refuses heads that it cannot divide (vllm/config/model.py,
    verify_with_parallel_config; vllm/model_executor/layers/linear.py, QKVParallelLinear), or a
    vocabulary (vllm/model_executor/layers/vocab_parallel_embedding.py), or blocks of quantized
    weights (models/blocks.py), and gives a stage at least one layer (vllm/distributed/utils.py,
    get_pp_indices)."""
    group = settings.engine_group
    option = "engine_group_tensor_parallel" if group.members else "vllm_tensor_parallel"
    for model in settings.models_of("vllm"):
        try:
            shape = shape_of(model)
        except ValueError:
            continue  # the rules for models report it
        if shape and _has_whole_experts(options):
            shape = shape.model_copy(update={"blocks": None})
        if shape:
            for what, fix in _unfit_shape(shape, parallel_over(group, options)):
                yield Problem("models", f"'{model.name}' {what}", f"set {option} to {fix}")


def _has_whole_experts(options: VllmOptions) -> bool:
    """Whether each GPU has whole experts instead of a part of each."""
    flags = [flag_of(each) for each in options.extra_arguments]
    return any(flag == "-ep" or is_short_for(flag, _WHOLE_EXPERTS) for flag in flags)


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
    if shape.blocks and shape.blocks % parallel.tensor:
        yield (
            f"has weights in {counted(shape.blocks, 'block')}, which {parallel.tensor} GPUs cannot"
            " divide",
            f"a divisor of {shape.blocks} that divides the GPUs",
        )
    padded = -(-shape.vocabulary_size // _VOCABULARY_STEP) * _VOCABULARY_STEP
    if padded % parallel.tensor:
        yield (
            f"has a vocabulary of {padded} with its padding, which {parallel.tensor} GPUs cannot"
            " divide",
            f"a divisor of {padded} that divides the GPUs",
        )
    if layers and layers < parallel.pipeline:
        yield (
            f"has {layers} layers, and they are divided into {parallel.pipeline} stages",
            "a larger number, so that there are fewer stages",
        )
