"""embeddings: several models that embed or rerank, by llama.cpp's server as a router."""

from collections.abc import Iterator, Sequence
from functools import partial

from llmhost.models.gguf import Gguf
from llmhost.models.llama_memory import llama_memory
from llmhost.models.memory import Estimate
from llmhost.options.model import Model
from llmhost.options.types import Image, LoadSeconds, LocalPort
from llmhost.services.abilities import Abilities
from llmhost.services.base import Request, Route, Service, ServiceOptions
from llmhost.services.llama_server import preset, server_variables, stored_once, unpooled
from llmhost.services.requests import task_request
from llmhost.system.files import File


class EmbeddingsOptions(ServiceOptions):
    """`embeddings_*`."""

    image: Image = (
        "ghcr.io/ggml-org/llama.cpp:server-b11176"
        "@sha256:6257697a7f5d034b8fb499ddb07af3e250506352f94102054252a23f3b85e0af"
    )
    """Image of the engine, pinned by digest. It must contain `curl`, and `llama-server` in /app or
    on the PATH, build 7400 or newer, which can serve several models. The default is the CPU
    build."""

    port: LocalPort = 8082
    """Port on 127.0.0.1 of the host."""

    load_timeout_seconds: LoadSeconds = 300
    """Maximum time to load the models; after that the container is unhealthy."""


class Embeddings(Service[EmbeddingsOptions]):
    """llama.cpp's server as a router: a process for each model."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """At least one model."""
        if not models:
            yield "needs at least one model with task = 'embed' or task = 'rerank'"

    def check_file(self, options: EmbeddingsOptions, model: Model, gguf: Gguf) -> Iterator[str]:
        """A file for embeddings says how the vectors of its tokens become one."""
        yield from unpooled(model, gguf, options.environment)

    def context(self, _options: EmbeddingsOptions, models: Sequence[Model]) -> Iterator[File]:
        """The router's list of models."""
        yield preset(models)

    def holders(self, models: Sequence[Model]) -> Sequence[Model]:
        """The same weights are in the image once."""
        return stored_once(models)

    def variables(self, options: EmbeddingsOptions, models: Sequence[Model]) -> dict[str, str]:
        """Variables for its memory and load."""
        requests = max((model.parallel for model in models), default=1)
        return server_variables(options.memory_limit, max(len(models), 1), requests)

    def memory(self, _options: EmbeddingsOptions) -> Estimate:
        """The estimate for llama.cpp."""
        return partial(llama_memory, whole_texts=True)

    def request(self, models: Sequence[Model]) -> Request:
        """A request for the first model."""
        return task_request(models[0])


# The router's requests to load and unload models (/models/load, /models/unload) are not passed on.
# Several public projects pin the digest of the default image for its tag.
SERVICE = Embeddings(
    name="embeddings",
    options=EmbeddingsOptions,
    container_port=8080,
    own_variables=("LLAMA_ARG_CACHE_RAM", "LLAMA_ARG_THREADS_HTTP"),
    runs=Abilities(tasks=("embed", "rerank"), sources=("file", "parts")),
    routes=(
        Route("/v1/models", ("GET",)),
        Route("/v1/embeddings", ("POST",)),
        Route("/v1/rerank", ("POST",)),
        Route("/health", ("GET",)),
    ),
)
