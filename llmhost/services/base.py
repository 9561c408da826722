"""What the catalogue says of a service; one module beside this one declares each."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from llmhost.models.memory import Estimate
from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.options.base import Section
from llmhost.options.model import Model
from llmhost.options.nvidia_driver import CudaVersion
from llmhost.options.types import Networks
from llmhost.services.abilities import Abilities
from llmhost.system.files import File

IMAGE = r"^[a-z0-9][\w.:/-]*@sha256:[0-9a-f]{64}$"
"""An image reference that always means the same image; `docker pull` prints the digest."""

GpuName = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^GPU-[0-9a-f-]{36}$")]
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

    image: str = Field(pattern=IMAGE)
    """Image of the engine, pinned by digest: `registry/name:tag@sha256:…`. The tag is for people,
    the digest is what is pulled."""

    port: int | None = Field(default=None, ge=1024, le=65535)
    """Port on 127.0.0.1 of the host; none: only the other services can reach it."""

    memory_limit: str | None = Field(default=None, pattern=r"^\d+[kmg]$")
    """Most memory the container may use, such as `16g`; none: no limit."""

    gpu: GpuName | Annotated[tuple[GpuName, ...], Field(min_length=1)] | None = None
    """The GPU it runs on, by number as `nvidia-smi` counts or by UUID (`GPU-…`), or a list of them;
    none: it runs on the CPU, unless the next option is set."""

    gpu_count: int | None = Field(default=None, ge=1)
    """How many GPUs it runs on, whichever no other service has; in place of naming them."""

    gpu_shared: bool = False
    """Let it run on a GPU beside other services that allow it too; else a GPU has one service."""

    cuda: CudaVersion | None = None
    """CUDA version that the image is built with, such as `12.8`; the host's driver must know it."""

    gpu_fraction: float | None = Field(default=None, gt=0, le=1)
    """Fraction of the GPU's whole memory that it takes for itself, as vLLM does; none: what its
    models need."""

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

    The UI answers on a port of its own, whole and without an API key: it has its own login, so its
    networks are all that keeps strangers from trying it.
    """

    port: int = Field(ge=1024, le=65535)
    """Port on 127.0.0.1 of the host, where the gateway finds the UI."""

    ui_port: int = Field(ge=1, le=65535)
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
