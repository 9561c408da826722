"""What `llmhost doctor` reports. Imports nothing that is slow to start."""

from dataclasses import dataclass
from typing import Literal

SCHEMA = 1


@dataclass(frozen=True)
class Finding:
    """One line of the report. `id` does not change; `fix` is a command, or what to do."""

    id: str
    state: Literal["ok", "advice", "missing"]
    what: str
    fix: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """The output of `llmhost doctor --json`."""

    schema: int
    findings: tuple[Finding, ...]
