"""The record of what was deployed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pyinfra import host

from llmhost import receipt
from llmhost.facts.receipt import Receipts
from llmhost.operations.changes import Commands, declared, explain
from llmhost.operations.files import apply_command


@declared
def written(path: str, record: Mapping[str, Any], images: Sequence[str]) -> Commands:
    """Write `record`, and the host's versions and images, unless the newest receipt says the same.

    `record` is readable for everyone: it must hold no secret. `images` are references. The receipt
    before stays beside the new one.
    """
    found = host.get_fact(Receipts, path=path, images=images)
    wanted = receipt.content(record, found)
    if reasons := receipt.reasons(wanted, found.newest):
        explain(reasons)
        time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        yield apply_command(receipt.entries(path, wanted, time, found))
