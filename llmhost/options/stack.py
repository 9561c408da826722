"""`stack_*`: the Docker Compose project."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import model_validator

from llmhost.options.base import Section
from llmhost.options.kind import Mistake
from llmhost.options.model_source import HUB, OLLAMA_LIBRARY
from llmhost.options.types import (
    Flag,
    HostName,
    Items,
    LoadSeconds,
    LocalName,
    Name,
    Networks,
    OneOf,
    Port,
    Url,
    text,
)


class Destination(Section):
    """Addresses outside the stack that its containers may connect to."""

    networks: Networks
    """Networks or single addresses."""

    port: Port
    """Port at the destination."""

    protocol: OneOf[Literal["tcp", "udp"]] = "tcp"
    """Transport protocol."""

    name: HostName | None = None
    """Name by which containers find the address, because they cannot look up names outside the
    stack. `networks` must then be a single address."""

    @model_validator(mode="after")
    def _one_address_has_the_name(self) -> "Destination":
        if self.name and (len(self.networks) > 1 or self.networks[0].num_addresses > 1):
            raise Mistake(f"gives several addresses the name {self.name}; write one address")
        return self


class Stack(Section):
    """Location and name of the Compose project."""

    profile: Name | None = None
    """Named list of services with defaults (docs/profiles.md); the inventory overrides them."""

    parts: Items[OneOf[Literal["monitoring"]]] = ()
    """Named lists of services with defaults that are added to the services: `monitoring`
    (docs/monitoring.md)."""

    models_lock: LocalName = "models.lock.json"
    """Lock file on the controller, relative to the working directory. `llmhost model lock` writes
    it. It pins models that the inventory does not pin."""

    huggingface_url: Url = HUB
    """URL of Hugging Face, or of a mirror with the same API. Models with `hf:` sources are locked
    and downloaded from there; the digests are checked in any case."""

    ollama_library_url: Url = OLLAMA_LIBRARY
    """URL of Ollama's library, or of a mirror; the same for `ollama:` sources."""

    osv_url: Url | None = "https://api.osv.dev"
    """URL of OSV, or of a mirror. `llmhost outdated` asks it for known vulnerabilities, with the
    names and versions of engines. None: it does not ask."""

    directory: Annotated[
        str,
        text(
            r'/[^\s\x00"$\\]+',
            "an absolute path on the host, without spaces and special characters",
            "/opt/llmhost",
        ),
    ] = "/opt/llmhost"
    """Directory of the Compose project; weights are stored there while an image is built."""

    project: Annotated[
        str,
        text(r"[a-z0-9][a-z0-9_-]*", "lower-case letters, digits, hyphens, underscores", "llmhost"),
    ] = "llmhost"
    """Name of the Compose project."""

    start_timeout_seconds: LoadSeconds = 900
    """Maximum wait until the services are healthy."""

    updates_beside: Flag = True
    """A deploy that changes a service starts its new container beside the running one, if the
    memory is enough for both, so that no request fails (docs/operations.md). `False`: the service
    is interrupted."""

    egress: OneOf[Literal["allow", "deny"]] = "allow"
    """Connections of containers to the outside. `deny`: they reach only other services of the
    stack, the addresses in `stack_egress_allow` and the addresses in URLs of service options, and
    look up only names of services. Profiles set `deny`. A change recreates all containers."""

    egress_allow: Items[Destination] = ()
    """With `stack_egress` = `deny`: what containers may connect to, as records of `networks`,
    `port`, `protocol` (`tcp` or `udp`) and optionally `name`."""

    @property
    def egress_names(self) -> tuple[tuple[str, str], ...]:
        """Names that containers know, and their addresses."""
        pairs = (
            (each.name, str(each.networks[0].network_address))
            for each in self.egress_allow
            if each.name
        )
        return tuple(dict.fromkeys(pairs))

    @property
    def bridge(self) -> str:
        """Name of the network's bridge on the host, by which the rules of `egress` recognize it;
        empty: Docker chooses one. A name of an interface has at most 15 characters."""
        return f"br-{self.project[:12]}" if self.egress == "deny" else ""

    @property
    def hubs(self) -> Mapping[str, str]:
        """The address to use for each hub."""
        return {HUB: self.huggingface_url, OLLAMA_LIBRARY: self.ollama_library_url}

    @property
    def compose_file(self) -> str:
        """Path of the project's root file."""
        return f"{self.directory}/compose.yaml"

    @property
    def uploads(self) -> str:
        """Directory for weights while an image is built."""
        return f"{self.directory}/uploads"

    @property
    def stopped(self) -> str:
        """Directory with a file for each service that an operator stopped."""
        return f"{self.directory}/stopped"
