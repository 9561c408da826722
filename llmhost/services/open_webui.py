"""Open WebUI: chat with the stack's models in a browser."""

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
from llmhost.services.base import Request, Service, UiOptions


class OpenWebuiOptions(UiOptions):
    """`open_webui_*`."""

    secret_options: ClassVar[Mapping[str, str]] = {
        "WEBUI_SECRET_KEY": "secret_key",
        "WEBUI_ADMIN_PASSWORD": "admin_password",
    }

    image: Image = (
        "ghcr.io/open-webui/open-webui:v0.11.4"
        "@sha256:9591b13f13843c7721c2b8eaf7382846c81b3ffe126526d1888d1fed50c6a33f"
    )
    """Image of Open WebUI 0.10 or newer with its embedding model, pinned by digest."""

    port: LocalPort = 8083
    """Port on 127.0.0.1 of the host, between the gateway and the UI."""

    ui_port: Port = 3000
    """Port of the UI for browsers."""

    memory_limit: MemorySize | None = "4g"
    """Memory limit of the container, such as `16g`; none: no limit."""

    engine_urls: SomeItems[EngineUrl] = ("http://vllm:8000/v1",)
    """Base URLs of OpenAI-compatible APIs, such as `http://ollama:11434/v1`; the UI offers their
    models. A host without a dot is a service of the stack and must be declared."""

    embeddings_url: EngineUrl | None = None
    """Base URL of an OpenAI-compatible API that embeds uploaded documents, such as
    `http://embeddings:8080/v1`; none: the model in the image, on the CPU."""

    embedding_model: ModelName = "embedding"
    """With `embeddings_url`: name of the embedding model. After a change, upload the documents
    again."""

    secret_key: SecretReference = "file:~/.config/llmhost/open_webui-secret-key"  # noqa: S105
    """Where the controller finds the key that signs logins, `env:NAME` or `file:PATH`. A new key
    ends all sessions, and data encrypted with the old one becomes unreadable."""

    admin_email: Annotated[
        str, text(r"(?=.{1,254}$)[^\s@]+@[^\s@]+", "an email address", "admin@example.com")
    ] = "admin@localhost"
    """Login of the first administrator."""

    admin_password: SecretReference = "file:~/.config/llmhost/open_webui-admin-password"  # noqa: S105
    """Where the controller finds the password of the first administrator, `env:NAME` or
    `file:PATH`. It is used only at the first start, while there are no accounts."""

    persistent_settings: Flag = False
    """Keep settings that administrators change in the UI. If False, the next deploy recreates the
    container with the settings of the inventory."""

    origins: Items[Origin] = ()
    """URLs of the UI in browsers, such as `https://llm-server:3000`; requests from pages of other
    sites are refused. None: all sites are allowed."""

    load_timeout_seconds: LoadSeconds = 600
    """Maximum time to start; after that the container is unhealthy. The first start after an update
    includes the migration of the database."""

    @property
    def only_https(self) -> bool:
        """Whether browsers may restrict the login cookie to encrypted connections."""
        return all(origin.startswith("https://") for origin in self.origins)

    @property
    def urls(self) -> tuple[str, ...]:
        """Those of the engines and of the embeddings."""
        return tuple(filter(None, (*self.engine_urls, self.embeddings_url)))


class OpenWebui(Service[OpenWebuiOptions]):
    """A UI that lets its administrators change settings while it runs."""

    def request(self, _models: Sequence[Model]) -> Request:
        """A request that needs its database."""
        return Request("/api/config")

    def data_volumes(self, _options: OpenWebuiOptions) -> Sequence[str]:
        """Accounts, chats, uploaded documents and their vectors."""
        return ("open_webui-data",)

    def changed_settings(self, options: OpenWebuiOptions) -> str:
        """Empty if administrators may change settings."""
        if options.persistent_settings:
            return ""
        return (FILES / "stack/open_webui_settings.py").read_text(encoding="utf-8")


# No route: the UI has its own port. Many public projects pin the digest of the default image for
# its tag.
SERVICE = OpenWebui(name="open_webui", options=OpenWebuiOptions, container_port=8080)
