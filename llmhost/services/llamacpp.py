"""llama.cpp's server: one GGUF model with an OpenAI-compatible API, on CPU or GPU."""

from collections.abc import Iterator, Sequence
from functools import partial

from pydantic import model_validator

from llmhost.models.gguf import Gguf
from llmhost.models.llama import GGML_CACHE_TYPES, LLAMA_FLAGS, llama_arguments
from llmhost.models.llama_memory import llama_memory
from llmhost.models.memory import Estimate
from llmhost.options.model import Model
from llmhost.options.types import AnyItems, FreeText, Image, LoadSeconds, LocalPort, Threads
from llmhost.services.abilities import Abilities
from llmhost.services.base import (
    Request,
    Route,
    Service,
    ServiceOptions,
    refuse_own_arguments,
)
from llmhost.services.llama_server import server_variables, unpooled
from llmhost.services.requests import task_request

_OWN_ARGUMENTS = {
    **dict.fromkeys(("--ctx-size", "-c"), "write the model's context_tokens"),
    **dict.fromkeys(("--parallel", "-np"), "write the model's parallel"),
    **dict.fromkeys(("--model", "-m"), "write the model's source"),
    **dict.fromkeys(("--model-url", "-mu"), "write the model's source"),
    **dict.fromkeys(("--hf-repo", "-hf", "-hfr"), "write the model's source"),
    **dict.fromkeys(("--docker-repo", "-dr"), "write the model's source"),
    **dict.fromkeys(("--alias", "-a"), "write the model's name"),
    "--embedding": "write the model's task",
    "--embeddings": "write the model's task",
    "--reranking": "write the model's task",
    "--rerank": "write the model's task",
    "--api-key": "declare api_clients, whose keys the gateway checks",
    "--api-key-file": "declare api_clients, whose keys the gateway checks",
    "--host": "let the gateway alone reach it",
    "--port": "write llamacpp_port",
}
"""Arguments that the GPU memory plan, the gateway or the checks must know; what to do instead
(llama-server --help, build 11669)."""


class LlamacppOptions(ServiceOptions):
    """`llamacpp_*`."""

    image: Image = (
        "ghcr.io/ggml-org/llama.cpp:server-b11176"
        "@sha256:6257697a7f5d034b8fb499ddb07af3e250506352f94102054252a23f3b85e0af"
    )
    """Image of the engine, pinned by digest. It must contain `curl`, and `llama-server` in /app or
    on the PATH. The default is the CPU build."""

    port: LocalPort = 8081
    """Port on 127.0.0.1 of the host."""

    threads: Threads | None = None
    """CPU threads for generation; none: llama.cpp's default."""

    load_timeout_seconds: LoadSeconds = 600
    """Maximum time to load the model; after that the container is unhealthy."""

    extra_arguments: AnyItems[FreeText] = ()
    """Additional arguments of `llama-server`, such as `--threads-batch`, `8`."""

    @model_validator(mode="after")
    def _own_arguments(self) -> "LlamacppOptions":
        refuse_own_arguments(self.extra_arguments, _OWN_ARGUMENTS)
        return self


class Llamacpp(Service[LlamacppOptions]):
    """One process of llama-server with one model."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """Exactly one model."""
        if len(models) != 1:
            yield f"needs exactly one model with service 'llamacpp', and {len(models)} are declared"

    def check_file(self, options: LlamacppOptions, model: Model, gguf: Gguf) -> Iterator[str]:
        """A file for embeddings says how the vectors of its tokens become one."""
        yield from unpooled(model, gguf, options.environment, *options.extra_arguments)

    def arguments(self, _options: LlamacppOptions, models: Sequence[Model]) -> list[str]:
        """Arguments for the model."""
        return [argument for model in models for argument in llama_arguments(model)]

    def variables(self, options: LlamacppOptions, models: Sequence[Model]) -> dict[str, str]:
        """Variables for its memory and load."""
        requests = max((model.parallel for model in models), default=1)
        return server_variables(options.memory_limit, max(len(models), 1), requests)

    def memory(self, _options: LlamacppOptions) -> Estimate:
        """The estimate for llama.cpp."""
        return partial(llama_memory, whole_texts=True)

    def request(self, models: Sequence[Model]) -> Request:
        """A request for the model's task."""
        return task_request(models[0])


# The server has more routes (slots, properties, metrics), which are not passed on. Several public
# projects pin the digest of the default image for its tag.
SERVICE = Llamacpp(
    name="llamacpp",
    options=LlamacppOptions,
    container_port=8080,
    metrics_path="/metrics",
    closes_after_streams=True,  # tests/engines/test_llamacpp.py
    own_variables=("LLAMA_ARG_CACHE_RAM", "LLAMA_ARG_THREADS_HTTP"),
    runs=Abilities(
        tasks=("generate", "embed", "rerank"),
        sources=("file", "parts"),
        cache_types=GGML_CACHE_TYPES,
        parameters=tuple(LLAMA_FLAGS),
        adapter=True,
        projector=True,
        draft=True,
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
        Route("/tokenize", ("POST",)),
        Route("/health", ("GET",)),
    ),
)
