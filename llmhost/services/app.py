"""`apps`: programs of the site, in addition to the services of the catalog."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, cast

from pydantic import Field, model_validator

from llmhost.models.hub_cache import CACHE, cache_archive
from llmhost.options.base import Section
from llmhost.options.kind import WORD, Kind, Listed, Mistake
from llmhost.options.model import Model
from llmhost.options.types import (
    IMAGE,
    AnyText,
    FreeText,
    Items,
    LocalPath,
    OneOf,
    Port,
    Seconds,
    SecretReference,
    ServiceName,
    SomeItems,
    Table,
    Variable,
    text,
)
from llmhost.services.abilities import Abilities
from llmhost.services.base import ROUTE, AnyService, Method, Route, Service, ServiceOptions
from llmhost.system.files import File

Directory = Annotated[
    str, text(r"(/[\w.-]+)+", "an absolute path inside the container", "/app/data")
]
VolumeName = Annotated[
    str,
    text(r"[a-z0-9][a-z0-9_-]{0,40}", "a name of up to 41 lower-case letters and digits", "data"),
]


def _image(value: object) -> object:
    return value if value == "" else IMAGE.read(value)


class AppRoute(Section):
    """A request that the gateway passes on to the app: a path and its methods."""

    path: Annotated[str, text(ROUTE, "a path that begins with a slash", "/api/ask")]
    """Path in the app. `{name}` matches one segment, and `{name...}` at the end one or more, such
    as `/_next/static/{path...}`."""

    methods: SomeItems[OneOf[Method]] = ("GET",)
    """Methods to pass on."""

    scope: OneOf[Literal["inference", "admin"]] = "inference"
    """Scope that a client needs, as in `api_clients`."""


class App(ServiceOptions):
    """A program, from an image or a build context. Like every service it runs as an unprivileged
    user, without capabilities, on a read-only root file system."""

    name: Annotated[
        str,
        text(
            r"(?=.{1,40}$)[a-z0-9]+(-[a-z0-9]+)*",
            "up to 40 lower-case letters and digits, joined by hyphens",
            "backend",
            WORD,
        ),
    ]
    """Name of the app's service: the others reach it at `NAME:CONTAINER_PORT`."""

    image: Annotated[str, Kind(_image, IMAGE.expected, IMAGE.example)] = ""
    """Image, pinned by digest: `registry/name:tag@sha256:…`; or declare `context`."""

    context: LocalPath | None = None
    """Directory on the controller with a Dockerfile whose base images are pinned by digest. Its
    `.dockerignore` applies. A change of any other file in it rebuilds the image."""

    build_args: Table[Variable, AnyText] = Field(default_factory=dict)
    """Build arguments of the Dockerfile (`ARG`), such as `HF_EMBEDDING_MODEL_ID`; they require a
    `context`. A change rebuilds the image. Not for secrets: the image contains them."""

    container_port: Port
    """Port of the app inside the container."""

    health: Annotated[tuple[FreeText, ...], Listed(least=1, repeats=True)]
    """Command inside the container that exits with 0 while the app is healthy, as a list of
    words."""

    start_seconds: Seconds = 120
    """Maximum time to start."""

    routes: Items[AppRoute] = ()
    """Requests that the gateway passes on to the app, below `/NAME`, or at `/` if no service before
    it has routes; they require a `port`."""

    environment: Table[Variable, AnyText] = Field(default_factory=dict)
    """Environment variables. Not for secrets: they are stored in plain text."""

    secrets: Table[Variable, SecretReference] = Field(default_factory=dict)
    """Environment variables with secret values, and where the controller finds each: `env:NAME` or
    `file:PATH`."""

    volumes: Table[VolumeName, Directory] = Field(default_factory=dict)
    """Volumes, by name, and the directory to mount each on. In the image, `user` must own this
    directory."""

    writable: Items[Directory] = ()
    """Additional writable directories, emptied when the container stops; `/tmp` is always
    writable."""

    needs: Items[ServiceName] = ()
    """Services and apps that must be healthy before the app starts."""

    user: Annotated[
        str, text(r"[1-9]\d{0,9}:[1-9]\d{0,9}", "the IDs of a user and a group", "10001:10001")
    ] = "10001:10001"
    """User and group ID of the app's process."""

    @model_validator(mode="after")
    def _made_in_one_way(self) -> "App":
        if bool(self.image) == (self.context is not None):
            what = "has an image and a context" if self.image else "has no image and no context"
            raise Mistake(f"{what}; declare one of them")
        if self.build_args and self.context is None:
            raise Mistake("are given, and the app is not built; declare a context", "build_args")
        both = {*self.environment} & {*self.secrets}
        if both:
            raise Mistake(f"has {min(both)} in environment and in secrets; keep one")
        if self.routes and self.port is None:
            raise Mistake("has routes and no port; declare a port, such as 8100", "port")
        return self

    @property
    def secret_variables(self) -> Mapping[str, str]:
        """The declared `secrets`."""
        return self.secrets

    @property
    def needed_services(self) -> tuple[str, ...]:
        """The declared `needs`."""
        return self.needs

    @property
    def service(self) -> AnyService:
        """The app as an entry of the catalog."""
        found = AppService(
            name=self.name,
            options=App,
            container_port=self.container_port,
            runs=Abilities(tasks=("generate", "embed", "rerank")),
            routes=tuple(Route(each.path, each.methods, each.scope) for each in self.routes),
        )
        return cast("AnyService", found)

    def variables(self, models: Sequence[Model]) -> Mapping[str, str]:
        """Its environment without secrets; the declared one has priority."""
        return {**_QUIET, **(_OFFLINE if models else {}), **self.environment}


LINKS = ".llmhost-links.tar"
"""Links to an app's models, in its build context."""

_QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
_OFFLINE = {
    "HF_HOME": CACHE,
    "TRANSFORMERS_CACHE": CACHE,
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_ALLOW_REMOTE_MODELS": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


class AppService(Service[App]):
    """An app with models for libraries that run in it."""

    def data_volumes(self, options: App) -> Sequence[str]:
        """The declared `volumes`."""
        return tuple(f"{self.name}-{volume}" for volume in sorted(options.volumes))

    def context(self, _options: App, models: Sequence[Model]) -> Iterator[File]:
        """Links to its models."""
        if models:
            yield File(LINKS, cache_archive(models))


def loads_onnx(models: Sequence[Model]) -> bool:
    """Whether ONNX Runtime must load in the app."""
    return any(path.endswith(".onnx") for model in models for path in model.baked)
