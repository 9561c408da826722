"""Base classes of the catalog; each service has a module in this package."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from llmhost.models.gguf import Gguf
from llmhost.models.memory import Estimate
from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.options.base import Section
from llmhost.options.gpus import Gpus
from llmhost.options.kind import Mistake
from llmhost.options.model import Model
from llmhost.options.nvidia_driver import CudaVersion
from llmhost.options.types import (
    AnyText,
    Flag,
    Fraction,
    Image,
    LocalPort,
    MemorySize,
    Networks,
    Port,
    Table,
    Variable,
    whole,
)
from llmhost.services.abilities import Abilities
from llmhost.services.addresses import services_in
from llmhost.system.files import File

Method = Literal["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]

# The last part: nothing, a slash, or the rest of the path as a parameter.
ROUTE = r"(?=/)(/([\w.~-]+|\{\w+\}))*(/|/\{\w+\.\.\.\})?"
"""Regular expression of a route's path."""

_ROUTE = re.compile(ROUTE, re.ASCII)

GATEWAY = "llmhost-gateway"
"""Name of the host's gateway in the containers of services that call it."""


def flag_of(argument: str) -> str:
    """The name of an argument: vLLM and llama.cpp read `--ctx_size` as `--ctx-size`, and vLLM
    `--name=value`."""
    flag = argument.partition("=")[0]
    return flag.replace("_", "-") if flag.startswith("--") else flag


def is_short_for(flag: str, name: str) -> bool:
    """Whether Python's argparse, and so vLLM, may read a flag as this name: it accepts what only
    one name begins with, after one dash, too (vllm/utils/argparse_utils.py leaves `allow_abbrev`
    as it is). llama.cpp knows whole names only (common/arg.cpp)."""
    return flag.strip("-") != "" and name.startswith(flag)


def refuse_own_arguments(
    arguments: Iterable[str], own: Mapping[str, str], *, abbreviates: bool = False
) -> None:
    """Raise Mistake for an argument of `own`, whose value says what to do instead, or for what is
    short for one, if the engine `abbreviates`."""
    for argument in arguments:
        flag = flag_of(argument)
        if instead := own.get(flag):
            raise Mistake(f"has {argument}; remove it and {instead}", "extra_arguments")
        short = [name for name in own if abbreviates and is_short_for(flag, name)]
        if short:
            what = f"has {argument}, short for {short[0]}; remove it and {own[short[0]]}"
            raise Mistake(what, "extra_arguments")


@dataclass(frozen=True)
class Fields:
    """Fields of a JSON body that only an administrator may send: they change the engine for all.

    `refused` are fields of the body; in its object `options`, all but `options` are refused, or
    none without it. `of_models` are those that a gateway in front does not refuse, because only
    the server knows what its models have."""

    refused: tuple[str, ...]
    options: tuple[str, ...] | None = None
    of_models: bool = False


@dataclass(frozen=True)
class Route:
    """A request that the gateway passes on: a path and its methods.

    In a path, `{name}` matches one segment of letters, digits and `._~:@+=,-`, and `{name...}` at
    the end one or more, which may also have brackets and parentheses. An exact path has priority
    over a pattern, then the pattern with the longer literal prefix, then the one declared first.
    """

    path: str
    methods: tuple[Method, ...]
    scope: Literal["inference", "admin", "metrics"] = "inference"
    fields: Fields | None = None

    def __post_init__(self) -> None:
        if not _ROUTE.fullmatch(self.path):
            raise ValueError(f"{self.path} is not a valid path of a route")


@dataclass(frozen=True)
class Page:
    """A browser UI without a login of its own.

    Browsers get its files without a key; what it asks for then needs a key, as everywhere else. No
    other request is passed on at its port.
    """

    files: tuple[str, ...]
    """Paths of the service; `/` is where browsers begin."""

    routes: tuple[Route, ...]
    """Routes of the service that the page uses."""


