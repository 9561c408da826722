"""Open WebUI: conversations with the stack's models, in a browser."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from llmhost.options.model import Model
from llmhost.options.types import (
    EngineUrl,
    Flag,
    Image,
    Items,
    LoadSeconds,
    LocalPort,
    MemorySize,
    ModelName,
    Origin,
    Port,
    SecretReference,
    SomeItems,
    text,
)
from llmhost.resources import FILES
from llmhost.services.addresses import services_in
from llmhost.services.base import Request, Service, UiOptions


class OpenWebuiOptions(UiOptions):
    """`open_webui_*`."""

    secret_options: ClassVar[Mapping[str, str]] = {
        "WEBUI_SECRET_KEY": "secret_key",
        "WEBUI_ADMIN_PASSWORD": "admin_password",
    }

    image: Image = (
        "ghcr.io/open-webui/open-webui:v0.10.2"
        "@sha256:9fcea9c6e32ab60b0498f3986c6cdf651ddbe61db48d2213a3d28048ddd673d4"
    )
    """Image of Open WebUI 0.10 or newer with its embedding model, pinned by digest:
    `registry/name:tag@sha256:…`. The default's digest is the one that many public projects pin for
    this tag."""

    port: LocalPort = 8083
    """Port on 127.0.0.1 of the host, where the gateway finds the UI."""

    ui_port: Port = 3000
    """Port of the host where browsers find the UI."""

    memory_limit: MemorySize | None = "4g"
    """Most memory that the container may use, such as `16g`; none: no limit."""

    engine_urls: SomeItems[EngineUrl] = ("http://vllm:8000/v1",)
    """Bases of the OpenAI-compatible interfaces whose models it offers, such as
    `http://ollama:11434/v1`. A host without a dot is a service of the stack, which must then be
    declared."""

    embeddings_url: EngineUrl | None = None
    """Base of an OpenAI-compatible interface that embeds uploaded documents, such as
    `http://embeddings:8080/v1`; none: the model in its image does, on the CPU."""

    embedding_model: ModelName = "embedding"
    """With `embeddings_url`: name of the model that embeds. After a change, documents must be
    uploaded again."""

    secret_key: SecretReference = "file:~/.config/llmhost/open_webui-secret-key"  # noqa: S105
    """Where the key that signs logins is on the controller, `env:NAME` or `file:PATH`. A new key
    ends all logins, and data encrypted with the old one can no longer be read."""

    admin_email: Annotated[
        str, text(r"(?=.{1,254}$)[^\s@]+@[^\s@]+", "an email address", "admin@example.com")
    ] = "admin@localhost"
    """Login of the first administrator."""

    admin_password: SecretReference = "file:~/.config/llmhost/open_webui-admin-password"  # noqa: S105
    """Where the password of the first administrator is on the controller, `env:NAME` or
    `file:PATH`. It is used at the first start only, while there is no account yet."""

    persistent_settings: Flag = False
    """Keep what administrators set in the UI, even if the inventory says otherwise. If False, the
    next deploy recreates the container when one of the inventory's settings was changed."""

    origins: Items[Origin] = ()
    """Addresses that browsers open it at, such as `https://llm-server:3000`: pages of other sites
    may then send it no requests. None: any page may."""

    load_timeout_seconds: LoadSeconds = 600
    """Longest time that it may take to start before the container counts as unhealthy; after an
    update it migrates its database first."""

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
