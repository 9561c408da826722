"""One deploy at a time on a host (docs/decisions/0007).

A shell on the host holds a lock as long as its standard input, our connection, is open. When the
run ends in any way, the connection ends, and the lock is released.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra import host, logger
from pyinfra.api import BaseStateCallback, Host, State, StringCommand
from pyinfra.context import ctx_host

from llmhost.history import run_record
from llmhost.operations.changes import refuse
from llmhost.operations.connection_arguments import connection_arguments
from llmhost.operations.declaration import Commands, declared
from llmhost.operations.host_channel import LOST, HostChannel, open_channel
from llmhost.operations.journal import Journal, new_record
from llmhost.operations.run_state import add_callbacks, host_run, is_ignored, run_of, title
from llmhost.resources import FILES

_SCRIPT = FILES / "history/lock.sh"


@declared(prefetch=None)
def locked(directory: str) -> Commands:
    """Lock this host until the run ends, or refuse it if another run has locked it.

    Runs only when operations are executed, never in a dry run. `directory` contains the host's
    history. The facts of the run are prefetched once the host is locked.
    """
    if not host.state.is_executing:
        return
    here: Host = ctx_host.get()
    if problems := _acquire(here, directory):
        yield refuse(problems)
    elif failure := host_run(here).prefetch.read(here):
        host.log(f"  reading facts one by one: {failure}")


@dataclass
class HostLock:
    """The lock of one host, with the data to take it again over a new connection. `connection` are
    pyinfra's connector arguments."""

    directory: str
    connection: Mapping[str, Any]
    journal: Journal
    channel: HostChannel

    def take_again(self, host: Host) -> str:
        """Lock the host over a new connection; returns why that failed, or nothing."""
        record = self.journal.record
        self.channel, problem = _start(host, self.directory, self.connection, record)
        self.journal.resume(self.channel.send)
        return problem


def _acquire(host: Host, directory: str) -> list[str]:
    """Lock a connected host until it is disconnected; returns why that failed, or nothing."""
    run = host_run(host)
    if run.lock:
        return []  # two deploy files in one run
    record = new_record(run_record.run_on(run_of(host.state).id, host.name))
    connection = connection_arguments(host)
    try:
        channel, problem = _start(host, directory, connection, record)
    except LOST as error:
        why = str(error) or "it ended"
        return [f"the connection to {host.name} was lost ({why}); rerun the command"]
    if problem:
        return [problem]
    run.lock = HostLock(directory, connection, Journal(record, channel.send), channel)
    add_callbacks(host.state, _Callbacks)
    return []


def _start(
    host: Host, directory: str, connection: Mapping[str, Any], record: run_record.Run
) -> tuple[HostChannel, str]:
    """Start the shell that takes the lock; returns why that failed, or nothing. Raises the
    exceptions in LOST."""
    script = shlex.join([_SCRIPT.read_text(), "lock", directory, record.line])
    channel = open_channel(host, StringCommand("sh", "-c", script), connection)
    answer = channel.read_line().strip()
    if answer == "locked":
        return channel, ""
    if answer == "taken":
        return channel, run_record.taken(channel.read_line().strip(), host.name)
    return channel, not_locked(answer or channel.read_error().strip())


def not_locked(output: str) -> str:
    """Why a host is not locked, from the unexpected output of the shell."""
    if "sudo" in output and "not found" in output:
        return "this host has no sudo: install it, or connect as root without `_sudo`"
    return f"the host cannot be locked: {output or 'the shell printed nothing'}"


class _Callbacks(BaseStateCallback):
    """Updates lock and journal during the run."""

    @staticmethod
    def host_connect(state: State, host: Host) -> None:
        """Lock again over a new connection, such as after a reboot or a change of the firewall."""
        del state
        lock = host_run(host).lock
        if not lock:
            return
        try:
            problem = lock.take_again(host)
        except LOST:
            return  # the host is still shutting down: the next connection tries again
        if problem:
            lost = f"the lock was lost with the connection ({problem}); deploy again after this run"
            host.log_styled(lost, fg="yellow", log_func=logger.warning)

    @staticmethod
    def host_disconnect(state: State, host: Host) -> None:
        del state
        if lock := host_run(host).lock:
            lock.channel.close()

    @staticmethod
    def operation_host_success(
        state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        del state, retry_count
        lock = host_run(host).lock
        if lock and op_hash == host.op_hash_order[-1] and lock.journal.record.changed:
            lock.journal.ended("done")

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        del retry_count, max_retries
        lock = host_run(host).lock
        if lock and not is_ignored(state, host, op_hash):
            lock.journal.ended("failed", title(state, op_hash))
