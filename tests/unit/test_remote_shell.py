"""The shell that checks of a server share. A program in place of ssh runs it on this machine."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmhost.checks.remote_shell import RemoteShell

SSH = """\
#!/bin/sh
shift 3 # -F, the file, the server
echo a login shell may print something
exec sh -c "$*"
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[RemoteShell]:
    with closing(RemoteShell(tmp_path / "config", "server")) as shell:
        yield shell


def test_status_output_and_errors_of_each_command_are_its_own(shell: RemoteShell) -> None:
    assert shell.run("echo one; echo two >&2; exit 3") == (3, b"one\n", b"two\n")
    assert shell.run("printf '\\0\\377\\n\\n'") == (0, b"\0\xff\n\n", b"")
    assert shell.run("true") == (0, b"", b"")


def test_commands_do_not_reach_into_each_other(shell: RemoteShell) -> None:
    shell.run("cd /usr; name=value; exit 1")
    assert shell.run('pwd; echo "$name"') == (0, b"/\n\n", b"")
    assert shell.run("cat") == (0, b"", b""), "no command reads the next one"


def test_long_output_and_long_commands_pass(shell: RemoteShell) -> None:
    status, output, _ = shell.run(f"head -c 3000000 /dev/zero # {'x' * 100_000}")
    assert (status, len(output)) == (0, 3_000_000)


def test_command_that_does_not_end_is_stopped_and_the_next_one_runs(tmp_path: Path) -> None:
    with closing(RemoteShell(tmp_path / "config", "server", seconds=0.2)) as shell:
        with pytest.raises(TimeoutError, match=r"stopped after 0\.2 s: exec sleep 60"):
            shell.run("exec sleep 60")
        assert shell.run("echo next; exit 124") == (124, b"next\n", b"")


def test_lost_connection_is_an_error(shell: RemoteShell) -> None:
    with pytest.raises(RuntimeError, match="connection to the server was lost"):
        shell.run("kill -9 $(ps -o ppid= -p $PPID)")
    with pytest.raises(RuntimeError):
        shell.run("true")


def test_nothing_is_left_behind(shell: RemoteShell, tmp_path: Path) -> None:
    shell.run("true")
    assert list(tmp_path.glob("tmp.*"))
    shell.close()
    assert not list(tmp_path.glob("tmp.*"))
