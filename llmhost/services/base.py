"""What the catalogue says of a service; one module beside this one declares each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from llmhost.settings.base import Section
from llmhost.settings.model import Model

Method = Literal["GET", "POST", "PUT", "DELETE", "HEAD"]


@dataclass(frozen=True)
class Route:
    """A request that the gateway passes on: an exact path and its methods."""

    path: str
    methods: tuple[Method, ...]
    scope: Literal["inference", "admin"] = "inference"


class ServiceOptions(Section):
    """Options that every service has; its own module adds to them."""

    image: str
    """Base image of the engine, pinned by digest."""

    port: int = Field(ge=1024, le=65535)
    """Port on 127.0.0.1 of the host."""

    memory_limit: str | None = Field(default=None, pattern=r"^\d+[kmg]$")
    """Most memory the container may use, such as `16g`; none: no limit."""


@dataclass(frozen=True)
class Service:
    """One entry of the catalogue.

    `options` is its settings class, `routes` what the gateway offers, `check_models` returns a
    sentence for each mistake in the models given to it. Its Compose file is
    templates/services/<name>.yaml.j2 and its build context files/images/<name>/.
    """

    name: str
    options: type[ServiceOptions]
    routes: tuple[Route, ...] = ()
    check_models: Callable[[Sequence[Model]], Sequence[str]] = field(default=lambda _models: ())
