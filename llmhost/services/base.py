"""What the catalogue says of a service; one module beside this one declares each."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.options.base import Section
from llmhost.options.kind import NUMERIC, Kind, each_of
from llmhost.options.model import Model
from llmhost.options.model_source import OllamaSource
from llmhost.options.nvidia_driver import CudaVersion
from llmhost.options.types import (
    Flag,
    Fraction,
    Image,
    LocalPort,
    MemorySize,
    Networks,
    Port,
    text,
    whole,
)
from llmhost.system.files import File


def _gpu(value: object) -> object:
    """One GPU, or a list of them."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError
        return each_of(_ONE_GPU, value)
    return _ONE_GPU.read(value)


def _one_gpu(value: object) -> object:
    return _GPU_UUID.read(value) if isinstance(value, str) else _GPU_NUMBER.read(value)


_GPU_NUMBER = whole(0, 255)
_GPU_UUID = text(r"GPU-[0-9a-f-]{36}", "", "")
_ONE_GPU = Kind(_one_gpu, "the number or the UUID (GPU-…) of a GPU", 0, NUMERIC)
Gpus = Annotated[
    int | str | tuple[int | str, ...],
    Kind(_gpu, "the number or the UUID (GPU-…) of a GPU, or a list of them", 0, NUMERIC),
]
"""A GPU's number, as `nvidia-smi` counts, or its UUID, as `nvidia-smi -L` prints it."""

Method = Literal["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]

# The last part: nothing, a slash, or the rest of the path as a parameter.
_ROUTE = re.compile(r"(?=/)(/([\w.~-]+|\{\w+\}))*(/|/\{\w+\.\.\.\})?", re.ASCII)


@dataclass(frozen=True)
class Route:
    """A request that the gateway passes on: a path and its methods.

    In a path `{name}` stands for one segment, and at its end `{name...}` for one or more; they may
    hold letters, digits and `._~:@+=,-`. An exact path goes before a pattern, then a pattern with
    a longer literal beginning, then the one declared first.
    """

    path: str
    methods: tuple[Method, ...]
    scope: Literal["inference", "admin"] = "inference"

    def __post_init__(self) -> None:
        if not _ROUTE.fullmatch(self.path):
            raise ValueError(f"{self.path} is no path that the gateway could pass on")


class ServiceOptions(Section):
    """Options that every service has; its own module adds to them."""

    secret_options: ClassVar[Mapping[str, str]] = {}
    """Environment variables whose values are secret, each with the option that refers to it."""

    image: Image
    """Image of the engine, pinned by digest: `registry/name:tag@sha256:…`. The tag is for people;
    the digest decides what is pulled."""

    port: LocalPort | None = None
    """Port on 127.0.0.1 of the host; none: only the other services can reach it."""

    memory_limit: MemorySize | None = None
    """Most memory that the container may use, such as `16g`; none: no limit."""

    gpu: Gpus | None = None
    """The GPU it runs on, by number as `nvidia-smi` counts or by UUID (`GPU-…`), or a list of them;
    none: it runs on the CPU, unless the next option is set."""

    gpu_count: Annotated[int, whole(1, 256, "GPUs", 1)] | None = None
    """Number of GPUs it runs on, any that no other service has; instead of naming them."""

    gpu_shared: Flag = False
    """Let it run on a GPU beside other services that allow it too; otherwise each GPU serves one
    service."""

    cuda: CudaVersion | None = None
    """CUDA version that the image is built with, such as `12.8`; the host's driver must support
    it."""

    gpu_fraction: Fraction | None = None
    """Fraction of the GPU's total memory that it reserves, as vLLM does; none: what its models
    need."""

    @property
    def secret_variables(self) -> Mapping[str, str]:
        """Environment variables whose values are secret, each with the reference to it."""
        return {variable: getattr(self, name) for variable, name in self.secret_options.items()}

    @property
    def gpu_request(self) -> GpuRequest | None:
        """What it asks for; none: it runs on the CPU."""
        if self.gpu is not None:
            named = self.gpu if isinstance(self.gpu, tuple) else (self.gpu,)
            return GpuRequest(tuple(str(each) for each in named), self.gpu_shared)
        return GpuRequest(self.gpu_count, self.gpu_shared) if self.gpu_count else None


def no_models(models: Sequence[Model]) -> Sequence[str]:
    """`check_models` of a service that runs none."""
    return [f"runs no models, and '{model.name}' is declared for it" for model in models]


class UiOptions(ServiceOptions):
    """Options of a service that has a browser UI.

    The UI has a port of its own, and its own login in place of an API key: only the networks that
    may reach it keep strangers from trying to log in.
    """

    port: LocalPort
    """Port on 127.0.0.1 of the host, where the gateway finds the UI."""

    ui_port: Port
    """Port of the host where browsers find the UI."""

    ui_sources: Networks | None = None
    """Networks that may reach the UI; none: those of `gateway_sources`."""


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
    container, where the others find it as `<name>:<container_port>`. `routes` is what the gateway
    offers, `runs` which options of models it heeds. `check_models` returns a sentence for each
    further mistake in the models given to it, `arguments` what the models' options are on the
    engine's command line, `request` a request that needs the whole service to be answered, `needs`
    the services it can not do without, as its options have it: they start first.
    `changed_settings` is a Python program, or empty, that says inside the service's container which
    of its settings somebody changed in the running service, a line each. `context`
    returns files of the build context that depend on the inventory. A service whose `options` are
    `UiOptions` has a browser UI on that port. Its Compose file is templates/services/<name>.yaml.j2
    and its build context files/images/<name>/: docs/adding-a-service.md.
    """

    name: str
    options: type[ServiceOptions]
    container_port: int
    routes: tuple[Route, ...] = ()
    runs: Abilities = field(default_factory=Abilities)
    check_models: Callable[[Sequence[Model]], Sequence[str]] = field(default=lambda _models: ())
    arguments: Callable[[Sequence[Model]], Sequence[str]] = field(default=lambda _models: ())
    context: Callable[[Any, Sequence[Model]], Sequence[File]] = field(default=lambda *_: ())
    needs: Callable[[ServiceOptions], Sequence[str]] = field(default=lambda _options: ())
    request: Callable[[Sequence[Model]], Request | None] = field(default=lambda _models: None)
    changed_settings: Callable[[Any], str] = field(default=lambda _options: "")


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
