"""vLLM: one Hugging Face model on a GPU, for many requests at the same time."""

import json
from collections.abc import Iterator, Sequence
from functools import partial

from pydantic import Field, model_validator

from llmhost.models.memory import CUDA_BYTES, Estimate
from llmhost.options.model import Model
from llmhost.options.nvidia_driver import CudaVersion
from llmhost.services.abilities import Abilities
from llmhost.services.base import IMAGE, Request, Route, Service, ServiceOptions
from llmhost.services.requests import task_request
from llmhost.services.vllm_memory import vllm_memory

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


_OWN_ARGUMENTS = {
    "--tensor-parallel-size": "vllm_tensor_parallel",
    "-tp": "vllm_tensor_parallel",
    "--pipeline-parallel-size": "vllm_tensor_parallel",
    "-pp": "vllm_tensor_parallel",
    "--gpu-memory-utilization": "vllm_gpu_fraction",
    "--max-model-len": "the model's context_tokens",
    "--max-num-seqs": "the model's parallel",
}
"""Arguments that the GPU memory plan has to know, and the option for each."""


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

    gpu_fraction: float = Field(default=0.9, gt=0, le=1)
    """Fraction of each GPU's whole memory that it takes for itself, used or not; what CUDA takes
    comes on top."""

    tensor_parallel: int | None = Field(default=None, ge=1)
    """How many GPUs compute each layer together; none: all that it has. With fewer, which must
    divide their number, the layers are spread over groups of that size."""

    shared_memory: str = Field(default="4g", pattern=r"^\d+[kmg]$")
    """Size of /dev/shm, through which its processes talk to each other."""

    timezone: str = Field(default="Etc/UTC", pattern=r"^[A-Za-z0-9_+/-]+$")
    """Time zone of its log, such as `Asia/Seoul`."""

    load_timeout_seconds: int = Field(default=1800, ge=10)
    """Longest time it may need to load and compile before the container counts as unhealthy."""

    extra_arguments: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, such as `--enable-prefix-caching`."""

    @model_validator(mode="after")
    def _every_gpu_is_used(self) -> "VllmOptions":
        if self.tensor_parallel and self.gpus % self.tensor_parallel:
            raise ValueError(
                f"runs on {self.gpus} GPU(s), which tensor_parallel = {self.tensor_parallel} does"
                " not divide: leave it out to use all of them"
            )
        for argument in self.extra_arguments:
            if option := _OWN_ARGUMENTS.get(argument.partition("=")[0]):
                raise ValueError(f"has {argument} in extra_arguments: set {option} instead")
        return self

    @property
    def gpus(self) -> int:
        """How many it runs on; 1 on the CPU."""
        return self.gpu_request.count if self.gpu_request else 1


class Vllm(Service[VllmOptions]):
    """One process that holds one model for as long as it runs, with one more for each GPU."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """Exactly one."""
        if len(models) != 1:
            yield f"needs exactly one model with service 'vllm', and {len(models)} are declared"

    def arguments(self, options: VllmOptions, models: Sequence[Model]) -> list[str]:
        """What depends on its GPUs, and on the model's task and parameters."""
        return [*_parallel(options), *_of_model(models[0])]

    def memory(self, options: VllmOptions) -> Estimate:
        """As vLLM takes it, within its fraction."""
        return partial(vllm_memory, graphs="--enforce-eager" not in options.extra_arguments)

    def request(self, models: Sequence[Model]) -> Request:
        """A request of the kind that the model is for."""
        return task_request(models[0])


def _parallel(options: VllmOptions) -> Iterator[str]:
    """By itself it uses one GPU, however many it sees."""
    tensor = options.tensor_parallel or options.gpus
    if tensor > 1:
        yield from ("--tensor-parallel-size", str(tensor))
    if tensor < options.gpus:
        yield from ("--pipeline-parallel-size", str(options.gpus // tensor))


def _of_model(model: Model) -> Iterator[str]:
    if model.task != "generate":
        yield from ("--runner", "pooling")
    if given := {PARAMETERS[name]: value for name, value in model.parameters.given.items()}:
        yield from ("--override-generation-config", json.dumps(given))


# Its own --api-key would leave others open (/invocations, /pause, /tokenize, /update_weights).
SERVICE = Vllm(
    name="vllm",
    options=VllmOptions,
    container_port=8000,
    beside_fraction_bytes=CUDA_BYTES,
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
