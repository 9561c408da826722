"""`receipt_*`: the record of what was deployed."""

from llmhost.options.base import Section
from llmhost.options.types import HostPath


class Receipt(Section):
    """Location of the receipts."""

    directory: HostPath = "/var/lib/llmhost"
    """Directory of the receipts."""

    @property
    def path(self) -> str:
        """Path of the newest receipt."""
        return f"{self.directory}/receipt.json"
