"""Open WebUI: conversations with the stack's models, in a browser."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from llmhost.options.model import Model
from llmhost.resources import FILES
from llmhost.secret import SecretReference
from llmhost.services.addresses import URL, services_in
from llmhost.services.base import IMAGE, Request, Service, UiOptions

Url = Annotated[str, StringConstraints(pattern=URL)]
Origin = Annotated[str, StringConstraints(pattern=r"^https?://[\w.-]+(:\d+)?$")]


class OpenWebuiOptions(UiOptions):
    """`open_webui_*`."""

    secret_options: ClassVar[Mapping[str, str]] = {
        "WEBUI_SECRET_KEY": "secret_key",
        "WEBUI_ADMIN_PASSWORD": "admin_password",
    }

    image: str = Field(
        default="ghcr.io/open-webui/open-webui:v0.10.2"
        "@sha256:9fcea9c6e32ab60b0498f3986c6cdf651ddbe61db48d2213a3d28048ddd673d4",
        pattern=IMAGE,
    )
    """Image of Open WebUI 0.10 or newer with its embedding model, pinned by digest:
    `registry/name:tag@sha256:…`. The default's digest is the one that many public projects pin for
    this tag."""

    port: int = Field(default=8083, ge=1024, le=65535)
    """Port on 127.0.0.1 of the host, where the gateway finds the UI."""

    ui_port: int = Field(default=3000, ge=1, le=65535)
    """Port of the host where browsers find the UI."""

    memory_limit: str | None = Field(default="4g", pattern=r"^\d+[kmg]$")
    """Most memory the container may use, such as `16g`; none: no limit."""

    engine_urls: tuple[Url, ...] = Field(default=("http://vllm:8000/v1",), min_length=1)
    """Bases of the OpenAI-compatible interfaces whose models it offers, such as
    `http://ollama:11434/v1`. A host without a dot is a service of the stack, which then has to be
    declared."""

    embeddings_url: Url | None = None
    """Base of an OpenAI-compatible interface that embeds uploaded documents, such as
    `http://embeddings:8080/v1`; none: the model in its image does, on the CPU."""

    embedding_model: str = Field(default="embedding", pattern=r"^[\w./:-]+$")
    """With `embeddings_url`: name of the model that embeds. With another one, documents have to be
    uploaded again."""

    secret_key: SecretReference = "file:~/.config/llmhost/open_webui-secret-key"  # noqa: S105
    """Where the key that signs logins is on the controller, `env:NAME` or `file:PATH`. Another key
    ends all logins, and what was encrypted with the old one can not be read any more."""

    admin_email: str = Field(
        default="admin@localhost", pattern=r"^[^\s@]+@[^\s@]+$", max_length=254
    )
    """Login of the first administrator."""

    admin_password: SecretReference = "file:~/.config/llmhost/open_webui-admin-password"  # noqa: S105
    """Where the password of the first administrator is on the controller, `env:NAME` or
    `file:PATH`. It counts at the very first start, as long as there is no account yet."""

    persistent_settings: bool = False
    """Let what administrators set in the UI count more than the inventory, for good; else the next
    deploy makes the container anew where one of the inventory's settings was changed."""

    origins: tuple[Origin, ...] = ()
    """Addresses that browsers find it under, such as `https://llm-server:3000`: pages of other
    sites may then not talk to it. None: any page may try."""

    load_timeout_seconds: int = Field(default=600, ge=10)
    """Longest time it may need to start before the container counts as unhealthy; after an update
    it changes its database first."""

    @property
    def only_https(self) -> bool:
        """Whether browsers may keep the login for encrypted connections alone."""
        return all(origin.startswith("https://") for origin in self.origins)

    @property
    def needed_services(self) -> tuple[str, ...]:
        """Those that its addresses name."""
        return services_in(filter(None, (*self.engine_urls, self.embeddings_url)))


class OpenWebui(Service[OpenWebuiOptions]):
    """A UI that lets its administrators change settings while it runs."""

    def request(self, _models: Sequence[Model]) -> Request:
        """Answered out of its database."""
        return Request("/api/config")

    def changed_settings(self, options: OpenWebuiOptions) -> str:
        """Nothing where administrators may change them."""
        if options.persistent_settings:
            return ""
        return (FILES / "stack/open_webui_settings.py").read_text(encoding="utf-8")


# No route: the UI has a port of its own.
SERVICE = OpenWebui(name="open_webui", options=OpenWebuiOptions, container_port=8080)
