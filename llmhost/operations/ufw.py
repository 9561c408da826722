"""ufw, changed so that the operator can not be locked out."""

import time
from typing import Any

from paramiko import SSHException
from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.ssh import SSHConnector

from llmhost import ufw
from llmhost.facts.ufw import Ufw
from llmhost.filetree import UNPACK, File, archive
from llmhost.operations.changes import Commands, declared, explain, refuse
from llmhost.template import render

_TRIAL = f"{ufw.STAGE}/trial.sh"


@declared
def rules(*rules: ufw.Rule, confirm_seconds: int) -> Commands:
    """Admit what the rules name, over IPv4 and IPv6, and nothing else.

    The connection in use is admitted too. New rules replace the old ones at once, connections
    that exist go on; they reach the disk only when the controller has come in again by a new
    connection, and are undone by the host itself if it has not after `confirm_seconds`.
    """
    state = host.get_fact(Ufw)
    if state.other_backend:
        yield refuse([_two_backends(state.other_backend)])
        return
    extra = ufw.lifeline(rules, state.connection)
    wanted = (*rules, *extra)
    files = _files(wanted, state)
    wrong = ufw.drift(files, wanted, state)
    if not wrong:
        return
    explain([*wrong, *(_kept_open(rule) for rule in extra)])
    yield _stage(files)
    yield FunctionCommand(_try, [_connector_arguments(), confirm_seconds], {})
    yield StringCommand(f"sh {_TRIAL} confirm")


def _files(rules: tuple[ufw.Rule, ...], state: ufw.UfwState) -> list[File]:
    files = []
    for version, chain in ((4, "ufw"), (6, "ufw6")):
        openings = ufw.openings(rules, version)
        text = render("firewall/user.rules.j2", chain=chain, openings=openings)
        files.append(File(ufw.USER_RULES[version], text, mode="0640"))
        block = render(
            "firewall/after.rules.j2",
            begin=ufw.BEGIN,
            end=ufw.END,
            uplinks=state.outside_bridges,
            openings=openings,
        )
        after = ufw.AFTER_RULES[version]
        text = ufw.with_block(state.texts.get(after, ""), block)
        files.append(File(after, text, mode="0640"))
    return [
        *files,
        File(ufw.DEFAULTS, render("firewall/ufw.j2")),
        File(ufw.CONFIGURATION, render("firewall/ufw.conf.j2")),
    ]


def _stage(files: list[File]) -> StringCommand:
    """Lay the new configuration out beside the old one and let ufw work out what it amounts to."""
    script = render(
        "firewall/trial.sh.j2",
        stage=ufw.STAGE,
        record=ufw.RECORD,
        unit=ufw.UNDO_UNIT,
        paths=ufw.PATHS,
        sources=ufw.SOURCES,
        normal_form=ufw.NORMAL_FORM,
    )
    contents = {f"{ufw.STAGE}/next{file.path}": file for file in files}
    contents[_TRIAL] = File(_TRIAL, script, mode="0700")
    prepare = (
        f"set -e; mkdir -p -m 0700 {ufw.STAGE}; rm -rf {ufw.STAGE}/next;"
        f" mkdir -p {ufw.STAGE}/next/etc/default; cp -a /etc/ufw {ufw.STAGE}/next/etc/;"
    )
    return StringCommand(f"{prepare} {UNPACK}; sh {_TRIAL} stage", _stdin=archive(contents))


def _connector_arguments() -> dict[str, Any]:
    """How this operation's commands are run (sudo and the like), for a command run by hand."""
    arguments: Any = host.current_op_global_arguments or {}
    return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}


def _try(state: State, host: Host, arguments: dict[str, Any], seconds: int) -> bool:
    """Load the new rules, then come in by a new connection, or wait until they are undone."""
    load = StringCommand(f"sh {_TRIAL} load {seconds}")
    try:
        loaded, output = host.run_shell_command(load, **{**arguments, "_timeout": 30})
    except (OSError, SSHException):  # cut off: the undo will let us in again
        return _reconnect(state, host, seconds)
    if not loaded:
        host.log_styled(output.output, fg="red", log_func=logger.error)
        return False
    return _reconnect(state, host, seconds)


def _reconnect(state: State, host: Host, seconds: int) -> bool:
    """Put a new connection in the place of the present one, which `confirm` then travels over."""
    if not isinstance(host.connector, SSHConnector):
        return True  # nobody came in through the firewall
    deadline = time.monotonic() + seconds + 30
    old = host.connector.client
    while time.monotonic() < deadline:
        try:
            host.connector.disconnect()  # forgets what hangs on the old connection
            host.connector.connect()
        except ConnectError:
            time.sleep(1)
            continue
        if old:
            old.close()
        state.trigger_callbacks("host_connect", host)
        return True
    sentence = f"The host can not be reached since {seconds + 30} s; go to its console"
    host.log_styled(sentence, fg="red", log_func=logger.error)
    return False


def _kept_open(rule: ufw.Rule) -> str:
    client = rule.sources[0].network_address
    return (
        f"port {rule.port}/tcp stays open to {client}, which this deploy comes from and no"
        " declared rule admits"
    )


def _two_backends(other: str) -> str:
    return (
        f"{other} still holds rules of ufw, though iptables is set to another backend by now:"
        " both are in force; reboot the host, then deploy again"
    )
