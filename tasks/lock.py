"""Lock: one deploy at a time."""

from llmhost.operations import lock
from llmhost.operations.component import component
from llmhost.settings import Settings


@component("Lock")
def lock_host(settings: Settings) -> None:
    """Refuse every other deploy of this host until this one ends."""
    lock.locked(settings.receipt.directory, name="Lock the host for this run")
