"""ufw, changed without the risk of locking the operator out."""

from pyinfra.api import StringCommand

from llmhost.facts.ufw import Ufw
from llmhost.operations.changes import explain, refuse
from llmhost.operations.confirmed_change import on_trial
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.system import ufw
from llmhost.system.block import with_block
from llmhost.system.files import UNPACK, File, archive
from llmhost.template import render

_TRIAL = f"{ufw.STAGE}/trial.sh"


@declared(prefetch=lambda *_, **__: [ask(Ufw)])
def rules(*rules: ufw.Rule, confirm_seconds: int) -> Commands:
    """Admit only what the rules declare, over IPv4 and IPv6.

    The current connection is also admitted. New rules replace the old ones at once; existing
    connections continue. The rules are saved to disk only after the controller has opened a new
    connection. If that does not happen within `confirm_seconds`, the host undoes the change.
    """
    state = get_fact(Ufw)
    if state.other_backend:
        yield refuse([_two_backends(state.other_backend)])
        return
    extra = ufw.lifeline(rules, state.connection)
    wanted = (*rules, *extra)
    files = rule_files(wanted, state)
    wrong = ufw.drift(files, wanted, state)
    if not wrong:
        return
    explain([*wrong, *(_kept_open(rule) for rule in extra)])
    yield _stage(files)
    yield from on_trial(_TRIAL, confirm_seconds)


def rule_files(rules: tuple[ufw.Rule, ...], state: ufw.UfwState) -> list[File]:
    """All files of ufw with these rules."""
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
        text = with_block(state.texts.get(after, ""), block)
        files.append(File(after, text, mode="0640"))
    return [
        *files,
        File(ufw.DEFAULTS, render("firewall/ufw.j2")),
        File(ufw.CONFIGURATION, render("firewall/ufw.conf.j2")),
    ]


def _stage(files: list[File]) -> StringCommand:
    """Stage the new configuration beside the old one and let ufw generate its rules."""
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


def _kept_open(rule: ufw.Rule) -> str:
    client = rule.sources[0].network_address
    return (
        f"port {rule.port}/tcp stays open to {client}, the address of this deploy, although no"
        " declared rule admits it"
    )


def _two_backends(other: str) -> str:
    return (
        f"{other} still has rules of ufw, but iptables now uses another backend; both rule sets are"
        " in force: reboot the host, then deploy again"
    )
