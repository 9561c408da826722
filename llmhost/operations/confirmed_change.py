"""Changes that could lock the operator out: kept only if the controller can connect again.

A script on the host, from templates/trial.sh.j2, applies the change: `load SECONDS` makes the
change and schedules its undo on the host after that time, `confirm` keeps it.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paramiko import SSHException
from pyinfra import host as current_host
from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, State, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.ssh import SSHConnector

from llmhost.operations.connection_arguments import connection_arguments
from llmhost.operations.declaration import Commands

_UNDO_SECONDS = 30
"""Longer than an undo takes after its time has come."""
_CONNECT_SECONDS = 3


@dataclass(frozen=True)
class _Trial:
    """`arrived` is a shell condition: the change was made, or undone again. `contacts` are the
    addresses of the host after the change, empty if they stay the same."""

    script: str
    seconds: int
    arrived: str
    contacts: tuple[str, ...]
    arguments: dict[str, Any]


def on_trial(
    script: str, seconds: int, *, arrived: str = "true", contacts: Sequence[str] = ()
) -> Commands:
    """Load the change of `script`, open a new connection, and confirm.

    If no connection succeeds within `seconds`, the host undoes the change, and `confirm` reports
    it.
    """
    trial = _Trial(script, seconds, arrived, tuple(contacts), connection_arguments(current_host))
    yield FunctionCommand(_try, [trial], {})
    yield StringCommand(f"sh {script} confirm")


def _try(state: State, host: Host, trial: _Trial) -> bool:
    """Load the change, then open a new connection, or wait until the change is undone."""
    load = StringCommand(f"sh {trial.script} load {trial.seconds}")
    try:
        loaded, output = host.run_shell_command(load, **{**trial.arguments, "_timeout": 30})
    except (OSError, SSHException):  # disconnected: the undo restores the access
        return _come_in(state, host, trial)
    if not loaded:
        host.log_styled(output.output, fg="red", log_func=logger.error)
        return False
    return _come_in(state, host, trial)


def _come_in(state: State, host: Host, trial: _Trial) -> bool:
    """Replace the connection with a new one, which `confirm` then uses."""
    begun = time.monotonic()
    old = getattr(host.connector, "client", None)
    port = old.get_transport().getpeername()[1] if old and trial.contacts else 0
    while (waited := time.monotonic() - begun) < trial.seconds + _UNDO_SECONDS:
        # After an undo, the host has its old address.
        moved = trial.contacts if waited <= trial.seconds else ()
        for contact in moved or ("",):
            if _connect(host, contact, port) and _arrived(host, trial):
                if old and isinstance(host.connector, SSHConnector):
                    old.close()
                state.trigger_callbacks("host_connect", host)
                if contact:
                    sentence = f"The host's address is now {contact}: set its ssh_hostname"
                    host.log_styled(sentence, fg="yellow", log_func=logger.warning)
                return True
        time.sleep(0.5)
    sentence = f"The host has been unreachable for {waited:.0f} s: use its console"
    host.log_styled(sentence, fg="red", log_func=logger.error)
    return False


def _connect(host: Host, contact: str, port: int) -> bool:
    """Open a new connection; a loopback address on the controller does not lead to the host."""
    connector = host.connector
    if not isinstance(connector, SSHConnector):
        return True
    _lead(connector, contact, port)
    try:
        connector.disconnect()  # drops the hanging connection
        connector.connect()
    except ConnectError:
        return False
    return True


def _lead(connector: SSHConnector, contact: str, port: int) -> None:
    """Redirect this and all later connections of the run to another address of the same host.

    Replaces only the socket: everything else in the inventory and ssh_config still applies, above
    all the host key.
    """

    def led() -> dict[str, Any]:
        arguments = SSHConnector.make_paramiko_kwargs(connector)
        wire = socket.create_connection((contact, port), timeout=_CONNECT_SECONDS)
        extra = arguments["_pyinfra_ssh_paramiko_connect_kwargs"] or {}
        return {**arguments, "_pyinfra_ssh_paramiko_connect_kwargs": {**extra, "sock": wire}}

    vars(connector).pop("make_paramiko_kwargs", None)
    if contact:
        vars(connector)["make_paramiko_kwargs"] = led


def _arrived(host: Host, trial: _Trial) -> bool:
    """Whether the change was made; an answer to this command proves that the host is reachable."""
    command = StringCommand(trial.arrived)
    try:
        succeeded, _ = host.run_shell_command(command, **{**trial.arguments, "_timeout": 5})
    except (OSError, EOFError, SSHException):
        return False
    return bool(succeeded)
