"""The journal of a run: records for the host's history, sent to the shell that holds the lock.

When the shell ends, it writes the last record that it received, however the run ended.
"""

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from getpass import getuser
from socket import gethostname
from typing import Any

from llmhost.history.run_record import Result, Run
from llmhost.version import toolkit


@dataclass
class Journal:
    """The run's record, and a function that sends a line to the host. A run without changes or
    failures sends nothing and is not recorded."""

    record: Run
    send: Callable[[str], None]

    def changed(self, operation: str) -> None:
        """Record that an operation is about to change something."""
        self.record = self.record.with_change(operation)
        self.send(self.record.line)

    def ended(self, result: Result, failed: str = "") -> None:
        """Record the end of the run on this host."""
        self.record = self.record.ended(result, failed)
        self.send(self.record.line)

    def resume(self, send: Callable[[str], None]) -> None:
        """Continue over a new connection."""
        self.send = send
        if self.record.changed:
            send(self.record.line)


def new_record(run: str = "") -> Run:
    """The record of a run that starts now, with this identity or else a new one."""
    begun = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    found: Any = toolkit()
    by = f"{getuser()}@{gethostname()}"
    return Run(run or uuid.uuid4().hex, by, begun, **found, process=os.getpid())
