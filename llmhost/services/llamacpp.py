"""llama.cpp's server: GGUF models with an OpenAI-compatible API, on CPU or GPU."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from pydantic import model_validator

from llmhost.models.gguf import Gguf
from llmhost.models.llama import GGML_CACHE_TYPES, LLAMA_FLAGS, llama_arguments
from llmhost.models.llama_memory import llama_memory
from llmhost.models.memory import Estimate
from llmhost.options.model import Model
from llmhost.options.types import AnyItems, FreeText, Image, LoadSeconds, LocalPort, Threads
from llmhost.resources import FILES
from llmhost.services.abilities import Abilities
from llmhost.services.base import (
    Fields,
    Request,
    Route,
    Service,
    ServiceOptions,
    flag_of,
    refuse_own_arguments,
)
from llmhost.services.llama_server import (
    preset,
    server_variables,
    stored_once,
    unpooled,
    with_aliases,
)
from llmhost.services.requests import task_request
from llmhost.system.files import File

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

_LIST = "declare the models"
_OF_ONE_MODEL = {
    **dict.fromkeys(("--lora", "--lora-scaled"), "write the adapter of each model"),
    **dict.fromkeys(("--mmproj", "-mm", "--mmproj-url", "-mmu"), "write each model's projector"),
    **dict.fromkeys(("--model-draft", "-md", "--spec-draft-model"), "write each model's draft"),
    **dict.fromkeys(("--models-preset", "--models-dir", "--models-max"), _LIST),
    **dict.fromkeys(("--models-autoload", "--no-models-autoload"), _LIST),
}
"""Arguments that a router would ignore or pass on to all of its models."""


_LORA = dict.fromkeys(
    ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    Fields(refused=("lora",), of_models=True),
)
"""With it, a request changes the scale of an adapter, and leaves what it has computed so for those
of other clients: https://github.com/ggml-org/llama.cpp/issues/26207."""


class LlamacppOptions(ServiceOptions):
    """`llamacpp_*`."""

    image: Image = (
        "ghcr.io/ggml-org/llama.cpp:server-b11176"
        "@sha256:6257697a7f5d034b8fb499ddb07af3e250506352f94102054252a23f3b85e0af"
    )
    """Image of the engine, pinned by digest. It must contain `curl`, and `llama-server` in /app or
    on the PATH, for several models of build 7400 or newer. The default is the CPU build."""

    port: LocalPort = 8081
    """Port on 127.0.0.1 of the host."""

    threads: Threads | None = None
    """CPU threads of each model for generation; none: llama.cpp's default."""

    load_timeout_seconds: LoadSeconds = 600
    """Maximum time to load all models; after that the container is unhealthy."""

    extra_arguments: AnyItems[FreeText] = ()
    """Additional arguments of `llama-server`, such as `--threads-batch`, `8`; they hold for all of
    its models."""

    @model_validator(mode="after")
    def _own_arguments(self) -> "LlamacppOptions":
        refuse_own_arguments(self.extra_arguments, _OWN_ARGUMENTS)
        return self


class Llamacpp(Service[LlamacppOptions]):
    """One process of llama-server with one model; with several, a router and a process for each.

    One process with several adapters would answer wrongly: docs/decisions/0169.
    """

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """At least one model."""
        if not models:
            yield "needs at least one model"

    def check_options(self, options: LlamacppOptions, models: Sequence[Model]) -> Iterator[str]:
        """With several models, no arguments for a single one."""
        for argument in options.extra_arguments if len(models) > 1 else ():
            if instead := _OF_ONE_MODEL.get(flag_of(argument)):
                yield (
                    f"has {argument} in llamacpp_extra_arguments, which hold for all of its models;"
                    f" remove it and {instead}"
                )

    def check_file(self, options: LlamacppOptions, model: Model, gguf: Gguf) -> Iterator[str]:
        """A file for embeddings says how the vectors of its tokens become one."""
        yield from unpooled(model, gguf, options.environment, *options.extra_arguments)

    def arguments(self, _options: LlamacppOptions, models: Sequence[Model]) -> list[str]:
        """Arguments for the only model, or for the router."""
        if len(models) == 1:
            return llama_arguments(models[0])
        return ["--models-preset", "/etc/llmhost/models.ini", "--models-max", str(len(models))]

    def context(self, _options: LlamacppOptions, models: Sequence[Model]) -> Iterator[File]:
        """A router's image is built like that of embeddings. With one model, its options are not
        in the image."""
        if len(models) > 1:
            yield File("Dockerfile", (FILES / "images/embeddings/Dockerfile").read_text())
            yield preset(models)

    def renamed(
        self, context: Sequence[File], names: Mapping[str, Sequence[str]]
    ) -> Iterator[File]:
        """The same list with further names."""
        return with_aliases(context, names)

    def holders(self, models: Sequence[Model]) -> Sequence[Model]:
        """The same weights are in the image once."""
        return stored_once(models)

    def fields(self, models: Sequence[Model]) -> Mapping[str, Fields]:
        """With an adapter, the scales of adapters."""
        return _LORA if any(model.adapter for model in models) else {}

    def metric_models(self, models: Sequence[Model]) -> Sequence[str]:
        """A router has no metrics of its own (tools/server/server.cpp)."""
        return [model.name for model in models] if len(models) > 1 else ()

    def variables(self, options: LlamacppOptions, models: Sequence[Model]) -> dict[str, str]:
        """Variables for its memory and load."""
        requests = max((model.parallel for model in models), default=1)
        return server_variables(options.memory_limit, max(len(models), 1), requests)

    def memory(self, _options: LlamacppOptions) -> Estimate:
        """The estimate for llama.cpp."""
        return partial(llama_memory, whole_texts=True)

    def request(self, models: Sequence[Model]) -> Request:
        """A request for the first model."""
        return task_request(models[0])


# The server has more routes (slots, properties, metrics, a router's loading of models), which are
# not passed on. Several public projects pin the digest of the default image for its tag.
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
