"""vLLM: one Hugging Face model on a GPU, for many requests at the same time."""

import json
from collections.abc import Iterator, Sequence

from pydantic import Field

from llmhost.options.model import Model
from llmhost.options.nvidia_driver import CudaVersion
from llmhost.services.abilities import Abilities
from llmhost.services.base import IMAGE, Request, Route, Service, ServiceOptions
from llmhost.services.requests import task_request

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

    image: str = Field(
        default="vllm/vllm-openai:v0.26.0"
        "@sha256:ffb2d59b1c059a5bd8d781320c9f5189de8293693b7d95da54befddaa54abf52",
        pattern=IMAGE,
    )
    """Image of the engine, pinned by digest: `registry/name:tag@sha256:…`. It must hold `curl`, and
    `vllm` on the PATH. The digest of the default is the one that several public projects pin for
    this tag."""

    port: int = Field(default=8000, ge=1024, le=65535)
    """Port on 127.0.0.1 of the host."""

    cuda: CudaVersion | None = "13.0"
    """CUDA version that the image is built with, such as `12.8`; the host's driver must know it."""

    gpu_fraction: float | None = Field(default=0.9, gt=0, le=1)
    """Fraction of the GPU's whole memory that it takes for itself, used or not."""

    shared_memory: str = Field(default="4g", pattern=r"^\d+[kmg]$")
    """Size of /dev/shm, through which its processes talk to each other."""

    timezone: str = Field(default="Etc/UTC", pattern=r"^[A-Za-z0-9_+/-]+$")
    """Time zone of its log, such as `Asia/Seoul`."""

    load_timeout_seconds: int = Field(default=1800, ge=10)
    """Longest time it may need to load and compile before the container counts as unhealthy."""

    extra_arguments: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, such as `--enable-prefix-caching`."""


class Vllm(Service[VllmOptions]):
    """One process that holds one model for as long as it runs, with one more for each GPU."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """Exactly one."""
        if len(models) != 1:
            yield f"needs exactly one model with service 'vllm', and {len(models)} are declared"

    def arguments(self, _options: VllmOptions, models: Sequence[Model]) -> list[str]:
        """What depends on the model's task and on its parameters."""
        (model,) = models
        pooling = [] if model.task == "generate" else ["--runner", "pooling"]
        given = {PARAMETERS[name]: value for name, value in model.parameters.given.items()}
        return [*pooling, *(["--override-generation-config", json.dumps(given)] if given else [])]

    def request(self, models: Sequence[Model]) -> Request:
        """A request of the kind that the model is for."""
        return task_request(models[0])


# Its own --api-key would leave others open (/invocations, /pause, /tokenize, /update_weights).
SERVICE = Vllm(
    name="vllm",
    options=VllmOptions,
    container_port=8000,
    runs=Abilities(
        tasks=("generate", "embed", "rerank"),
        sources=("files",),
        cache_types=("f16", "bf16", "fp8"),
        parameters=tuple(PARAMETERS),
    ),
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
