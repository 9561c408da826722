"""llama.cpp's server: one GGUF model, an OpenAI-compatible interface, on CPU or GPU."""

from collections.abc import Sequence

from pydantic import Field

from llmhost.services.base import Route, Service, ServiceOptions
from llmhost.settings.model import Model


class LlamacppOptions(ServiceOptions):
    """`llamacpp_*`."""

    image: str = "ghcr.io/ggml-org/llama.cpp:server"
    """Base image of the engine: it must hold `llama-server` on its PATH or in /app."""

    port: int = Field(default=8081, ge=1024, le=65535)
    """Port on 127.0.0.1 of the host."""

    threads: int | None = Field(default=None, ge=1)
    """CPU threads for generation; none: llama.cpp decides."""

    load_timeout_seconds: int = Field(default=600, ge=10)
    """Longest time a model may need to load before the container counts as unhealthy."""


def check_models(models: Sequence[Model]) -> Sequence[str]:
    """One process of llama-server holds one model."""
    if len(models) == 1:
        return ()
    return (f"needs exactly one model with service 'llamacpp', and {len(models)} are declared",)


# The server offers more than this (slots, properties, metrics): what is not named stays closed.
SERVICE = Service(
    name="llamacpp",
    options=LlamacppOptions,
    check_models=check_models,
    routes=(
        Route("/v1/models", ("GET",)),
        Route("/v1/chat/completions", ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route("/v1/embeddings", ("POST",)),
        Route("/health", ("GET",)),
    ),
)
