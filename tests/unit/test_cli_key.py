"""`llmhost key`, as a person types it."""

import re
import stat
import subprocess
import sys
from ast import literal_eval
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmhost.cli.key import app
from llmhost.gateway.keys import digest

INVENTORY = """\
hosts = (
    [("llm", {})],
    {
        "api_clients": [
            {"name": "app", "sha256": "%s"},  # the main one
        ],
    },
)
"""

OLD = "1" * 64


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "llm.py"
    path.write_text(INVENTORY % OLD)
    path.chmod(0o640)
    return path


def key(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shown_key(result: Result) -> str:
    assert result.exit_code == 0, result.output
    [shown] = re.findall(r"llmhost-[0-9a-f]{64}", result.output)
    return str(shown)


def test_new_key_comes_with_its_line_for_the_inventory() -> None:
    result = key("new", "bot")
    line = result.stdout.splitlines()[-1].rstrip(",")
    assert literal_eval(line) == {"name": "bot", "sha256": digest(shown_key(result))}


def test_new_key_alone_goes_down_a_pipe(inventory: Path) -> None:
    result = key("new", "bot", inventory)
    assert result.stdout.strip() == shown_key(result)


def test_new_client_is_written_into_the_inventory(inventory: Path) -> None:
    made = shown_key(key("new", "bot", inventory))
    expected = f'# the main one\n            {{"name": "bot", "sha256": "{digest(made)}"}},'
    assert expected in inventory.read_text()
    assert made not in inventory.read_text()
    assert stat.S_IMODE(inventory.stat().st_mode) == 0o640
    assert [path.name for path in inventory.parent.iterdir()] == ["llm.py"]


def test_name_that_would_not_deploy_is_refused() -> None:
    result = key("new", "My Bot")
    assert result.exit_code == 1
    assert "is not a name of a client" in result.output and "llmhost-" not in result.output


def test_existing_client_gets_no_second_record(inventory: Path) -> None:
    result = key("new", "app", inventory)
    assert result.exit_code == 1
    assert "to replace a key" in result.output and "llmhost-" not in result.output
    assert inventory.read_text() == INVENTORY % OLD


def test_rotation_keeps_the_old_key_for_a_while(inventory: Path) -> None:
    made = shown_key(key("rotate", "app", inventory, "--keep-days", "2"))
    text = inventory.read_text()
    assert f'"sha256": "{digest(made)}", "previous_sha256": "{OLD}"' in text
    [until] = re.findall(r'"previous_until": "([^"]+)"', text)
    left = datetime.fromisoformat(until) - datetime.now(UTC)
    assert timedelta(days=2, minutes=-1) < left <= timedelta(days=2)


def test_revoked_client_stays_known(inventory: Path) -> None:
    assert key("revoke", "app", inventory).exit_code == 0
    assert f'{{"name": "app", "sha256": "{OLD}", "revoked": True}},  # the main' in (
        inventory.read_text()
    )


@pytest.mark.parametrize("command", ["rotate", "revoke"])
def test_unknown_client_is_told(inventory: Path, command: str) -> None:
    result = key(command, "nobody", inventory)
    assert result.exit_code == 1
    assert "no record of 'nobody'" in result.output.replace("\n", " ")


def test_missing_file_is_told(tmp_path: Path) -> None:
    result = key("revoke", "app", tmp_path / "none.py")
    assert result.exit_code == 1
    assert "No such file" in result.output.replace("\n", " ")


def test_list_shows_who_may_call(inventory: Path) -> None:
    key("revoke", "app", inventory)
    # Reading an inventory patches sockets and threads: in a process of its own.
    command = [sys.executable, "-m", "llmhost.cli", "key", "list", str(inventory)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "app" in result.stdout and "revoked" in result.stdout and OLD[:8] in result.stdout
    assert OLD not in result.stdout
