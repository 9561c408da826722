"""The SSH connection, which all other checks require."""

from typing import Any


def test_server_answers_and_commands_run_as_root(host: Any) -> None:
    assert host.run("id -u").stdout.strip() == "0"
