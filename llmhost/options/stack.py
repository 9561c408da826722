"""`stack_*`: the Docker Compose project."""

from collections.abc import Mapping
from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.model_source import HUB, OLLAMA_LIBRARY
from llmhost.options.types import HostPath, LoadSeconds, LocalName, Name, Url, text


class Stack(Section):
    """Location and name of the Compose project."""

    profile: Name | None = None
    """Named list of services with defaults (docs/profiles.md); the inventory overrides them."""

    models_lock: LocalName = "models.lock.json"
    """Lock file on the controller, relative to the working directory. `llmhost model lock` writes
    it. It pins models that the inventory does not pin."""

    huggingface_url: Url = HUB
    """URL of Hugging Face, or of a mirror with the same API. Models with `hf:` sources are locked
    and downloaded from there; the digests are checked in any case."""

    ollama_library_url: Url = OLLAMA_LIBRARY
    """URL of Ollama's library, or of a mirror; the same for `ollama:` sources."""

    directory: HostPath = "/opt/llmhost"
    """Directory of the Compose project; weights are stored there while an image is built."""

    project: Annotated[
        str,
        text(r"[a-z0-9][a-z0-9_-]*", "lower-case letters, digits, hyphens, underscores", "llmhost"),
    ] = "llmhost"
    """Name of the Compose project."""

    start_timeout_seconds: LoadSeconds = 900
    """Maximum wait until the services are healthy."""

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
