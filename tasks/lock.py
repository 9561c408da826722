"""Hold: one deploy at a time."""

from llmhost.operations import lock
from llmhost.operations.component import component
from llmhost.settings import Settings


@component("Hold")
def hold_host(settings: Settings) -> None:
    """Keep every other deploy away from this host until this one ends."""
    lock.held(settings.receipt.directory, name="Hold the host for this run")