class ServiceOptions(Section):
    """Options that all services have."""

    secret_options: ClassVar[Mapping[str, str]] = {}
    """Environment variables with secret values, each with the option that refers to the value."""

    image: Image
    """Image, pinned by digest: `registry/name:tag@sha256:…`. Docker pulls the digest; the tag is
    only informative."""

    port: LocalPort | None = None
    """Port on 127.0.0.1 of the host; none: only other services can reach it."""

    memory_limit: MemorySize | None = None
    """Memory limit of the container, such as `16g`; none: no limit."""

    gpu: Gpus | None = None
    """GPU to run on, a number from `nvidia-smi` or a UUID (`GPU-…`), or a list of them; none: the
    CPU, unless `gpu_count` is set."""

    gpu_count: Annotated[int, whole(1, 256, "GPUs", 1)] | None = None
    """Number of GPUs to run on, chosen among those that no other service uses; use it instead of
    `gpu`."""

    gpu_shared: Flag = False
    """Share the GPU with other services that also set this; otherwise a GPU runs one service."""

    cuda: CudaVersion | None = None
    """CUDA version of the image, such as `12.8`; the host's driver must support it."""

    environment: Table[Variable, AnyText] = Field(default_factory=dict)
    """Additional environment variables, such as `{'NCCL_P2P_DISABLE': '1'}`. Not for secrets: they
    are stored in plain text. Variables that llmhost sets itself are refused."""

    gpu_fraction: Fraction | None = None
    """Fraction of each GPU's memory that the engine reserves, as vLLM does; none: as much as its
    models need."""

    @property
    def secret_variables(self) -> Mapping[str, str]:
        """Environment variables with secret values, each with the reference to the value."""
        return {variable: getattr(self, name) for variable, name in self.secret_options.items()}

    @property
    def urls(self) -> Sequence[str]:
        """URLs that it connects to."""
        return ()

    @property
    def needed_services(self) -> Sequence[str]:
        """Services of the stack that must be healthy before it starts: those in its URLs."""
        return services_in(self.urls)

    @property
    def gpu_request(self) -> GpuRequest | None:
        """The GPUs that it needs; none: it runs on the CPU."""
        if self.gpu is not None:
            named = self.gpu if isinstance(self.gpu, tuple) else (self.gpu,)
            return GpuRequest(tuple(str(each) for each in named), self.gpu_shared)
        return GpuRequest(self.gpu_count, self.gpu_shared) if self.gpu_count else None


class UiOptions(ServiceOptions):
    """Options of a service that has a browser UI.

    The UI has its own port. Unless it is a `Page`, it has its own login instead of an API key: only
    its allowed networks limit who can try to log in.
    """

    port: LocalPort
    """Port on 127.0.0.1 of the host, between the gateway and the UI."""

    ui_port: Port | None
    """Port of the UI for browsers; none: no UI."""

    ui_sources: Networks | None = None
    """Networks that may reach the UI; none: those of `gateway_sources`."""


@dataclass(frozen=True)
class Request:
    """A request that shows that a service works: a POST of `body` as JSON, or without it a GET.

    `expects` is text of a correct answer: some failures have a success status."""

    path: str
    body: Mapping[str, object] | None = None
    expects: str = ""


OptionsT = TypeVar("OptionsT", bound=ServiceOptions)


