"""`receipt_*`: the record of what was deployed."""

from pydantic import Field

from llmhost.options.base import Section


class Receipt(Section):
    """Where receipts are kept."""

    directory: str = Field(default="/var/lib/llmhost", pattern=r"^/[^\s]+$")
    """Directory of the receipts."""

    @property
    def path(self) -> str:
        """The newest receipt."""
        return f"{self.directory}/receipt.json"
