"""GPUs over time: the question to Prometheus, what becomes of its answer, and the page's curves."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from llmhost.cli.app import app
from llmhost.cli.gpus import curve
from llmhost.docs.schemas import schema
from llmhost.status.gpu_history import GpuHistoryReport, Span, gpu_histories, history_command
from llmhost.status.page import curve as points
from llmhost.status.page import page
from tests.unit.page_sample import GPUS, SCRIPT, overview

ROOT = Path(__file__).parents[2]
SPAN = Span(end=1_000_100, seconds=60, interval_seconds=20)


def _series(host: str, gpu: str, *values: tuple[float, str]) -> dict[str, object]:
    labels = {"instance": host, "gpu": gpu, "UUID": f"GPU-{host}-{gpu}", "modelName": "NVIDIA L4"}
    return {"metric": labels, "values": [list(value) for value in values]}


def test_values_are_put_in_their_place_and_gaps_stay() -> None:
    printed = json.dumps(
        {
            "utilization_percent": [
                _series("b", "1", (1_000_040, "5"), (1_000_100, "7.5")),
                _series("a", "0", (1_000_060, "1")),
            ],
            "power_watts": [_series("b", "1", (1_000_080, "70"))],
        }
    )
    found = gpu_histories(SPAN, printed, ["a", "b"])
    assert [(each.host, each.index) for each in found] == [("a", 0), ("b", 1)]
    assert found[1].utilization_percent == (5.0, None, None, 7.5)
    assert found[1].power_watts == (None, None, 70.0, None)
    assert found[1].temperature_celsius == ()
    assert [each.host for each in gpu_histories(SPAN, printed, ["b"])] == ["b"]


def test_a_long_time_has_longer_steps() -> None:
    week = Span(end=1_000_000, seconds=7 * 86_400, interval_seconds=15)
    assert week.step == 6300 and (week.end - week.begin) // week.step == 96
    assert SPAN.step == 20 and SPAN.begin == 1_000_040


def test_prometheus_that_does_not_answer_is_named() -> None:
    ran = subprocess.run(history_command(SPAN, 9), shell=True, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr.startswith("Prometheus does not answer on port 9: ")


def test_curve_of_a_terminal_is_short_and_shows_gaps() -> None:
    assert curve((0, 50, None, 100)) == "▁▅ █"
    assert len(curve((10.0,) * 97)) <= 32


def test_curve_of_the_page_has_a_line_for_each_part() -> None:
    assert points((0, 50, None, 200), 100) == ["0.0,100.0 33.3,50.0", "100.0,0.0"]
    assert points((1, 2), None) == []


def test_page_draws_the_gpus_whose_past_is_known() -> None:
    text = page(overview())
    assert text.count("<figure") == 1 and text.count("<polyline") == 4 and SCRIPT not in text
    assert "the last 6 h: " in text
    assert "<figure" not in page(overview(gpus=None))


def test_schema_of_the_output_is_documented() -> None:
    described = json.loads((ROOT / "docs/gpus.schema.json").read_text())
    assert described == schema(GpuHistoryReport)
    validator = jsonschema_rs.validator_for(described)
    printed = json.loads(json.dumps(asdict(GPUS)))
    validator.validate(printed)
    printed["gpus"][0]["power_watts"] = ["much"]
    assert not validator.is_valid(printed)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "no host of this inventory keeps metrics; set monitoring_server = True on one"),
        (["--since", "soon"], "--since soon is not an age; write one such as 90m, 6h or 7d"),
    ],
)
def test_mistake_is_one_sentence(tmp_path: Path, options: list[str], sentence: str) -> None:
    site = tmp_path / "site.py"
    site.write_text("hosts = [('far', {'ssh_hostname': '127.0.0.1', 'services': ['redis']})]\n")
    command = [str(Path(sys.executable).with_name("llmhost")), "gpus", str(site), *options]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1 and sentence in ran.stderr.replace("\n", " "), ran.stderr


def test_help_says_where_the_values_come_from() -> None:
    assert "monitoring server" in CliRunner().invoke(app, ["gpus", "--help"]).output
