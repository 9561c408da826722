"""vLLM: one Hugging Face model on GPUs, for many concurrent requests."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import model_validator

from llmhost.models.lora import rank_of
from llmhost.models.memory import CUDA_BYTES, Estimate
from llmhost.options.engine_group import EngineGroup
from llmhost.options.kind import Mistake
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
    whole,
)
from llmhost.services.abilities import Abilities
from llmhost.services.base import (
    Request,
    Route,
    Service,
    ServiceOptions,
    refuse_own_arguments,
)
from llmhost.services.requests import task_request
from llmhost.services.vllm_memory import vllm_memory
from llmhost.units import counted

PARAMETERS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
    "max_tokens": "max_new_tokens",
}
"""Names in a generation config; vLLM supports these (vllm, config/model.py,
get_diff_sampling_param)."""


_CACHE_TYPES = {"f16": "float16", "bf16": "bfloat16", "fp8": "fp8"}
"""Names of vLLM by `cache_type` (vllm/config/cache.py, CacheDType)."""

_VOCABULARY = "o200k_base.tiktoken"

_OWN_ARGUMENTS = {
    "--tensor-parallel-size": "write vllm_tensor_parallel",
    "-tp": "write vllm_tensor_parallel",
    "--pipeline-parallel-size": "write vllm_tensor_parallel",
    "-pp": "write vllm_tensor_parallel",
    "--data-parallel-size": "declare a server for each copy of the model",
    "-dp": "declare a server for each copy of the model",
    "--gpu-memory-utilization": "write vllm_gpu_fraction",
    "--max-model-len": "write the model's context_tokens",
    "--max-num-seqs": "write the model's parallel",
    "--served-model-name": "write the model's name",
    "--model": "write the model's source",
    "--config": "write its arguments here",
    "--api-key": "declare api_clients, whose keys the gateway checks",
    "--host": "let the gateway alone reach it",
    "--port": "write vllm_port",
}
"""Arguments that the GPU memory plan, the gateway or the checks must know; what to do instead."""


OF_A_HOST = {"gpu", "gpu_count", "gpu_shared", "memory_limit", "timezone", "shared_memory"}
"""Options in which members of an engine group may differ."""


class VllmOptions(ServiceOptions):
    """`vllm_*`."""

    image: Image = (
        "vllm/vllm-openai:v0.31.0"
        "@sha256:c1c9f6fd5c109ba7f0546a59f5b2f15fb87f64c77782e90a27b648b42a8e67c3"
    )
    """Image of the engine, pinned by digest. It must contain `curl`, and `vllm` on the PATH."""

    port: LocalPort = 8000
    """Port on 127.0.0.1 of the host."""

    cuda: CudaVersion | None = "13.0"
    """CUDA version of the image, such as `12.8`; the host's driver must support it."""

    gpu_fraction: Fraction = 0.9
    """Fraction of each GPU's memory that vLLM reserves; CUDA itself uses more."""

    tensor_parallel: Annotated[int, whole(1, 256, "GPUs", 2)] | None = None
    """Number of GPUs that compute each layer together; none: all. A smaller number must divide the
    number of GPUs; the layers are then distributed over groups of that size."""

    shared_memory: MemorySize = "4g"
    """Size of /dev/shm, which its processes use to communicate."""

    timezone: TimeZone = "Etc/UTC"
    """Time zone of the log, such as `Asia/Seoul`."""

    load_timeout_seconds: LoadSeconds = 1800
    """Maximum time to load and compile; after that the container is unhealthy."""

    extra_arguments: AnyItems[FreeText] = ()
    """Additional arguments of `vllm serve`, such as `--enable-prefix-caching`."""

    @model_validator(mode="after")
    def _every_gpu_is_used(self) -> "VllmOptions":
        if self.tensor_parallel and self.gpus % self.tensor_parallel:
            raise Mistake(
                f"is {self.tensor_parallel}, which does not divide the"
                f" {counted(self.gpus, 'GPU')} that it"
                " runs on; remove it to use all of them",
                "tensor_parallel",
            )
        refuse_own_arguments(self.extra_arguments, _OWN_ARGUMENTS, abbreviates=True)
        return self

    @property
    def gpus(self) -> int:
        """Number of GPUs; 1 on the CPU."""
        return self.gpu_request.count if self.gpu_request else 1


@dataclass(frozen=True)
class Parallel:
    """GPUs for each layer, and parts of the model one after the other."""

    tensor: int
    pipeline: int

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline


