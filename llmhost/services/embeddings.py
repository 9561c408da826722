"""embeddings: any number of models that embed or rerank, by llama.cpp's server as a router."""

from collections.abc import Sequence

from llmhost.models.llama import llama_options
from llmhost.options.model import Model
from llmhost.options.types import Image, LoadSeconds, LocalPort
from llmhost.services.base import Abilities, Request, Route, Service, ServiceOptions
from llmhost.services.requests import TASK_REQUESTS
from llmhost.system.files import File


class EmbeddingsOptions(ServiceOptions):
    """`embeddings_*`."""

    image: Image = (
        "ghcr.io/ggml-org/llama.cpp:server-b11176"
        "@sha256:6257697a7f5d034b8fb499ddb07af3e250506352f94102054252a23f3b85e0af"
    )
    """Image of the engine, pinned by digest: `registry/name:tag@sha256:…`. It must contain `curl`,
    and `llama-server` in /app or on the PATH, of build 7400 or newer, which can serve several
    models. The default is upstream's build for CPUs; its digest is the one that several public
    projects pin for this tag."""

    port: LocalPort = 8082
    """Port on 127.0.0.1 of the host."""

    load_timeout_seconds: LoadSeconds = 300
    """Longest time that the models may take to load before the container counts as unhealthy."""


def check_models(models: Sequence[Model]) -> Sequence[str]:
    """Without a model there is nothing to serve."""
    return () if models else ("needs at least one model with task = 'embed' or task = 'rerank'",)


def preset(_options: EmbeddingsOptions, models: Sequence[Model]) -> tuple[File, ...]:
    """The router's list of models (llama.cpp, tools/server/README.md, model presets)."""
    lines = ["version = 1"]
    for model in models:
        options = {**llama_options(model), "load-on-startup": "true"}
        lines += ["", f"[{model.name}]", *(f"{key} = {value}" for key, value in options.items())]
    return (File("models.ini", "\n".join([*lines, ""])),)


def request(models: Sequence[Model]) -> Request:
    """The first model's task."""
    return TASK_REQUESTS[models[0].task](models[0].name)


# A router also loads and unloads models when asked to (/models/load, /models/unload): closed.
SERVICE = Service(
    name="embeddings",
    options=EmbeddingsOptions,
    container_port=8080,
    runs=Abilities(tasks=("embed", "rerank"), sources=("file",)),
    check_models=check_models,
    context=preset,
    request=request,
    routes=(
        Route("/v1/models", ("GET",)),
        Route("/v1/embeddings", ("POST",)),
        Route("/v1/rerank", ("POST",)),
        Route("/health", ("GET",)),
    ),
)
