"""Changes that could lock the operator out: tried, and kept only once the controller came back.

What is tried is a script on the host, made from templates/trial.sh.j2: `load SECONDS` makes the
change and has the host undo it after that time, `confirm` keeps it.
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
"""More than an undo takes once its time has come."""
_CONNECT_SECONDS = 3


@dataclass(frozen=True)
class _Trial:
    """`arrived` is a shell condition: the change is made, or undone again. `contacts` are the
    addresses that the host is reached at then, empty if they stay."""

    script: str
    seconds: int
    arrived: str
    contacts: tuple[str, ...]
    arguments: dict[str, Any]


def on_trial(
    script: str, seconds: int, *, arrived: str = "true", contacts: Sequence[str] = ()
) -> Commands:
    """Load the change that `script` makes, come in by a new connection, and confirm.

    If nobody could come in for `seconds`, the host has undone the change, and `confirm` says so.
    """
    trial = _Trial(script, seconds, arrived, tuple(contacts), connection_arguments(current_host))
    yield FunctionCommand(_try, [trial], {})
    yield StringCommand(f"sh {script} confirm")


def _try(state: State, host: Host, trial: _Trial) -> bool:
    """Load the change, then come in by a new connection, or wait until it is undone."""
    load = StringCommand(f"sh {trial.script} load {trial.seconds}")
    try:
        loaded, output = host.run_shell_command(load, **{**trial.arguments, "_timeout": 30})
    except (OSError, SSHException):  # cut off: the undo will let us in again
        return _come_in(state, host, trial)
    if not loaded:
        host.log_styled(output.output, fg="red", log_func=logger.error)
        return False
    return _come_in(state, host, trial)


def _come_in(state: State, host: Host, trial: _Trial) -> bool:
    """Put a new connection in the place of the present one, which `confirm` then travels over."""
    begun = time.monotonic()
    old = getattr(host.connector, "client", None)
    port = old.get_transport().getpeername()[1] if old and trial.contacts else 0
    while (waited := time.monotonic() - begun) < trial.seconds + _UNDO_SECONDS:
        # Once the change is undone, the host is where it was.
        moved = trial.contacts if waited <= trial.seconds else ()
        for contact in moved or ("",):
            if _connect(host, contact, port) and _arrived(host, trial):
                if old and isinstance(host.connector, SSHConnector):
                    old.close()
                state.trigger_callbacks("host_connect", host)
                if contact:
                    told = f"The host is reached at {contact} from now on: set its ssh_hostname"
                    host.log_styled(told, fg="yellow", log_func=logger.warning)
                return True
        time.sleep(0.5)
    sentence = f"The host can not be reached since {waited:.0f} s; go to its console"
    host.log_styled(sentence, fg="red", log_func=logger.error)
    return False


def _connect(host: Host, contact: str, port: int) -> bool:
    """A fresh connection; nobody comes to a host by a network that is the controller itself."""
    connector = host.connector
    if not isinstance(connector, SSHConnector):
        return True
    _lead(connector, contact, port)
    try:
        connector.disconnect()  # forgets what hangs on the old connection
        connector.connect()
    except ConnectError:
        return False
    return True


def _lead(connector: SSHConnector, contact: str, port: int) -> None:
    """Let this and all later connections of the run go to another address of the same host.

    By a socket, because everything else stays what the inventory and ssh_config say of the host:
    above all the key that it has to prove itself with.
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
    """Whether the change is made; an answer to this is what proves that the way in is open."""
    command = StringCommand(trial.arrived)
    try:
        succeeded, _ = host.run_shell_command(command, **{**trial.arguments, "_timeout": 5})
    except (OSError, EOFError, SSHException):
        return False
    return bool(succeeded)
