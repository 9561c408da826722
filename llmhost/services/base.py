"""What the catalogue says of a service; one module beside this one declares each."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

from llmhost.models.memory import Estimate
from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.options.base import Section
from llmhost.options.kind import NUMERIC, Kind, each_of
from llmhost.options.model import Model
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
from llmhost.services.abilities import Abilities
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
    def needed_services(self) -> Sequence[str]:
        """Services of the stack that have to be healthy before it starts."""
        return ()

    @property
    def gpu_request(self) -> GpuRequest | None:
        """What it asks for; none: it runs on the CPU."""
        if self.gpu is not None:
            named = self.gpu if isinstance(self.gpu, tuple) else (self.gpu,)
            return GpuRequest(tuple(str(each) for each in named), self.gpu_shared)
        return GpuRequest(self.gpu_count, self.gpu_shared) if self.gpu_count else None


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
class Request:
    """A request that proves that a service works: a POST of `body` as JSON, or a GET without."""

    path: str
    body: Mapping[str, object] | None = None


OptionsT = TypeVar("OptionsT", bound=ServiceOptions)


@dataclass(frozen=True)
class Service(Generic[OptionsT]):
    """One entry of the catalogue: what it is in its fields, what it does in its methods.

    A service that does more than start a container overrides methods in a class of its own. Its
    Compose file is templates/services/<name>.yaml.j2 and its build context files/images/<name>/:
    docs/adding-a-service.md.
    """

    name: str

    options: type[OptionsT]
    """Its settings; a service whose options are `UiOptions` has a browser UI."""

    container_port: int
    """Port that it listens on inside its container: others find it as `<name>:<container_port>`."""

    routes: tuple[Route, ...] = ()
    """What the gateway passes on to it."""

    runs: Abilities | None = None
    """Which options of models it honours; none: it runs no models."""

    beside_fraction_bytes: int = 0
    """GPU memory that it takes in addition to its `gpu_fraction`."""

    def problems(self, models: Sequence[Model]) -> Iterator[str]:
        """A sentence for each mistake in the models that are declared for it."""
        for model in models:
            if self.runs is None:
                yield f"runs no models, and '{model.name}' is declared for it"
            else:
                yield from self.runs.unfit(model)
        yield from self.check_models(models)

    def check_models(self, _models: Sequence[Model], /) -> Iterable[str]:
        """Further mistakes in its models, beyond options that it would ignore."""
        return ()

    def arguments(self, _options: OptionsT, _models: Sequence[Model], /) -> Sequence[str]:
        """Arguments of the engine's command line that its template cannot work out."""
        return ()

    def context(self, _options: OptionsT, _models: Sequence[Model], /) -> Iterable[File]:
        """Files of its build context that depend on the inventory."""
        return ()

    def request(self, _models: Sequence[Model], /) -> Request | None:
        """A request that takes the whole service to answer; none: its first GET route."""
        return None

    def memory(self, _options: OptionsT, /) -> Estimate | None:
        """How the GPU memory of its models is worked out; none: it has to be declared."""
        return None

    def changed_settings(self, _options: OptionsT, /) -> str:
        """A Python program, or nothing. Inside the service's container it prints, a line each,
        which settings somebody changed in the running service."""
        return ""


AnyService = Service[ServiceOptions]
"""A service of the catalogue; whoever calls its methods passes the options of the same service."""
