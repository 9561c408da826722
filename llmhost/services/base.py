"""What the catalogue says of a service; one module beside this one declares each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from llmhost.filetree import File
from llmhost.model_source import OllamaSource
from llmhost.settings.base import Section
from llmhost.settings.model import Model
from llmhost.settings.nvidia_driver import CudaVersion

IMAGE = r"^[a-z0-9][\w.:/-]*@sha256:[0-9a-f]{64}$"
"""An image reference that always means the same image; `docker pull` prints the digest."""

Method = Literal["GET", "POST", "PUT", "DELETE", "HEAD"]


@dataclass(frozen=True)
class Route:
    """A request that the gateway passes on: an exact path and its methods."""

    path: str
    methods: tuple[Method, ...]
    scope: Literal["inference", "admin"] = "inference"


class ServiceOptions(Section):
    """Options that every service has; its own module adds to them."""

    image: str = Field(pattern=IMAGE)
    """Image of the engine, pinned by digest: `registry/name:tag@sha256:…`. The tag is for people,
    the digest is what is pulled."""

    port: int = Field(ge=1024, le=65535)
    """Port on 127.0.0.1 of the host."""

    memory_limit: str | None = Field(default=None, pattern=r"^\d+[kmg]$")
    """Most memory the container may use, such as `16g`; none: no limit."""

    gpu: int | None = Field(default=None, ge=0)
    """Number of the GPU it runs on, as `nvidia-smi` counts; none: it runs on the CPU."""

    cuda: CudaVersion | None = None
    """CUDA version that the image is built with, such as `12.8`; the host's driver must know it."""

    gpu_fraction: float | None = Field(default=None, gt=0, le=1)
    """Fraction of the GPU's whole memory that it takes for itself, as vLLM does; none: what its
    models need."""


@dataclass(frozen=True)
class Abilities:
    """Which options of a model an engine heeds; the others are refused, never ignored."""

    tasks: tuple[str, ...] = ("generate",)
    sources: tuple[Literal["file", "files", "ollama"], ...] = ("file", "files")
    cache_types: tuple[str, ...] = ("f16",)
    parameters: tuple[str, ...] = ()
    adapter: bool = False
    system_prompt: bool = False
    on_demand: bool = False


@dataclass(frozen=True)
class Request:
    """A request that proves that a service works: a POST of `body` as JSON, or a GET without."""

    path: str
    body: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Service:
    """One entry of the catalogue.

    `options` is its settings class, `container_port` the port that it listens on inside its
    container, `routes` what the gateway offers, `runs` which options of models it heeds.
    `check_models` returns a sentence for each further mistake in the models given to it,
    `arguments` what the models' options are on the engine's command line, `context` files of the
    build context that depend on the inventory, `request` a request that needs the whole service to
    be answered. Its Compose file is templates/services/<name>.yaml.j2 and its
    build context files/images/<name>/: docs/adding-a-service.md.
    """

    name: str
    options: type[ServiceOptions]
    container_port: int
    routes: tuple[Route, ...] = ()
    runs: Abilities = field(default_factory=Abilities)
    check_models: Callable[[Sequence[Model]], Sequence[str]] = field(default=lambda _models: ())
    arguments: Callable[[Sequence[Model]], Sequence[str]] = field(default=lambda _models: ())
    context: Callable[[Any, Sequence[Model]], Sequence[File]] = field(default=lambda *_: ())
    request: Callable[[Sequence[Model]], Request | None] = field(default=lambda _models: None)


def unfit_models(service: Service, models: Sequence[Model]) -> Iterator[str]:
    """A sentence for each option of a model that the service would ignore."""
    runs = service.runs
    for model in models:
        source = "ollama" if isinstance(model.origin, OllamaSource) else "file"
        source = "files" if source == "file" and model.files else source
        unknown = {
            f"task = '{model.task}'": model.task not in runs.tasks,
            _SOURCES[source]: source not in runs.sources,
            f"cache_type = '{model.cache_type}'": model.cache_type not in runs.cache_types,
            "an adapter": model.adapter is not None and not runs.adapter,
            "a system_prompt": model.system_prompt is not None and not runs.system_prompt,
            "resident = False": not model.resident and not runs.on_demand,
        }
        unknown |= {
            f"parameters.{name}": name not in runs.parameters for name in model.parameters.given
        }
        yield from (f"can not run '{model.name}' with {what}" for what in unknown if unknown[what])


_SOURCES = {
    "file": "weights in a single file",
    "files": "weights in several files",
    "ollama": "a source in Ollama's library",
}
