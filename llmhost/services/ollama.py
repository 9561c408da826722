"""Ollama: several models, resident or loaded on demand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmhost.models.files import sha256_of
from llmhost.models.gguf import Gguf
from llmhost.models.llama_memory import llama_memory
from llmhost.models.memory import Estimate
from llmhost.options.model import Model
from llmhost.options.types import Image, KeepSeconds, LoadSeconds, LocalPort
from llmhost.services.abilities import Abilities
from llmhost.services.base import Fields, Request, Route, Service, ServiceOptions
from llmhost.services.llama_server import server_variables, stored_once
from llmhost.services.ollama_store import PARAMETERS, store_files, weights_of
from llmhost.services.requests import task_request
from llmhost.system.files import File


class OllamaOptions(ServiceOptions):
    """`ollama_*`."""

    image: Image = (
        "ollama/ollama:0.31.1"
        "@sha256:f1a705f2bd113fb8d15f85f7c217f0dc5f6bebda6b0cc42b82c3ad165ffcb9dc"
    )
    """Image of the engine, pinned by digest. Ollama 0.34.1 and newer do not support LoRA adapters;
    releases before 0.17.1 leaked memory to clients that could create models (CVE-2026-7482)."""

    port: LocalPort = 11434
    """Port on 127.0.0.1 of the host."""

    keep_alive_seconds: KeepSeconds = 300
    """How long a model with `resident = False` stays loaded after its last request."""

    load_timeout_seconds: LoadSeconds = 900
    """Maximum time to load the resident models; after that the container is unhealthy."""


def _groups(models: Sequence[Model]) -> list[list[Model]]:
    """Roles by their weights: Ollama has one process for each file of weights (server/sched.go)."""
    groups: dict[str, list[Model]] = {}
    for model in models:
        groups.setdefault(weights_of(model), []).append(model)
    return list(groups.values())


def _adapter(model: Model) -> str:
    path = Path(model.adapter or "")
    return sha256_of(path) if path.is_file() else str(model.adapter or "")


class Ollama(Service[OllamaOptions]):
    """One process that starts another one for each loaded model."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """Options for which Ollama has one setting for all models, or for the same weights."""
        if not models:
            yield "needs at least one model"
        for option in ("parallel", "cache_type"):
            if len({getattr(model, option) for model in models}) > 1:
                yield f"has one {option} for all of its models, and they declare different ones"
        for first, *others in _groups(models):
            for other in others:
                same_adapter = _adapter(first) == _adapter(other)
                if first.context_tokens != other.context_tokens or not same_adapter:
                    what = "context_tokens" if same_adapter else "adapters"
                    yield (
                        f"loads the same weights only once, and '{first.name}' and '{other.name}'"
                        f" declare different {what} for them; make them equal, or run one of them"
                        " with another service"
                    )

    def check_file(self, _options: OllamaOptions, model: Model, gguf: Gguf) -> Iterator[str]:
        """Ollama decides by the file alone whether a model embeds (server/images.go)."""
        embeds = gguf.number("pooling_type") is not None
        if model.task == "embed" and not embeds:
            yield "has no pooling_type, and Ollama embeds only with such files"
        if model.task == "generate" and embeds:
            yield "is an embedding model, and Ollama refuses to generate text with it"

    def context(self, _options: OllamaOptions, models: Sequence[Model]) -> Iterator[File]:
        """What the store is made of."""
        return store_files(models)

    def renamed(
        self, context: Sequence[File], names: Mapping[str, Sequence[str]]
    ) -> Iterator[File]:
        """The same model again, which shares the process of the first."""
        files = {file.path: file for file in context}
        for model, others in names.items():
            for other in others:
                yield replace(files[f"roles/{model}"], path=f"roles/{other}")

    def variables(self, options: OllamaOptions, models: Sequence[Model]) -> dict[str, str]:
        """Variables that depend on which models stay loaded.

        `LLAMA_ARG_…` are those of llama.cpp, which Ollama starts for each model with its own
        environment (llm/llama_server.go).
        """
        residents = [group for group in _groups(models) if any(m.resident for m in group)]
        on_demand = len(_groups(models)) > len(residents)
        most = len(residents) + on_demand
        return {
            # What it would otherwise decide by what it finds of GPU memory.
            "OLLAMA_NUM_PARALLEL": str(models[0].parallel),
            "OLLAMA_MAX_LOADED_MODELS": str(most),
            "OLLAMA_KEEP_ALIVE": f"{options.keep_alive_seconds}s" if on_demand else "-1s",
            **server_variables(options.memory_limit, most, models[0].parallel),
            "LLMHOST_GENERATE": _words(residents, "generate"),
            "LLMHOST_EMBED": _words(residents, "embed"),
        }

    def holders(self, models: Sequence[Model]) -> Sequence[Model]:
        """The same weights are in the image once."""
        return stored_once(models)

    def loaded(self, models: Sequence[Model]) -> Sequence[Model]:
        """One of the roles with the same weights; it stays loaded if one of them does."""
        return [
            group[0].model_copy(update={"resident": any(model.resident for model in group)})
            for group in _groups(models)
        ]

    def memory(self, _options: OllamaOptions) -> Estimate:
        """The estimate for llama.cpp."""
        return llama_memory

    def request(self, models: Sequence[Model]) -> Request:
        """A request for the first model."""
        return task_request(models[0])


def _words(groups: Sequence[Sequence[Model]], task: str) -> str:
    """Groups of this task for files/images/ollama/start."""
    return " ".join("|".join(m.name for m in group) for group in groups if group[0].task == task)


# Anybody's keep_alive unloads a model or makes it stay; other contexts, threads and GPU layers
# reload it, and so does `shift` (needsReload in server/sched.go). /v1 has no such fields. Those of
# `options` that are allowed are what api/types.go does not count among `Runner`, and older ones.
_FIELDS = Fields(
    refused=("keep_alive", "shift"),
    options=(
        *("num_keep", "seed", "num_predict", "top_k", "top_p", "min_p", "typical_p"),
        *("repeat_last_n", "temperature", "repeat_penalty", "presence_penalty"),
        *("frequency_penalty", "stop", "tfs_z", "mirostat", "mirostat_eta", "mirostat_tau"),
        "penalize_newline",
    ),
)

# Pull, push, create, copy and delete are not passed on, not even for administrators. They would
# change baked models, which fails in a read-only container, and have had vulnerabilities
# (CVE-2026-7482). Several public projects pin the digest of the default image for its tag.
SERVICE = Ollama(
    name="ollama",
    options=OllamaOptions,
    container_port=11434,
    own_variables=(
        *("OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_KEEP_ALIVE", "OLLAMA_MODELS"),
        *("OLLAMA_NOPRUNE", "OLLAMA_NO_CLOUD", "LLAMA_ARG_CACHE_RAM", "LLAMA_ARG_THREADS_HTTP"),
        "HOME",
    ),
    runs=Abilities(
        tasks=("generate", "embed"),
        sources=("file", "ollama"),
        cache_types=("f16", "q8_0", "q4_0"),
        parameters=tuple(PARAMETERS),
        adapter=True,
        system_prompt=True,
        on_demand=True,
    ),
    routes=(
        Route("/api/generate", ("POST",), fields=_FIELDS),
        Route("/api/chat", ("POST",), fields=_FIELDS),
        Route("/api/embed", ("POST",), fields=_FIELDS),
        Route("/api/embeddings", ("POST",), fields=_FIELDS),
        Route("/api/tags", ("GET",)),
        Route("/api/ps", ("GET",)),
        Route("/api/show", ("POST",)),
        Route("/api/version", ("GET",)),
        Route("/v1/models", ("GET",)),
        Route("/v1/models/{model}", ("GET",)),
        Route("/v1/chat/completions", ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route("/v1/responses", ("POST",)),
        Route("/v1/messages", ("POST",)),
        Route("/v1/embeddings", ("POST",)),
    ),
)
