"""`llmhost usage`: sums of logs, rotated ones included, and what is printed of them."""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from llmhost.docs.schemas import schema
from llmhost.inventory.role import APP_SERVERS
from llmhost.inventory.site import Site
from llmhost.inventory.site_reader import HostData, no_rules, no_site_rules, read_site
from llmhost.resources import FILES, TEMPLATES
from llmhost.status.usage import By, UsageReport, as_csv, entry_hosts, report, usage_command
from tests.unit.test_logs import line

ROOT = Path(__file__).parents[2]
LLMHOST = Path(sys.executable).with_name("llmhost")
DAY = 86_400


def read(log: Path, seconds: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-I", str(FILES / "usage/read.py"), str(log), str(seconds)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of today, of yesterday as logrotate leaves it at first, and of the day before."""
    log = tmp_path / "gateway.json"
    log.write_text(line(client="a") + "\n" + line(client="b")[:-40] + "\n")
    log.with_name("gateway.json.1").write_text(f"{line(DAY, client='a')}\n" * 2)
    packed = log.with_name("gateway.json.2.gz")
    packed.write_bytes(gzip.compress(f"{line(3 * DAY, client='c')}\n".encode() * 3))
    old = time.time() - 2.5 * DAY
    os.utime(packed, (old, old))
    log.with_name("gateway.json-other").write_text("another file\n")
    return log


def test_rotated_and_compressed_logs_are_counted(log: Path) -> None:
    found = read(log)
    days = {row["day"]: row["requests"] for row in found["rows"]}
    today = datetime.now().astimezone()
    assert days == {
        f"{today - timedelta(days=3):%Y-%m-%d}": 3,
        f"{today - timedelta(days=1):%Y-%m-%d}": 2,
        f"{today:%Y-%m-%d}": 1,
    }
    assert found["oldest"][:10] == f"{today - timedelta(days=3):%Y-%m-%d}"


def test_last_request_of_each_client_is_named(log: Path) -> None:
    last = read(log)["last"]
    today = datetime.now().astimezone()
    days = {client: time[:10] for client, time in last.items()}
    # The line of b was cut off.
    assert days == {"a": f"{today:%Y-%m-%d}", "c": f"{today - timedelta(days=3):%Y-%m-%d}"}


def test_only_requests_since_then_are_counted(log: Path) -> None:
    assert sum(row["requests"] for row in read(log, 2 * DAY)["rows"]) == 3
    assert sum(row["requests"] for row in read(log, 3600)["rows"]) == 1
    log.write_text("")
    assert read(log, 3600) == {"oldest": None, "last": {}, "rows": [], "damaged": {}}


@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_file_that_a_power_cut_truncated_is_counted_as_far_as_it_can_be_read(
    log: Path, cut: float
) -> None:
    packed = log.with_name("gateway.json.2.gz")
    lines = [line(3 * DAY + n, client="c", id=f"{n * 7919:x}") for n in range(2000)]
    whole = gzip.compress("\n".join(lines).encode())
    packed.write_bytes(whole[: int(len(whole) * cut)])
    found = read(log)
    of = {name: [r["requests"] for r in found["rows"] if r["client"] == name] for name in "ac"}
    assert sum(of["a"]) == 3 and 2000 * cut * 0.7 < sum(of["c"]) < 2000
    assert [*found["damaged"]] == ["gateway.json.2.gz"] and found["damaged"]["gateway.json.2.gz"]


@pytest.mark.parametrize("content", [b"\0" * 64, b"no gzip", b"\x1f\x8b\x08\0" + b"\xff" * 64])
def test_file_without_its_content_is_reported(log: Path, content: bytes) -> None:
    log.with_name("gateway.json.2.gz").write_bytes(content)
    found = read(log)
    assert sum(row["requests"] for row in found["rows"]) == 3
    assert [*found["damaged"]] == ["gateway.json.2.gz"]


def test_interrupted_compression_is_neither_damage_nor_counted_twice(log: Path) -> None:
    first = log.with_name("gateway.json.1")
    packed = gzip.compress(first.read_bytes())
    first.with_name("gateway.json.1.gz").write_bytes(packed[: len(packed) // 2])
    # logrotate's name for such a file, at the next rotation.
    first.with_name("gateway.json.1.gz-2026112902.backup").write_bytes(packed)
    found = read(log)
    assert sum(row["requests"] for row in found["rows"]) == 6 and not found["damaged"]


def test_each_request_has_one_outcome(tmp_path: Path) -> None:
    log = tmp_path / "gateway.json"
    outcomes = [
        line(),
        line(status=502, refusal="engine_silent"),
        line(status=400),
        line(status=429, refusal="too_many_requests"),
        line(status=499, complete=""),
        line(complete=""),
        line(status=502, refusal="engine_silent", complete=""),
    ]
    log.write_text("".join(f"{each}\n" for each in outcomes))
    [row] = read(log)["rows"]
    assert (row["requests"], row["errors"], row["refused"], row["aborted"]) == (7, 3, 1, 2)
    assert (row["seconds"], row["bytes_in"], row["bytes_out"]) == (10.5, 2100, 6300)


def test_variants_are_told_apart(tmp_path: Path) -> None:
    log = tmp_path / "gateway.json"
    lines = [line(variant="brain/old")] * 9 + [line(variant="brain/new"), line()]
    log.write_text("".join(f"{each}\n" for each in lines))
    found = {row["variant"]: row["requests"] for row in read(log)["rows"]}
    assert found == {"brain/old": 9, "brain/new": 1, "": 1}


def output(*rows: dict[str, Any]) -> str:
    base = {"day": "2026-11-28", "client": "app", "route": "/v1/completions", "requests": 1}
    base |= {"errors": 0, "refused": 0, "aborted": 0, "seconds": 0.5, "bytes_in": 1, "bytes_out": 2}
    base |= {"model": "m", "variant": "m/ollama", "counted": 0, "tokens_in": 0, "tokens_out": 0}
    found = {"oldest": "2026-11-28T00:00:00+00:00", "rows": [base | row for row in rows]}
    return json.dumps({**found, "damaged": {}})


OUTPUTS = {
    "a": output({"requests": 2}, {"day": "2026-11-27", "client": "web"}),
    "b": output(
        {"variant": "m/vllm"},
        {"client": "", "route": "ui:open_webui"},
        {"client": "", "requests": 9},
    ),
}


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        (By.CLIENT, [("", 9), ("app", 3), ("ui:open_webui", 1), ("web", 1)]),
        (By.ROUTE, [("/v1/completions", 13), ("ui:open_webui", 1)]),
        (By.VARIANT, [("m/ollama", 13), ("m/vllm", 1)]),
        (By.DAY, [("2026-11-27", 1), ("2026-11-28", 13)]),
        (By.HOST, [("b", 11), ("a", 3)]),
    ],
)
def test_hosts_are_added_up(by: By, rows: list[tuple[str, int]]) -> None:
    found = report(OUTPUTS, {}, by)
    assert [(row.name, row.requests) for row in found.rows] == rows


def test_one_client_is_told_apart_and_csv_has_a_header() -> None:
    found = report(OUTPUTS, {}, By.HOST, "app")
    parsed = list(csv.DictReader(io.StringIO(as_csv(found), newline="")))
    assert [(row["host"], row["requests"], row["seconds"]) for row in parsed] == [
        ("a", "2", "0.5"),
        ("b", "1", "0.5"),
    ]


def test_schema_of_the_output_is_documented() -> None:
    described = json.loads((ROOT / "docs/usage.schema.json").read_text())
    assert described == schema(UsageReport)
    outputs = OUTPUTS | {"a": OUTPUTS["a"].replace("{}", '{"gateway.json.2.gz": "ended early"}')}
    printed = json.loads(json.dumps(asdict(report(outputs, {"c": "timed out"}, By.CLIENT))))
    assert printed["damaged"] == {"a": {"gateway.json.2.gz": "ended early"}}
    validator = jsonschema_rs.validator_for(described)
    validator.validate(printed)
    printed["rows"][0]["requests"] = "many"
    assert not validator.is_valid(printed)


def site(hosts: dict[str, dict[str, Any]]) -> Site:
    data = {"api_clients": [{"name": "app", "sha256": "cd" * 32}]}
    declared = [
        HostData(name, {**data, **more}, [APP_SERVERS] if name == "app" else [])
        for name, more in hosts.items()
    ]
    return read_site(declared, rules=no_rules, site_rules=no_site_rules)


def test_request_through_a_gateway_is_counted_once() -> None:
    behind: dict[str, Any] = {"gateway_upstreams": [{"name": "llm-1", "address": "192.0.2.1"}]}
    behind["gateway_upstream_services"] = ["llamacpp"]
    found = site({"llm-1": {}, "llm-2": {}, "gate": behind, "app": {}})
    assert entry_hosts(found, ["llm-1", "llm-2", "gate", "app"]) == ["llm-2", "gate"]
    assert entry_hosts(found, ["llm-1"]) == ["llm-1"]
    assert entry_hosts(found, ["app"]) == []


def test_command_runs_in_a_shell() -> None:
    command = usage_command(60).replace("/var/log/nginx/gateway.json", "/nowhere/gateway.json")
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert json.loads(ran.stdout) == {"oldest": None, "last": {}, "rows": [], "damaged": {}}, (
        ran.stderr
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--since", "soon"], "error: --since soon is not an age"), ([], "far: no SSH connection")],
)
def test_mistake_is_one_sentence(unreachable: Path, words: list[str], sentence: str) -> None:
    command = [str(LLMHOST), "usage", str(unreachable), "--json", *words]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.startswith(sentence), ran.stderr


@pytest.mark.parametrize("tokens", ["", ',"model":"m","tokens_in":"3","tokens_out":"5"'])
def test_metrics_are_read_from_the_same_lines(tokens: str) -> None:
    """mtail's expressions are Go's, of which Python understands this one."""
    program = (FILES / "gateway/llmhost.mtail").read_text()
    pattern = re.search(r'^/("client".*)/ \{$', program, re.MULTILINE)
    assert pattern
    template = (TEMPLATES / "gateway/nginx.conf.j2").read_text()
    logged = template.partition("log_format gateway ")[2].partition("access_log")[0]
    names = [*json.loads(line()), "model", "tokens_in", "tokens_out", "day_tokens", "variant"]
    assert re.findall(r'"(\w+)":', logged) == names
    written = line().removesuffix("}") + tokens + "}"
    found = re.search(pattern[1], written)
    assert found and (found["client"], found["seconds"]) == ("app", "1.5")