def parallel_over(group: EngineGroup, options: VllmOptions) -> Parallel:
    """How the members of a group, or one host, compute a model; each has the same GPUs."""
    gpus = options.gpus * (len(group.members) or 1)
    tensor = group.tensor_parallel or options.tensor_parallel
    if tensor is None:
        tensor = max(1, gpus // group.pipeline_parallel) if group.pipeline_parallel else None
    tensor = tensor or options.gpus
    return Parallel(tensor, group.pipeline_parallel or max(1, gpus // tensor))


class Vllm(Service[VllmOptions]):
    """One process with one model, and one more for each GPU."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """Exactly one model, with what it needs offline."""
        if len(models) != 1:
            yield f"needs exactly one model with service 'vllm', and {len(models)} are declared"
        for model in models:
            if model.task != "generate" and (model.tool_parser or model.reasoning_parser):
                yield f"has parsers for text, and '{model.name}' generates none; remove them"
            if _is_gpt_oss(model) and not _vocabulary(model):
                yield (
                    f"downloads {_VOCABULARY} at each start of gpt-oss, and a server is offline;"
                    f" copy the repository of '{model.name}' and this file into a directory on the"
                    " controller, make it the source, and list all of them in files"
                )

    def arguments(self, options: VllmOptions, models: Sequence[Model]) -> list[str]:
        """Arguments for its GPUs, and for the model's task, parameters and adapters."""
        return [*_parallel(options), *_of_adapters(models[0]), *_of_model(models[0])]

    def group_arguments(
        self, group: EngineGroup, options: VllmOptions, models: Sequence[Model]
    ) -> list[str]:
        """The same for an engine whose GPUs are those of a group of hosts."""
        parallel = parallel_over(group, options)
        return [
            *("--distributed-executor-backend", "ray"),
            *("--tensor-parallel-size", str(parallel.tensor)),
            *("--pipeline-parallel-size", str(parallel.pipeline)),
            *_of_adapters(models[0]),
            *_of_model(models[0]),
        ]

    def variables(self, models: Sequence[Model]) -> dict[str, str]:
        """Environment variables for the model."""
        path = _vocabulary(models[0])
        # Read by openai_harmony, which vLLM uses for gpt-oss.
        return {"TIKTOKEN_ENCODINGS_BASE": path.rpartition("/")[0]} if path else {}

    def memory(self, options: VllmOptions) -> Estimate:
        """The estimate for vLLM, within its fraction."""
        return partial(vllm_memory, graphs="--enforce-eager" not in options.extra_arguments)

    def request(self, models: Sequence[Model]) -> Request:
        """A request for the model's task."""
        return task_request(models[0])


def _parallel(options: VllmOptions) -> Iterator[str]:
    """By default vLLM uses one GPU, however many it has."""
    parallel = parallel_over(EngineGroup(), options)
    if parallel.tensor > 1:
        yield from ("--tensor-parallel-size", str(parallel.tensor))
    if parallel.pipeline > 1:
        yield from ("--pipeline-parallel-size", str(parallel.pipeline))


def _of_adapters(model: Model) -> Iterator[str]:
    """By default vLLM loads no adapters, and none of a rank above 16."""
    if model.adapters:
        yield from ("--enable-lora", "--max-loras", str(len(model.adapters)))
        yield from ("--max-lora-rank", str(max(map(rank_of, model.adapters))))
        yield "--lora-modules"
        yield from (f"{adapter.name}={adapter.path(model.name)}" for adapter in model.adapters)


def _is_gpt_oss(model: Model) -> bool:
    names = " ".join([model.source, *model.base_models])
    return re.search(r"gpt[-_]oss", names, re.IGNORECASE) is not None


def _vocabulary(model: Model) -> str:
    """Path inside the image of the vocabulary of gpt-oss; empty if the model has none."""
    return next((path for path in model.baked if path.endswith(f"/{_VOCABULARY}")), "")


def _of_model(model: Model) -> Iterator[str]:
    if model.tool_parser:
        yield from ("--enable-auto-tool-choice", "--tool-call-parser", model.tool_parser)
    if model.reasoning_parser:
        yield from ("--reasoning-parser", model.reasoning_parser)
    # The cache has the type of the weights unless another one is declared.
    if "cache_type" in model.model_fields_set:
        yield from ("--kv-cache-dtype", _CACHE_TYPES[model.cache_type])
    if model.task != "generate":
        yield from ("--runner", "pooling")
    if given := {PARAMETERS[name]: value for name, value in model.parameters.given.items()}:
        yield from ("--override-generation-config", json.dumps(given))


# vLLM's --api-key does not protect all routes (/invocations, /pause, /tokenize, /update_weights).
# Several public projects pin the digest of the default image for its tag.
SERVICE = Vllm(
    name="vllm",
    options=VllmOptions,
    container_port=8000,
    metrics_path="/metrics",
    own_variables=("TIKTOKEN_ENCODINGS_BASE",),
    in_groups=True,
    beside_fraction_bytes=CUDA_BYTES,
    runs=Abilities(
        tasks=("generate", "embed", "rerank"),
        sources=("files",),
        cache_types=tuple(_CACHE_TYPES),
        parameters=tuple(PARAMETERS),
        adapters=True,
        parsers=True,
    ),
    routes=(
        Route("/v1/models", ("GET",)),
        Route("/v1/chat/completions", ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route("/v1/responses", ("POST",)),
        Route("/v1/messages", ("POST",)),
        Route("/v1/messages/count_tokens", ("POST",)),
        Route("/v1/embeddings", ("POST",)),
        Route("/v1/rerank", ("POST",)),
        Route("/v1/score", ("POST",)),
        Route("/tokenize", ("POST",)),
        Route("/version", ("GET",)),
        Route("/health", ("GET",)),
    ),
)
