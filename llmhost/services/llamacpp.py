"""llama.cpp's server: one GGUF model, an OpenAI-compatible interface, on CPU or GPU."""

from collections.abc import Iterator, Sequence

from llmhost.models.llama import GGML_CACHE_TYPES, LLAMA_FLAGS, llama_arguments
from llmhost.models.llama_memory import llama_memory
from llmhost.models.memory import Estimate
from llmhost.options.model import Model
from llmhost.options.types import AnyItems, FreeText, Image, LoadSeconds, LocalPort, Threads
from llmhost.services.abilities import Abilities
from llmhost.services.base import Request, Route, Service, ServiceOptions
from llmhost.services.requests import task_request


class LlamacppOptions(ServiceOptions):
    """`llamacpp_*`."""

    image: Image = (
        "ghcr.io/ggml-org/llama.cpp:server-b11176"
        "@sha256:6257697a7f5d034b8fb499ddb07af3e250506352f94102054252a23f3b85e0af"
    )
    """Image of the engine, pinned by digest: `registry/name:tag@sha256:…`. It must contain `curl`,
    and `llama-server` in /app or on the PATH. The default is upstream's build for CPUs; its digest
    is the one that several public projects pin for this tag."""

    port: LocalPort = 8081
    """Port on 127.0.0.1 of the host."""

    threads: Threads | None = None
    """CPU threads for generation; none: llama.cpp decides."""

    load_timeout_seconds: LoadSeconds = 600
    """Longest time that a model may take to load before the container counts as unhealthy."""

    extra_arguments: AnyItems[FreeText] = ()
    """Further arguments of `llama-server`, such as `--cache-type-k`, `q8_0`."""


class Llamacpp(Service[LlamacppOptions]):
    """One process of llama-server, which holds one model for as long as it runs."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """Exactly one."""
        if len(models) != 1:
            yield f"needs exactly one model with service 'llamacpp', and {len(models)} are declared"

    def arguments(self, _options: LlamacppOptions, models: Sequence[Model]) -> list[str]:
        """What depends on the model."""
        return [argument for model in models for argument in llama_arguments(model)]

    def memory(self, _options: LlamacppOptions) -> Estimate:
        """As llama.cpp takes it."""
        return llama_memory

    def request(self, models: Sequence[Model]) -> Request:
        """A request of the kind that the model is for."""
        return task_request(models[0])


# The server offers more than this (slots, properties, metrics): what is not named stays closed.
SERVICE = Llamacpp(
    name="llamacpp",
    options=LlamacppOptions,
    container_port=8080,
    runs=Abilities(
        tasks=("generate", "embed", "rerank"),
        sources=("file",),
        cache_types=GGML_CACHE_TYPES,
        parameters=tuple(LLAMA_FLAGS),
        adapter=True,
    ),
    routes=(
        Route("/v1/models", ("GET",)),
        Route("/v1/chat/completions", ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route("/v1/embeddings", ("POST",)),
        Route("/v1/rerank", ("POST",)),
        Route("/health", ("GET",)),
    ),
)
