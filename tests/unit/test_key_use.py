"""`llmhost key list` and `key import`: expiries, last use, and clients of a CSV file."""

import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from typer.testing import CliRunner, Result

from llmhost.cli.key import app
from llmhost.docs.schemas import schema
from llmhost.gateway.keys import digest
from llmhost.inventory.client_csv import CsvMistakes, clients_of
from llmhost.options.gateway import ApiClient
from llmhost.status.keys import KeyReport, Uses, key_report, unused, uses_of

ROOT = Path(__file__).parents[2]
LLMHOST = Path(sys.executable).with_name("llmhost")
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
INVENTORY = """\
# A site.
llm_servers = (
    [("llm", {})],
    {
        "services": [],
        "api_clients": [
            {"name": "app", "sha256": "%s"},  # the main one
        ],
    },
)
"""


def client(name: str = "a", **more: Any) -> ApiClient:
    return ApiClient.model_validate({"name": name, "sha256": "a" * 64, **more})


def uses(days: int | None, begins: int | None = 60) -> Uses:
    last = {} if days is None else {"a": NOW - timedelta(days=days)}
    return Uses(last, None if begins is None else NOW - timedelta(days=begins))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (uses(29), ""),
        (uses(31), "the key of a was last used 2026-10-31"),
        (uses(None), "the key of a was not used for 30 days"),
        (uses(None, 14), "the key of a was not used since 2026-11-17, where the log begins"),
        (uses(None, None), "the key of a was not used: the log is empty"),
    ],
)
def test_unused_key_is_named_with_what_the_log_knows(found: Uses, sentence: str) -> None:
    assert unused(client(), found, MONTH, NOW) == sentence


@pytest.mark.parametrize("ended", [{"revoked": True}, {"expires": "2026-11-30T00:00:00+00:00"}])
def test_key_that_is_no_longer_valid_is_not_unused(ended: dict[str, Any]) -> None:
    assert unused(client(**ended), uses(None), MONTH, NOW) == ""


def test_last_use_is_the_latest_on_any_gateway_and_logs_count_from_the_youngest() -> None:
    outputs = [
        {"oldest": "2026-11-01T00:00:00+09:00", "last": {"a": "2026-11-20T12:00:00+09:00"}},
        {"oldest": "2026-11-10T00:00:00+00:00", "last": {"a": "2026-11-20T04:00:00+00:00"}},
        {"oldest": None, "last": {}},
    ]
    found = uses_of(map(json.dumps, outputs))
    assert found.last == {"a": datetime(2026, 11, 20, 4, tzinfo=UTC)}
    assert found.begins == datetime(2026, 11, 10, tzinfo=UTC)


def test_nothing_is_called_unused_if_the_log_of_a_host_is_missing() -> None:
    clients = {"llm": [client()]}
    assert key_report(clients, NOW, uses(None), MONTH).keys[0].attention
    errors = {"other": "unreachable"}
    assert not key_report(clients, NOW, uses(None), MONTH, errors).keys[0].attention


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "llm.py"
    path.write_text(INVENTORY % ("1" * 64))
    return path


def key(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def listed(inventory: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [str(LLMHOST), "key", "list", str(inventory), *options]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    )


@pytest.mark.parametrize(
    ("days", "status", "sentence"),
    [(40, 0, ""), (3, 2, "! the key of app expires"), (-3, 2, "! the key of app has expired")],
)
def test_expiry_is_warned_of(inventory: Path, days: int, status: int, sentence: str) -> None:
    end = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0).isoformat()
    text = inventory.read_text().replace('"},', f'", "expires": "{end}"}},')
    inventory.write_text(text)
    ran = listed(inventory)
    assert (ran.returncode, ran.stderr) == (status, "")
    assert sentence in ran.stdout and ("!" in ran.stdout) == bool(sentence)
    printed = json.loads(listed(inventory, "--json").stdout)
    described = json.loads((ROOT / "docs/key-list.schema.json").read_text())
    assert described == schema(KeyReport)
    jsonschema_rs.validator_for(described).validate(printed)


def test_host_that_cannot_be_asked_is_an_error(inventory: Path) -> None:
    text = inventory.read_text().replace("{})]", '{"ssh_hostname": "127.0.0.1", "ssh_port": 1})]')
    inventory.write_text(text)
    ran = listed(inventory, "--unused-for", "30d")
    assert ran.returncode == 1 and "llm: " in ran.stderr and "unused" not in ran.stdout
    assert "Traceback" not in ran.stderr
    wrong = listed(inventory, "--unused-for", "monthly")
    assert wrong.stderr.splitlines() == [
        "error: --unused-for monthly is not an age; write one such as 30d"
    ]


