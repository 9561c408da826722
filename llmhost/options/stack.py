"""`stack_*`: the Docker Compose project."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import HostPath, LoadSeconds, LocalName, Name, text


class Stack(Section):
    """Where the project is and what it is called."""

    profile: Name | None = None
    """Named list of services with defaults (docs/profiles.md); options in the inventory override
    them."""

    models_lock: LocalName = "models.lock.json"
    """Lock file that `llmhost model lock` writes, on the controller, relative to the directory that
    pyinfra runs in. It pins the models that are not pinned in the inventory."""

    directory: HostPath = "/opt/llmhost"
    """Directory of the Compose project; weights pass through it when an image is built."""

    project: Annotated[
        str,
        text(r"[a-z0-9][a-z0-9_-]*", "lower-case letters, digits, hyphens, underscores", "llmhost"),
    ] = "llmhost"
    """Name of the Compose project."""

    start_timeout_seconds: LoadSeconds = 900
    """Longest wait for the services to become healthy."""

    @property
    def compose_file(self) -> str:
        """Path of the project's root file."""
        return f"{self.directory}/compose.yaml"

    @property
    def uploads(self) -> str:
        """Directory that weights pass through on their way into an image."""
        return f"{self.directory}/uploads"
