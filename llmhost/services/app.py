"""`apps`: programs of the site's own, beside the services of the catalogue."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from llmhost.options.base import Section
from llmhost.secret import SecretReference
from llmhost.services.base import IMAGE, AnyService, Method, Route, Service, ServiceOptions

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Directory = Annotated[str, StringConstraints(pattern=r"^(/[\w.-]+)+$")]
VolumeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]


class AppRoute(Section):
    """A request that the gateway passes on to the app: an exact path and its methods."""

    path: str = Field(pattern=r"^/[\w./~-]*$")
    """Path as the app itself knows it."""

    methods: tuple[Method, ...] = ("GET",)
    """Methods that are passed on."""

    scope: Literal["inference", "admin"] = "inference"
    """Clients of which scope may ask; `api_clients` explains both."""


class App(ServiceOptions):
    """One program, from an image or from a build context. It runs confined like every service: as
    an ordinary user, without capabilities, on a read-only root."""

    name: str = Field(max_length=40, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """Name of its service: the others find it as `NAME:CONTAINER_PORT`."""

    image: str = Field(default="", pattern=rf"^$|{IMAGE}")
    """Image, pinned by digest: `registry/name:tag@sha256:…`; or give `context`."""

    context: Path | None = None
    """Directory on the controller with a Dockerfile, whose base images are pinned by digest. Its
    `.dockerignore` is heeded; the image is built anew when another file of it changes."""

    container_port: int = Field(ge=1, le=65535)
    """Port that it listens on inside its container."""

    health: tuple[str, ...] = Field(min_length=1)
    """Command inside its container that ends with 0 while the app is well, as a list of words."""

    start_seconds: int = Field(default=120, ge=1)
    """Longest time that it may need to start."""

    routes: tuple[AppRoute, ...] = ()
    """What the gateway passes on to it, below `/NAME`, or at `/` if no service before it has any;
    the app needs a `port` for it."""

    environment: Mapping[Variable, str] = Field(default_factory=dict)
    """Environment variables, to be read by everybody: no secrets."""

    secrets: Mapping[Variable, SecretReference] = Field(default_factory=dict)
    """Environment variables whose values are secret: where each is on the controller, `env:NAME` or
    `file:PATH`."""

    volumes: Mapping[VolumeName, Directory] = Field(default_factory=dict)
    """Volumes that outlive its containers, by name, and the directory that each is mounted on. In
    the image this directory has to belong to `user`."""

    writable: tuple[Directory, ...] = ()
    """Further directories that it may write to until it ends; `/tmp` is one already."""

    needs: tuple[str, ...] = ()
    """Services and apps that have to be healthy before it starts."""

    user: str = Field(default="10001:10001", pattern=r"^[1-9]\d*:[1-9]\d*$")
    """Numbers of the user and the group that it runs as."""

    @model_validator(mode="after")
    def _made_in_one_way(self) -> "App":
        if bool(self.image) == (self.context is not None):
            raise ValueError("needs an image or a context, and not both: give one of them")
        both = {*self.environment} & {*self.secrets}
        if both:
            raise ValueError(f"has {min(both)} in environment and in secrets: keep one")
        if self.routes and self.port is None:
            raise ValueError("has routes and no port: give the gateway a port to reach it at")
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
