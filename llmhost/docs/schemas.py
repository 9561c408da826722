"""Write the JSON schemas of commands' output into docs/; script/docs calls it."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from llmhost.announce.message import DeployAnnouncement
from llmhost.backup import BackupListReport, BackupReport, RestoreReport
from llmhost.bench.report import BenchReport
from llmhost.bench.side_by_side import CompareReport
from llmhost.history.run_record import HistoryReport
from llmhost.making.report import MadeReport
from llmhost.nvidia.matrix import NvidiaReport
from llmhost.outdated.report import OutdatedReport
from llmhost.resources import PACKAGE
from llmhost.sbom.changes import SbomChanges
from llmhost.status.findings import DoctorReport
from llmhost.status.gpu_history import GpuHistoryReport
from llmhost.status.keys import KeyReport
from llmhost.status.logs import LogLine
from llmhost.status.plan import PlanReport
from llmhost.status.report import StatusReport
from llmhost.status.usage import UsageReport
from llmhost.training.report import TrainReport
from llmhost.verify.hardening import HardeningReport
from llmhost.verify.latency import LatencyReport
from llmhost.vram.report import VramReport

SCHEMAS: dict[str, Any] = {
    "status": StatusReport,
    "usage": UsageReport,
    "gpus": GpuHistoryReport,
    "plan": PlanReport,
    "history": HistoryReport,
    "doctor": DoctorReport,
    "logs": LogLine,
    "backup": BackupReport,
    "backup-list": BackupListReport,
    "restore": RestoreReport,
    "vram": VramReport,
    "nvidia": NvidiaReport,
    "latency": LatencyReport,
    "verify-hardening": HardeningReport,
    "bench": BenchReport,
    "announcement": DeployAnnouncement,
    "outdated": OutdatedReport,
    "key-list": KeyReport,
    "sbom-diff": SbomChanges,
    "model-make": MadeReport,
    "compare": CompareReport,
    "train": TrainReport,
}
"""What `llmhost NAME --json` prints, by name, with `-` before a subcommand or the option that it
needs; and what a webhook gets."""


def schema(printed: Any) -> dict[str, Any]:
    """The JSON schema of a report."""
    return TypeAdapter(printed).json_schema()


def main(directory: Path) -> None:
    """Write `NAME.schema.json` for each command."""
    for name, printed in SCHEMAS.items():
        text = json.dumps(schema(printed), indent=2) + "\n"
        (directory / f"{name}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(PACKAGE.parent / "docs")
