"""Write the JSON schemas of commands' output into docs/; script/docs calls it."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from llmhost.announce.message import DeployAnnouncement
from llmhost.bench.report import BenchReport
from llmhost.outdated.report import OutdatedReport
from llmhost.resources import PACKAGE
from llmhost.sbom.changes import SbomChanges
from llmhost.status.gpu_history import GpuHistoryReport
from llmhost.status.keys import KeyReport
from llmhost.status.report import StatusReport
from llmhost.status.usage import UsageReport

SCHEMAS: dict[str, type] = {
    "status": StatusReport,
    "usage": UsageReport,
    "gpus": GpuHistoryReport,
    "bench": BenchReport,
    "announcement": DeployAnnouncement,
    "outdated": OutdatedReport,
    "key-list": KeyReport,
    "sbom-diff": SbomChanges,
}
"""What `llmhost NAME --json` prints, by name, with `-` before a subcommand; and what a webhook
gets."""


def schema(printed: type) -> dict[str, Any]:
    """The JSON schema of a report."""
    return TypeAdapter(printed).json_schema()


def main(directory: Path) -> None:
    """Write `NAME.schema.json` for each command."""
    for name, printed in SCHEMAS.items():
        text = json.dumps(schema(printed), indent=2) + "\n"
        (directory / f"{name}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(PACKAGE.parent / "docs")