CSV = """\
name,scope,sources,requests_per_minute,expires
batch,inference,10.0.0.0/8 192.168.1.0/24,60,2027-01-31T00:00:00+09:00
ui,llamacpp embeddings,,,

"nightly",admin,,5,
"""


def test_clients_of_a_csv_file_are_added_with_keys(inventory: Path, tmp_path: Path) -> None:
    (tmp_path / "clients.csv").write_text(CSV)
    output = tmp_path / "keys.csv"
    result = key("import", tmp_path / "clients.csv", inventory, "-o", output)
    assert result.exit_code == 0, result.output
    assert "llmhost-" not in result.output
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    header, *rows = output.read_text().splitlines()
    keys = dict(row.split(",") for row in rows)
    assert header == "name,key" and [*keys] == ["batch", "ui", "nightly"]
    text = inventory.read_text()
    assert text.startswith("# A site.") and "# the main one" in text
    space: dict[str, Any] = {}
    exec(text, space)  # an inventory is Python
    records = {each["name"]: each for each in space["llm_servers"][1]["api_clients"]}
    assert [*records] == ["app", "batch", "ui", "nightly"]
    assert {name: digest(value) for name, value in keys.items()} == {
        name: records[name]["sha256"] for name in keys
    }
    batch = ApiClient.model_validate(records["batch"])
    assert (batch.requests_per_minute, len(batch.sources or ())) == (60, 2)
    assert ApiClient.model_validate(records["ui"]).scope == ("llamacpp", "embeddings")


def test_keys_go_to_standard_output_without_a_file(inventory: Path, tmp_path: Path) -> None:
    (tmp_path / "clients.csv").write_text("name\nbot\n")
    result = key("import", tmp_path / "clients.csv", inventory)
    assert re.fullmatch(r"name,key\nbot,llmhost-[0-9a-f]{64}\n", result.stdout), result.output


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", ["is empty; write a line with columns such as name,scope,sources"]),
        ("name\n", ["has no client below its first line"]),
        ("nmae\nx\n", ["line 1: 'nmae' is not a column; the columns are", "line 1: column 'name'"]),
        ("name,name\nx,y\n", ["line 1: column 'name' is there twice"]),
        ("name,burst\nx\n", ["line 2: has 1 cells, and the first line 2"]),
        ("name\nx\ny\nx\n", ["line 4: 'x' is also in line 2"]),
        ('name\n"x\n', ["line 2: is not CSV"]),
        (
            "name,burst,expires\nBad Name,1,\nok,many,\nok2,,tomorrow\n",
            [
                "line 2: name: 'Bad Name': is text of 8 characters; write a name",
                "line 3: burst: is 'many'; write a whole number",
                "line 4: expires: 'tomorrow': is text of 8 characters; write a time",
            ],
        ),
        ("name,burst\n,3\n", ["line 2: name"]),
    ],
)
def test_each_wrong_line_is_named(text: str, sentences: list[str]) -> None:
    with pytest.raises(CsvMistakes) as error:
        clients_of(text)
    found = error.value.sentences
    assert len(found) == len(sentences), found
    for sentence, begin in zip(found, sentences, strict=True):
        assert sentence.startswith(begin), sentence


def test_import_is_for_all_clients_or_for_none(inventory: Path, tmp_path: Path) -> None:
    before = inventory.read_text()
    (tmp_path / "clients.csv").write_text("name\nbot\napp\n")
    output = tmp_path / "keys.csv"
    result = key("import", tmp_path / "clients.csv", inventory, "-o", output)
    assert result.exit_code == 1 and "'app' already has a record" in result.output
    assert (inventory.read_text(), output.exists()) == (before, False)
    (tmp_path / "clients.csv").write_text("name,burst\nbot,1\nweb,x\n")
    result = key("import", tmp_path / "clients.csv", inventory)
    assert result.exit_code == 1 and "llmhost-" not in result.output
    assert inventory.read_text() == before


def test_existing_file_is_not_overwritten(inventory: Path, tmp_path: Path) -> None:
    before = inventory.read_text()
    (tmp_path / "clients.csv").write_text("name\nbot\n")
    (tmp_path / "keys.csv").write_text("old")
    result = key("import", tmp_path / "clients.csv", inventory, "-o", tmp_path / "keys.csv")
    assert result.exit_code == 1 and "exists already" in result.output
    assert (inventory.read_text(), (tmp_path / "keys.csv").read_text()) == (before, "old")
