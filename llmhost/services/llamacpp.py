"""llama.cpp's server: one GGUF model, an OpenAI-compatible interface, on CPU or GPU."""

from collections.abc import Sequence

from llmhost.models.llama import GGML_CACHE_TYPES, LLAMA_FLAGS, llama_arguments
from llmhost.options.model import Model
from llmhost.options.types import AnyItems, FreeText, Image, LoadSeconds, LocalPort, Threads
from llmhost.services.base import Abilities, Request, Route, Service, ServiceOptions
from llmhost.services.requests import TASK_REQUESTS


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


def check_models(models: Sequence[Model]) -> Sequence[str]:
    """One process of llama-server holds one model, for as long as it runs."""
    if len(models) != 1:
        return (f"needs exactly one model with service 'llamacpp', and {len(models)} are declared",)
    return ()


def request(models: Sequence[Model]) -> Request:
    """A request of the kind that the model is for."""
    (model,) = models
    return TASK_REQUESTS[model.task](model.name)


# The server offers more than this (slots, properties, metrics): what is not named stays closed.
SERVICE = Service(
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
    check_models=check_models,
    arguments=lambda models: [each for model in models for each in llama_arguments(model)],
    request=request,
    routes=(
        Route("/v1/models", ("GET",)),
        Route("/v1/chat/completions", ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route("/v1/embeddings", ("POST",)),
        Route("/v1/rerank", ("POST",)),
        Route("/health", ("GET",)),
    ),
)
