"""One deploy at a time on a host, and an entry in its history (docs/decisions/0007).

A shell on the host holds a lock while its standard input is open: our connection. Whatever ends
the run ends the connection, and with it the lock.
"""

import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from socket import gethostname
from typing import Any

from paramiko import Channel, SSHException
from pyinfra import host
from pyinfra.api import BaseStateCallback, Host, State, StringCommand
from pyinfra.connectors.util import make_unix_command_for_host
from pyinfra.context import ctx_host

from llmhost.history import run_record
from llmhost.history.run_record import Run
from llmhost.operations import fact_prefetch
from llmhost.operations.changes import Commands, declared, on_change, refuse
from llmhost.resources import FILES
from llmhost.version import toolkit

_SCRIPT = FILES / "history/hold.sh"


@dataclass
class _Held:
    """A host that this run holds: what is known of the run, and how to tell the host."""

    run: Run
    send: Callable[[str], None]
    directory: str


_held: dict[Host, _Held] = {}


def _note_change(host: Host) -> None:
    """The present operation is about to change something."""
    if held := _held.get(host):
        held.run = held.run.with_change(_title(host.state, str(host.current_op_hash)))
        held.send(held.run.line)


class _Journal(BaseStateCallback):
    """Tells each held host how the run ended."""

    @staticmethod
    def operation_host_success(
        state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        del state, retry_count
        held = _held.get(host)
        if held and op_hash == host.op_hash_order[-1] and held.run.changed:
            held.run = held.run.ended("done")
            held.send(held.run.line)

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        del retry_count, max_retries
        if held := _held.get(host):
            held.run = held.run.ended("failed", _title(state, op_hash))
            held.send(held.run.line)

    @staticmethod
    def host_connect(state: State, host: Host) -> None:
        """Over a new connection (after a reboot, or a change of the firewall): hold it again."""
        if held := _held.get(host):
            with suppress(OSError, EOFError, SSHException):  # still going down: the next one tries
                _hold_again(state, host, held)


def _hold_again(state: State, host: Host, held: _Held) -> None:
    _, held.send = _open(state, host, held.directory, held.run)
    if held.run.changed:
        held.send(held.run.line)


def _title(state: State, op_hash: str) -> str:
    return str(min(state.get_op_meta(op_hash).names))


@declared
def held(directory: str, *, always: bool = False) -> Commands:
    """Hold this host until the run ends, or refuse to go on while another run holds it.

    In a dry run nothing is held, except with `always`, for commands that execute what they prepare.
    `directory` is where the host keeps its history.
    """
    if always or not _is_dry():
        if problems := held_once(directory):
            yield refuse(problems)
        elif host.state.is_executing:
            fact_prefetch.read(host)  # from here on nobody else deploys


_problems: dict[Host, list[str]] = {}


def held_once(directory: str) -> list[str]:
    """Hold the present host, or say again why it could not be: the facts were read then, so whoever
    came too late stays so."""
    # The host itself: pyinfra's stand-in is one object for all hosts, and as a key it may be taken
    # for another host's.
    here: Host = ctx_host.get()
    if here not in _problems:
        _problems[here] = hold(here.state, here, directory)
    return _problems[here]


def hold(state: State, host: Host, directory: str) -> list[str]:
    """Hold a connected host until this process ends; returns why that can not be, or nothing."""
    run = _run()
    try:
        answer, send = _open(state, host, directory, run)
    except (OSError, EOFError, SSHException) as error:
        why = error or "it ended"
        return [f"the connection to {host.name} was lost ({why}); run this again when it answers"]
    if answer[0] == "taken":
        return [run_record.taken(answer[1], host.name)]
    if answer[0] != "held":
        return [f"the host can not be held for this run: {answer[0] or 'the shell said nothing'}"]
    _held[host] = _Held(run, send, directory)
    if not any(isinstance(handler, _Journal) for handler in state.callback_handlers):
        state.add_callback_handler(_Journal())
        on_change.append(_note_change)
    return []


def _is_dry() -> bool:
    # pyinfra does not tell code of a deploy whether anything will be executed.
    return Path(sys.argv[0]).name != "pyinfra" or "--dry" in sys.argv


def _run() -> Run:
    begun = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    found: Any = toolkit()
    by = f"{getuser()}@{gethostname()}"
    return Run(uuid.uuid4().hex, by, begun, **found, process=os.getpid())


def _open(
    state: State, host: Host, directory: str, run: Run
) -> tuple[list[str], Callable[[str], None]]:
    """Start the holder: its first lines, and how to send it a line."""
    script = _SCRIPT.read_text()
    command = StringCommand("sh", "-c", shlex.join([script, "hold", directory, run.line]))
    arguments = {name: host.data.get(name) for name in ("_sudo", "_sudo_password", "_su_user")}
    raw = make_unix_command_for_host(
        state, host, command, **{name: value for name, value in arguments.items() if value}
    ).get_raw_value()
    client = getattr(host.connector, "client", None)
    return _on_channel(client.get_transport().open_session(), raw) if client else _here(raw)


def _on_channel(channel: Channel, command: str) -> tuple[list[str], Callable[[str], None]]:
    channel.exec_command(command)
    output = channel.makefile("r")

    def send(line: str) -> None:
        try:
            channel.sendall(f"{line}\n".encode())
        except OSError:
            return  # the connection is gone, which pyinfra tells better

    return _answer(output.readline), send


def _here(command: str) -> tuple[list[str], Callable[[str], None]]:
    """On the controller itself (@local)."""
    process = subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    stdin = process.stdin

    def send(line: str) -> None:
        print(line, file=stdin, flush=True)

    return _answer(process.stdout.readline), send


def _answer(readline: Callable[[], str]) -> list[str]:
    word = readline().strip()
    return [word, readline().strip()] if word == "taken" else [word]
