"""Every command with --json has a schema in docs/, and what it prints is valid."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from llmhost.backup import (
    BackupKept,
    BackupListReport,
    BackupMade,
    BackupReport,
    RestoreReport,
    VolumeRestored,
)
from llmhost.cli.app import PLACES, command
from llmhost.docs.schemas import SCHEMAS, schema
from llmhost.history.run_record import GroupRun, HistoryReport, Run
from llmhost.making.report import made_report
from llmhost.nvidia.matrix import nvidia_report
from llmhost.status.findings import DoctorReport, Finding
from llmhost.status.logs import request
from llmhost.status.plan import HostPlan, PlanReport, Step
from llmhost.verify.hardening import HardeningReport, Verdict, host_hardening, items
from llmhost.verify.latency import LatencyReport, Report
from tests.unit.test_logs import line

ROOT = Path(__file__).parents[2]
RUN = Run("1", "ann@desk", "2026-11-29T10:00:00Z", "0.2.0", None, modified=True, process=7)
MADE = BackupMade("0123abcd", ("chroma_data",), 4, 4096, 0.5)
KEPT = BackupKept("0123abcd", "llm-1", "2026-11-29T10:00:00Z", ("chroma_data",))
FIGURES = {"bytes": 5, "memory_bytes": 7, "rate": 1.5, "unit": "tokens/s"}
MADE_MODEL = {
    "file": "coder-Q4_K_M.gguf",
    "sha256": "ab" * 32,
    "input": "cd" * 32,
    "tools": {"llama-quantize": "0.7.0 (build 11669)"},
    "report": {"before": FIGURES, "after": FIGURES},
    "evaluations": [
        {
            "measure": "perplexity",
            "reference": "evaluation.txt",
            "sha256": "ef" * 32,
            "before": 20.0,
            "after": 20.4,
            "value": 1.02,
            "limit": 1.05,
        }
    ],
}
PLANS = (
    HostPlan("a", "drift", (Step("Docker", "Run Docker", ("docker.service is stopped",)),)),
    HostPlan("b", "unreachable", errors=("no SSH connection",)),
)
REPORTS: dict[str, Any] = {
    "plan": PlanReport(1, PLANS),
    "history": HistoryReport(
        1,
        (RUN, RUN.ended("failed", "Docker")),
        (GroupRun("1f", {"a": RUN, "b": RUN.ended("done")}),),
        ("c",),
        {"d": "no SSH connection"},
    ),
    "doctor": DoctorReport(1, (Finding("controller.ssh", "missing", "no ssh", "apt install"),)),
    "backup": BackupReport(1, {"llm-1": MADE}, {"llm-2": "no password"}),
    "backup-list": BackupListReport(1, {"llm-1": (KEPT,)}, {}),
    "restore": RestoreReport(
        1, "llm-1", True, "0123abcd", "2026-11-29T10:00:00", {"chroma_data": VolumeRestored(4, 9)}
    ),
    "model-make": made_report({"coder": MADE_MODEL}),
    "nvidia": nvidia_report(date(2026, 11, 29)),
    "latency": LatencyReport(
        1,
        (
            Report("app", "brain", 20, 64, {"first_token_seconds": {"p50": 0.1, "p95": 0.2}}),
            Report("app", "coder", error="the key is refused"),
        ),
    ),
    "verify-hardening": HardeningReport(
        1, (host_hardening("a", "cis", [Verdict(items()[0], "accepted", "a reason")]),)
    ),
}
"""Of commands whose own tests do not compare their output with the schema."""


def with_json(found: Any, name: str) -> Iterator[str]:
    """The commands below this one that have --json, `-` between their words."""
    for inner, each in getattr(found, "commands", {}).items():
        yield from with_json(each, f"{name}-{inner}")
    if any("--json" in option.opts for option in found.params):
        yield name


def test_every_command_with_json_has_a_schema() -> None:
    found = {each for name in PLACES for each in with_json(command(name), name)}
    # The same command with another option prints something else.
    assert {*SCHEMAS} - found == {"announcement", "backup-list", "verify-hardening"}
    assert found - {*SCHEMAS} == {"verify"}  # --hardening only


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_in_the_documentation_is_that_of_the_code(name: str) -> None:
    described = json.loads((ROOT / f"docs/{name}.schema.json").read_text())
    assert described == schema(SCHEMAS[name])


def test_page_for_operators_lists_the_schema_of_every_command() -> None:
    listed = re.findall(r"\]\(([\w-]+)\.schema\.json\)", (ROOT / "docs/operations.md").read_text())
    assert {*SCHEMAS} - {*listed} <= {"announcement"}


def test_no_other_schema_is_in_the_documentation() -> None:
    files = (ROOT / "docs").glob("*.schema.json")
    assert {file.name.removesuffix(".schema.json") for file in files} == {*SCHEMAS}


@pytest.mark.parametrize("name", REPORTS)
def test_output_is_valid(name: str) -> None:
    validator = jsonschema_rs.validator_for(schema(SCHEMAS[name]))
    printed = json.loads(json.dumps(asdict(REPORTS[name]), default=str))
    validator.validate(printed)
    assert not validator.is_valid({**printed, "schema": "one"})


def test_lines_of_logs_are_valid() -> None:
    validator = jsonschema_rs.validator_for(schema(SCHEMAS["logs"]))
    validator.validate({"host": "a", "line": "ready"})
    validator.validate({"host": "a", **(request(line()) or {})})
    assert not validator.is_valid({"host": "a"})
    assert not validator.is_valid({"host": "a", **(request(line(status="fine")) or {})})
