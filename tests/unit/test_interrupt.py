"""Ctrl-C while a command waits for a host: it ends at once, without a traceback."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import running

COMMANDS = (
    ["status", "site.py"],
    ["plan", "site.py"],
    ["page", "site.py"],
    ["key", "list", "site.py", "--use"],
    ["rollback", "site.py", "silent"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_that_waits_for_a_host_ends(command: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and says nothing
        data = {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": silent.getsockname()[1],
            "services": ["redis"],
            "api_clients": [{"name": "app", "sha256": "cd" * 32}],
        }
        (tmp_path / "site.py").write_text(f"llm_servers = [('silent', {data!r})]\n")
        with running(
            [sys.executable, "-m", "llmhost.cli", *command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            silent.settimeout(60)
            with silent.accept()[0]:
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "KeyboardInterrupt" not in errors + output
