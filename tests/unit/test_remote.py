"""Scripts on this machine, as they would run on another."""

from pathlib import Path

import pytest

from llmhost.cli.remote import LOCAL, Remote, RemoteError, remote

HERE = Remote("build-box", ("sh", "-c"))


def test_script_gets_its_input_and_its_output_comes_back(tmp_path: Path) -> None:
    assert HERE.run("cat; echo \"$0 'quoted'\"", b"given ").endswith("'quoted'\n")
    assert HERE.run("cat", b"given") == "given"
    with (tmp_path / "out").open("wb") as file:
        HERE.save("cat; printf '\\000'", file, b"bytes")
    assert (tmp_path / "out").read_bytes() == b"bytes\0"


def test_input_comes_piece_by_piece(tmp_path: Path) -> None:
    HERE.feed(f"cat >{tmp_path}/file", (bytes([65 + i]) * 70_000 for i in range(3)))
    assert (tmp_path / "file").read_bytes() == b"A" * 70_000 + b"B" * 70_000 + b"C" * 70_000


def test_script_that_fails_is_told_with_its_machine_and_its_last_words() -> None:
    with pytest.raises(RemoteError, match=r"^build-box: no space left$"):
        HERE.run("echo 'no space left' >&2; exit 3")
    with pytest.raises(RemoteError, match=r"^build-box: a command ended with status 3$"):
        HERE.run("exit 3")


def test_script_that_ends_before_its_input_does_is_told() -> None:
    endless = (b"x" * 1_000_000 for _ in range(100))
    with pytest.raises(RemoteError, match="build-box: the disk is full"):
        HERE.feed("head -c 10 >/dev/null; echo 'the disk is full' >&2; exit 1", endless)


def test_ssh_is_given_the_hosts_own_settings() -> None:
    with remote("llm-server", {"ssh_hostname": "192.0.2.7", "ssh_user": "operator"}) as reached:
        text = Path(reached.reach[2]).read_text()
        assert (reached.reach[0], reached.reach[3]) == ("ssh", "192.0.2.7")
    assert "Host 192.0.2.7\n" in text and "User operator" in text
    with remote(LOCAL, {}) as here:
        assert (here.name, here.reach) == ("this machine", ("sh", "-c"))


def test_script_that_may_fail_says_how_it_ended() -> None:
    ended = HERE.attempt("echo answer; echo 'out of memory' >&2; exit 7")
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, b"answer\n", b"out of memory\n")


def test_login_keeps_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22")
    assert HERE.run_as_login('echo "${SSH_CONNECTION%% *}"') == "192.0.2.1\n"
    with pytest.raises(RemoteError, match=r"^build-box: not found$"):
        HERE.run_as_login("echo 'not found' >&2; exit 1")
