"""`stack_*`: the Docker Compose project."""

from pydantic import Field

from llmhost.options.base import Section


class Stack(Section):
    """Where the project lives and how it is named."""

    profile: str | None = None
    """Named list of services with defaults (docs/profiles.md); what the inventory says itself
    counts more."""

    models_lock: str = Field(default="models.lock.json", min_length=1)
    """Lock file that `llmhost model lock` writes, on the controller, relative to where pyinfra is
    run. Models that are not pinned in the inventory are pinned there."""

    directory: str = Field(default="/opt/llmhost", pattern=r"^/[^\s]+$")
    """Directory of the Compose project; weights pass through it when an image is built."""

    project: str = Field(default="llmhost", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the Compose project."""

    start_timeout_seconds: int = Field(default=900, ge=10)
    """Longest wait for the services to become healthy."""

    @property
    def compose_file(self) -> str:
        """Path of the project's root file."""
        return f"{self.directory}/compose.yaml"

    @property
    def uploads(self) -> str:
        """Directory that weights pass through on their way into an image."""
        return f"{self.directory}/uploads"
