"""llama.cpp's server: one GGUF model, an OpenAI-compatible interface, on CPU or GPU."""

from collections.abc import Sequence

from pydantic import Field

from llmhost.services.base import IMAGE, Route, Service, ServiceOptions
from llmhost.settings.model import Model


class LlamacppOptions(ServiceOptions):
    """`llamacpp_*`."""

    image: str = Field(
        default="ghcr.io/ggml-org/llama.cpp:server-b11176"
        "@sha256:6257697a7f5d034b8fb499ddb07af3e250506352f94102054252a23f3b85e0af",
        pattern=IMAGE,
    )
    """Image of the engine, pinned by digest: `registry/name:tag@sha256:…`. It must hold `curl`, and
    `llama-server` in /app or on the PATH. The default is upstream's build for CPUs; its digest is
    the one that several public projects pin for this tag."""

    port: int = Field(default=8081, ge=1024, le=65535)
    """Port on 127.0.0.1 of the host."""

    threads: int | None = Field(default=None, ge=1)
    """CPU threads for generation; none: llama.cpp decides."""

    load_timeout_seconds: int = Field(default=600, ge=10)
    """Longest time a model may need to load before the container counts as unhealthy."""

    extra_arguments: tuple[str, ...] = ()
    """Further arguments of `llama-server`, such as `--cache-type-k`, `q8_0`."""


def check_models(models: Sequence[Model]) -> Sequence[str]:
    """One process of llama-server holds one model, for as long as it runs."""
    if len(models) != 1:
        return (f"needs exactly one model with service 'llamacpp', and {len(models)} are declared",)
    (model,) = models
    unknown = {
        "an adapter": model.adapter is not None,
        "resident = False": not model.resident,
        "cache_type = 'fp8'": model.cache_type == "fp8",
    }
    return [f"can not run '{model.name}' with {what}" for what, asked in unknown.items() if asked]


# The server offers more than this (slots, properties, metrics): what is not named stays closed.
SERVICE = Service(
    name="llamacpp",
    options=LlamacppOptions,
    container_port=8080,
    check_models=check_models,
    routes=(
        Route("/v1/models", ("GET",)),
        Route("/v1/chat/completions", ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route("/v1/embeddings", ("POST",)),
        Route("/health", ("GET",)),
    ),
)