@dataclass(frozen=True)
class Service(Generic[OptionsT]):
    """One entry of the catalog.

    A service that does more than start a container overrides methods in a subclass. Its Compose
    file is templates/services/<name>.yaml.j2, its build context files/images/<name>/:
    docs/adding-a-service.md.
    """

    name: str

    options: type[OptionsT]
    """Its options; a service with `UiOptions` has a browser UI."""

    container_port: int
    """Port inside its container: others reach it at `<name>:<container_port>`."""

    routes: tuple[Route, ...] = ()
    """Requests that the gateway passes on to it."""

    page: Page | None = None
    """Its browser UI, if that has no login of its own."""

    runs: Abilities | None = None
    """Options of models that it supports; none: it runs no models."""

    own_variables: tuple[str, ...] = ()
    """Environment variables that it sets elsewhere than in the text of its template."""

    metrics_path: str = ""
    """Path of its metrics for Prometheus at its port; empty: it has none."""

    calls_gateway: bool = False
    """Whether it calls the gateway of its own host, at the name GATEWAY."""

    closes_after_streams: bool = False
    """Whether the engine closes the connection after each stream without saying so; the gateway
    then reuses none, because it could send a request on one that is just being closed."""

    beside_fraction_bytes: int = 0
    """GPU memory that it uses in addition to its `gpu_fraction`."""

    in_groups: bool = False
    """Whether several hosts can run it together (`engine_group_*`)."""

    def problems(self, models: Sequence[Model]) -> Iterator[str]:
        """A sentence for each mistake in its models."""
        for model in models:
            if self.runs is None:
                yield f"runs no models, and '{model.name}' is declared for it"
            else:
                yield from self.runs.unfit(model)
        yield from self.check_models(models)

    def check_models(self, _models: Sequence[Model], /) -> Iterable[str]:
        """Further mistakes in its models, beyond options that it would ignore."""
        return ()

    def check_options(self, _options: OptionsT, _models: Sequence[Model], /) -> Iterable[str]:
        """Options that do not fit its models."""
        return ()

    def check_file(self, _options: OptionsT, _model: Model, _gguf: Gguf, /) -> Iterable[str]:
        """Why it cannot run a model's file; each text continues "its file"."""
        return ()

    def holders(self, models: Sequence[Model], /) -> Sequence[Model]:
        """Models whose weights its image has, at their paths; others have the same weights."""
        return models

    def fields(self, _models: Sequence[Model], /) -> Mapping[str, Fields]:
        """Fields that only an administrator may send with these models, by the path of a route."""
        return {}

    def metric_models(self, _models: Sequence[Model], /) -> Sequence[str]:
        """Names of models, each of which has metrics of its own at `metrics_path?model=NAME`;
        none: the path has all metrics."""
        return ()

    def loaded(self, models: Sequence[Model], /) -> Sequence[Model]:
        """Models that have GPU memory of their own."""
        return models

    def arguments(self, _options: OptionsT, _models: Sequence[Model], /) -> Sequence[str]:
        """Arguments of the engine's command line that its template cannot calculate."""
        return ()

    def context(self, _options: OptionsT, _models: Sequence[Model], /) -> Iterable[File]:
        """Files of its build context that depend on the inventory."""
        return ()

    def renamed(
        self, _context: Sequence[File], _names: Mapping[str, Sequence[str]], /
    ) -> Iterable[File]:
        """Files of the context for models that answer under other names, too: further ones, or
        others at the same paths."""
        return ()

    def request(self, _models: Sequence[Model], /) -> Request | None:
        """A request that exercises the service with the first of these models; none: its first GET
        route."""
        return None

    def requests(self, models: Sequence[Model], /) -> Sequence[Request]:
        """Requests that together exercise all models of the service."""
        groups = [[model] for model in self.loaded(models)] or [[]]
        found = (self.request(group) for group in groups)
        return tuple(request for request in found if request)

    def memory(self, _options: OptionsT, /) -> Estimate | None:
        """The estimate of its models' GPU memory; none: it must be declared."""
        return None

    def data_volumes(self, _options: OptionsT, /) -> Sequence[str]:
        """Volumes of its template with data, which a backup contains; not those of caches."""
        return ()

    def changed_settings(self, _options: OptionsT, /) -> str:
        """A Python program, or an empty string. It runs in the service's container and prints the
        settings that were changed in the running service, one on a line."""
        return ""


AnyService = Service[ServiceOptions]
"""A service of the catalog; its methods take the options of the same service."""
