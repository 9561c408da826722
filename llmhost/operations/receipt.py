"""The record of what was deployed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pyinfra.api import StringCommand

from llmhost.facts.receipt import Receipts
from llmhost.history import receipt, rollback
from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command


@declared(prefetch=lambda path, record, images, **_: [ask(Receipts, path=path, images=images)])
def written(
    path: str, record: Mapping[str, Any], images: Sequence[str], keep: rollback.DeployPaths
) -> Commands:
    """Write `record` with the host's versions and images, unless the newest receipt is equal.

    `record` is readable by everyone: it must not contain a secret. `images` are references. The
    previous receipt is archived beside the new one. The deploy is kept for a rollback first, so
    that the next run repeats this after an interruption in between.
    """
    found = get_fact(Receipts, path=path, images=images)
    wanted = receipt.content(record, found)
    reasons = receipt.reasons(wanted, found.newest)
    if reasons:
        explain(reasons)
        time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        text = receipt.text({"time": time, **wanted})
        yield StringCommand(rollback.keep_script(text, keep), _stdin=text)
        yield apply_command(receipt.entries(path, text, found))
        return
    wrong = receipt.misplaced(path, found)
    lost = rollback.name_of(found.newest) not in found.kept
    if wrong or lost:
        kept = ["the current deploy is not kept for a rollback"] if lost else []
        explain([*wrong.values(), *kept])
    if wrong:
        yield apply_command(list(wrong))
    if lost:
        yield StringCommand(rollback.keep_script(found.newest, keep), _stdin=found.newest)
