"""Ollama: several models, resident or loaded on demand."""

from collections.abc import Iterator, Sequence

from llmhost.models.llama_memory import llama_memory
from llmhost.models.memory import Estimate
from llmhost.options.model import Model
from llmhost.options.model_source import MANIFEST, OllamaSource
from llmhost.options.types import Image, KeepSeconds, LoadSeconds, LocalPort
from llmhost.services.abilities import Abilities
from llmhost.services.base import Request, Route, Service, ServiceOptions
from llmhost.services.requests import task_request
from llmhost.system.files import File

PARAMETERS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "max_tokens": "num_predict",
    "stop": "stop",
}
"""Ollama's names of the model parameters (ollama, docs/modelfile.mdx)."""


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


def _links(models: Sequence[Model]) -> Iterator[tuple[str, str]]:
    """Paths in Ollama's store, each with the file of the weights to link."""
    for model in models:
        for path, sha256 in model.baked.items():
            yield f"blobs/sha256-{sha256}", path
        if isinstance(model.origin, OllamaSource):
            yield model.origin.manifest_path, f"{model.path}/{MANIFEST}"


def _modelfile(model: Model) -> Iterator[str]:
    """Lines of a Modelfile. Text between triple double quotes is literal."""
    origin = model.origin
    yield f"FROM {origin.reference if isinstance(origin, OllamaSource) else model.path}"
    if model.adapter:
        yield f"ADAPTER {model.adapter_path}"
    yield f"PARAMETER num_ctx {model.context_tokens}"
    for name, value in model.parameters.given.items():
        for each in value if isinstance(value, tuple) else (value,):
            text = f'"""{each}"""' if isinstance(each, str) else str(each)
            yield f"PARAMETER {PARAMETERS[name]} {text}"
    if model.system_prompt is not None:
        yield f'SYSTEM """{model.system_prompt}"""'


class Ollama(Service[OllamaOptions]):
    """One process that starts another one for each loaded model."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """Options for which Ollama has one setting for all models."""
        if not models:
            yield "needs at least one model"
        for option in ("parallel", "cache_type"):
            if len({getattr(model, option) for model in models}) > 1:
                yield f"has one {option} for all of its models, and they declare different ones"
        for model in models:
            texts = (model.system_prompt or "", *model.parameters.stop)
            if any('"""' in text for text in texts):
                yield f"cannot pass '{model.name}' a text with three double quotes in a row"

    def context(self, _options: OllamaOptions, models: Sequence[Model]) -> Iterator[File]:
        """A Modelfile for each model, and a list of links from Ollama's store to the weights."""
        links = dict(_links(models))
        yield File("links", "".join(f"{target} {link}\n" for link, target in sorted(links.items())))
        for model in models:
            yield File(f"modelfiles/{model.name}", "\n".join([*_modelfile(model), ""]))

    def memory(self, _options: OllamaOptions) -> Estimate:
        """The estimate for llama.cpp."""
        return llama_memory

    def request(self, models: Sequence[Model]) -> Request:
        """A request for the first model."""
        return task_request(models[0])


# Pull, push, create, copy and delete are not passed on, not even for administrators. They would
# change baked models, which fails in a read-only container, and have had vulnerabilities
# (CVE-2026-7482). Several public projects pin the digest of the default image for its tag.
SERVICE = Ollama(
    name="ollama",
    options=OllamaOptions,
    container_port=11434,
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
        Route("/api/generate", ("POST",)),
        Route("/api/chat", ("POST",)),
        Route("/api/embed", ("POST",)),
        Route("/api/embeddings", ("POST",)),
        Route("/api/tags", ("GET",)),
        Route("/api/ps", ("GET",)),
        Route("/api/show", ("POST",)),
        Route("/api/version", ("GET",)),
        Route("/v1/models", ("GET",)),
        Route("/v1/chat/completions", ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route("/v1/embeddings", ("POST",)),
    ),
)
