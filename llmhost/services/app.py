"""`apps`: programs of the site's own, beside the services of the catalogue."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmhost.options.base import Section
from llmhost.options.kind import WORD, Kind, Listed, Mistake
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
from llmhost.services.base import AnyService, Method, Route, Service, ServiceOptions

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
    """A request that the gateway passes on to the app: an exact path and its methods."""

    path: Annotated[str, text(r"/[\w./~-]*", "a path that begins with a slash", "/api/ask")]
    """Path as the app itself knows it."""

    methods: SomeItems[OneOf[Method]] = ("GET",)
    """Methods that are passed on."""

    scope: OneOf[Literal["inference", "admin"]] = "inference"
    """Scope that a client needs; `api_clients` explains both."""


class App(ServiceOptions):
    """One program, from an image or from a build context. It runs confined like every service: as
    an unprivileged user, without capabilities, on a read-only root file system."""

    name: Annotated[
        str,
        text(
            r"(?=.{1,40}$)[a-z0-9]+(-[a-z0-9]+)*",
            "up to 40 lower-case letters and digits, joined by hyphens",
            "backend",
            WORD,
        ),
    ]
    """Name of its service: the others reach it at `NAME:CONTAINER_PORT`."""

    image: Annotated[str, Kind(_image, IMAGE.expected, IMAGE.example)] = ""
    """Image, pinned by digest: `registry/name:tag@sha256:…`; or declare `context`."""

    context: LocalPath | None = None
    """Directory on the controller with a Dockerfile, whose base images are pinned by digest. Its
    `.dockerignore` applies; the image is rebuilt when any other file in it changes."""

    container_port: Port
    """Port that it listens on inside its container."""

    health: Annotated[tuple[FreeText, ...], Listed(least=1, repeats=True)]
    """Command inside its container that exits with 0 while the app is healthy, as a list of
    words."""

    start_seconds: Seconds = 120
    """Longest time that it may take to start."""

    routes: Items[AppRoute] = ()
    """Requests that the gateway passes on to it, below `/NAME`, or at `/` if no service before it
    has routes; they require a `port`."""

    environment: Table[Variable, AnyText] = Field(default_factory=dict)
    """Environment variables. They are not protected: no secrets."""

    secrets: Table[Variable, SecretReference] = Field(default_factory=dict)
    """Environment variables whose values are secret: where each is on the controller, `env:NAME` or
    `file:PATH`."""

    volumes: Table[VolumeName, Directory] = Field(default_factory=dict)
    """Volumes that outlive its containers, by name, and the directory that each is mounted on. In
    the image this directory must belong to `user`."""

    writable: Items[Directory] = ()
    """Further directories that it may write to while it runs; `/tmp` always is."""

    needs: Items[ServiceName] = ()
    """Services and apps that must be healthy before it starts."""

    user: Annotated[
        str, text(r"[1-9]\d{0,9}:[1-9]\d{0,9}", "the IDs of a user and a group", "10001:10001")
    ] = "10001:10001"
    """IDs of the user and the group that it runs as."""

    @model_validator(mode="after")
    def _made_in_one_way(self) -> "App":
        if bool(self.image) == (self.context is not None):
            what = "has an image and a context" if self.image else "has no image and no context"
            raise Mistake(f"{what}; declare one of them")
        both = {*self.environment} & {*self.secrets}
        if both:
            raise Mistake(f"has {min(both)} in environment and in secrets; keep one")
        if self.routes and self.port is None:
            raise Mistake("has routes and no port; declare a port, such as 8100", "port")
        return self

    @property
    def secret_variables(self) -> Mapping[str, str]:
        """As every service has them."""
        return self.secrets

    @property
    def needed_services(self) -> tuple[str, ...]:
        """As it declares them."""
        return self.needs

    @property
    def service(self) -> AnyService:
        """The app as the catalogue would describe it."""
        return Service(
            name=self.name,
            options=App,
            container_port=self.container_port,
            routes=tuple(Route(each.path, each.methods, each.scope) for each in self.routes),
        )
