"""`receipt_*`: the record of what was deployed."""

from llmhost.options.base import Section
from llmhost.options.types import HostPath


class Receipt(Section):
    """Where receipts are kept."""

    directory: HostPath = "/var/lib/llmhost"
    """Directory of the receipts."""

    @property
    def path(self) -> str:
        """The newest receipt."""
        return f"{self.directory}/receipt.json"
