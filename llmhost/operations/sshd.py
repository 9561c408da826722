"""sshd, changed without the risk of locking the operator out."""

from collections.abc import Iterator, Sequence

from pyinfra import host
from pyinfra.api import StringCommand
from pyinfra.connectors.ssh import SSHConnector

from llmhost.facts.sshd import Sshd
from llmhost.operations.changes import explain, note, refuse
from llmhost.operations.confirmed_change import on_trial
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.system import sshd as core
from llmhost.system.files import UNPACK, File, archive, differences
from llmhost.template import render

_TRIAL = f"{core.STAGE}/trial.sh"
_UNLOADED = (
    "sshd has not loaded the changes of others in /etc/ssh, and llmhost does not load them unseen:"
    " run `sshd -t && systemctl restart ssh` and log in again, then deploy"
)
_CORRECT = "run `sshd -t` on the host and correct /etc/ssh, or no one can log in after a restart"
_KEPT = (
    "password login over SSH stays possible, because this run logs in with a password; deploy with"
    " a key to end it"
)

_EXCEPTION = "{}; sshd allows this in spite of the hardening: remove it if nobody needs it"
_SECOND_FACTOR = (
    "password login over SSH stays possible, because '{}' requires a password or a code: set"
    " system_ssh_password_login = True to accept this"
)


@declared(prefetch=lambda *_, **__: [ask(Sshd)])
def settings(level: core.Hardening, *, passwords: bool, confirm_seconds: int) -> Commands:
    """Give sshd the settings of a level of hardening; stricter ones of other files stay.

    Password login ends only if this run has logged in with a key, and not at all with `passwords`.
    New settings are saved to disk only after the controller has logged in again. If that does not
    happen within `confirm_seconds`, the host undoes the change. `off` removes llmhost's file.
    Password login also stays where a second factor needs it. Exceptions for single users are
    reported.
    Without an SSH connection, nothing can be proven, and sshd is left alone. It fails if a running
    sshd cannot read its configuration.
    """
    state = get_fact(Sshd)
    if not isinstance(host.connector, SSHConnector):
        return
    if state.failed and level != "off":
        yield refuse([f"sshd cannot read its configuration ({state.failed}): {_CORRECT}"])
        return
    if not state.effective or not state.others:
        return  # no sshd, or one that does not run
    if state.others_stale:
        note([_UNLOADED])
        return
    if level == "off":
        if state.own:
            explain([f"{core.DROP_IN} must not exist"])
            yield StringCommand(f"rm -f {core.DROP_IN} && {{ {core.LOAD}; }}")
        return
    note(_left_possible(state, passwords=passwords))
    wanted = core.wanted(level, state, passwords=passwords or not _passwords_end(state))
    file = File(core.DROP_IN, core.render(wanted))
    deviations = core.deviations(wanted, state)
    if wrong := differences([file], state.paths):
        explain(deviations or wrong.values())
    elif deviations:
        explain(deviations)
    elif state.stale:
        explain(["sshd has not loaded its changed settings"])
        yield StringCommand(core.LOAD)
        return
    else:
        return
    yield _stage(file, wanted)
    yield from on_trial(_TRIAL, confirm_seconds)


def _passwords_end(state: core.SshdState) -> bool:
    return not core.second_factors(state) and core.passwords_end(state, login_method())


def _left_possible(state: core.SshdState, *, passwords: bool) -> Iterator[str]:
    """Sentences about logins that the settings do not end."""
    yield from map(_EXCEPTION.format, state.exceptions)
    if passwords:
        return
    if factors := core.second_factors(state):
        yield from map(_SECOND_FACTOR.format, factors)
    elif login_method() and not _passwords_end(state):
        yield _KEPT


def login_method() -> str:
    """How this run has logged in: `publickey`, `password`, `keyboard-interactive`, …; empty if the
    connection does not say."""
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client else None
    handler = getattr(transport, "auth_handler", None)
    return str(getattr(handler, "auth_method", "") or "")


def _stage(file: File, wanted: Sequence[core.Setting]) -> StringCommand:
    """Stage the new settings beside those in force, and check them."""
    script = render(
        "system/sshd_trial.sh.j2",
        stage=core.STAGE,
        unit=core.UNDO_UNIT,
        main=core.MAIN,
        own=core.DROP_IN,
        load=core.LOAD,
    )
    lines = "".join(f"{each.in_force}\n" for each in wanted)
    contents = {
        f"{core.STAGE}/next.conf": file,
        f"{core.STAGE}/wanted": File("", lines, mode="0600"),
        _TRIAL: File(_TRIAL, script, mode="0700"),
    }
    prepare = f"set -e; mkdir -p -m 0700 {core.STAGE};"
    return StringCommand(f"{prepare} {UNPACK}; sh {_TRIAL} stage", _stdin=archive(contents))
