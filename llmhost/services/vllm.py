"""vLLM: one Hugging Face model on a GPU, for many requests at the same time."""

import json
from collections.abc import Sequence

from llmhost.options.model import Model
from llmhost.options.nvidia_driver import CudaVersion
from llmhost.options.types import (
    AnyItems,
    Fraction,
    FreeText,
    Image,
    LoadSeconds,
    LocalPort,
    MemorySize,
    TimeZone,
)
from llmhost.services.base import Abilities, Request, Route, Service, ServiceOptions
from llmhost.services.requests import TASK_REQUESTS

PARAMETERS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
    "max_tokens": "max_new_tokens",
}
"""Names in a generation config, of which vLLM heeds these (vllm, config/model.py,
get_diff_sampling_param)."""


class VllmOptions(ServiceOptions):
    """`vllm_*`."""

    image: Image = (
        "vllm/vllm-openai:v0.26.0"
        "@sha256:ffb2d59b1c059a5bd8d781320c9f5189de8293693b7d95da54befddaa54abf52"
    )
    """Image of the engine, pinned by digest: `registry/name:tag@sha256:…`. It must contain `curl`,
    and `vllm` on the PATH. The digest of the default is the one that several public projects pin
    for this tag."""

    port: LocalPort = 8000
    """Port on 127.0.0.1 of the host."""

    cuda: CudaVersion | None = "13.0"
    """CUDA version that the image is built with, such as `12.8`; the host's driver must support
    it."""

    gpu_fraction: Fraction | None = 0.9
    """Fraction of the GPU's total memory that it reserves, used or not."""

    shared_memory: MemorySize = "4g"
    """Size of /dev/shm, through which its processes communicate."""

    timezone: TimeZone = "Etc/UTC"
    """Time zone of its log, such as `Asia/Seoul`."""

    load_timeout_seconds: LoadSeconds = 1800
    """Longest time that it may take to load and compile before the container counts as
    unhealthy."""

    extra_arguments: AnyItems[FreeText] = ()
    """Further arguments of `vllm serve`, such as `--enable-prefix-caching`."""


def check_models(models: Sequence[Model]) -> Sequence[str]:
    """One process of vLLM holds one model, for as long as it runs."""
    if len(models) != 1:
        return (f"needs exactly one model with service 'vllm', and {len(models)} are declared",)
    return ()


def arguments(models: Sequence[Model]) -> list[str]:
    """What depends on the model's task and on its parameters."""
    (model,) = models
    pooling = [] if model.task == "generate" else ["--runner", "pooling"]
    given = {PARAMETERS[name]: value for name, value in model.parameters.given.items()}
    return [*pooling, *(["--override-generation-config", json.dumps(given)] if given else [])]


def request(models: Sequence[Model]) -> Request:
    """A request of the kind that the model is for."""
    (model,) = models
    return TASK_REQUESTS[model.task](model.name)


# Its own --api-key would leave others open (/invocations, /pause, /tokenize, /update_weights).
SERVICE = Service(
    name="vllm",
    options=VllmOptions,
    container_port=8000,
    runs=Abilities(
        tasks=("generate", "embed", "rerank"),
        sources=("files",),
        cache_types=("f16", "bf16", "fp8"),
        parameters=tuple(PARAMETERS),
    ),
    check_models=check_models,
    arguments=arguments,
    request=request,
    routes=(
        Route("/v1/models", ("GET",)),
        Route("/v1/chat/completions", ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route("/v1/responses", ("POST",)),
        Route("/v1/embeddings", ("POST",)),
        Route("/v1/rerank", ("POST",)),
        Route("/health", ("GET",)),
    ),
)
