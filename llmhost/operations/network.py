"""Static addresses, changed without the risk of locking the operator out."""

from collections.abc import Sequence

from paramiko import Channel, ProxyCommand
from pyinfra import host
from pyinfra.api import StringCommand

from llmhost.facts.network import HostNetworking
from llmhost.operations.changes import explain, refuse
from llmhost.operations.confirmed_change import on_trial
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.system import addresses as core
from llmhost.system.files import UNPACK, File, archive
from llmhost.template import render

_TRIAL = f"{core.STAGE}/trial.sh"
_CHANGE_UNIT = "llmhost-network-change"
_UNDO_UNIT = "llmhost-network-undo"

_ARRIVED = f"[ ! -e {core.STAGE}/pending ] || [ -e {core.STAGE}/changed ]"


@declared(prefetch=lambda *_, **__: [ask(HostNetworking)])
def addresses(wanted: core.Addressing, *, confirm_seconds: int) -> Commands:
    """Give an interface exactly these addresses and default routes, with netplan or networkd.

    The configuration is first applied from /run, where a reboot discards it. It is saved to disk
    only after the controller has connected again, to the new address if the current one is removed.
    If that does not happen within `confirm_seconds`, the host undoes the change.
    """
    state = get_fact(HostNetworking)
    if not state.macs:
        return  # the host could not be read
    if not state.has_ip:  # only in a dry run: a deploy has installed it before
        explain(["addresses are unknown until iproute2 is installed"])
        yield StringCommand("command -v ip")
        return
    if wrong := core.refusals(wanted, state):
        yield refuse(wrong)
        return
    files = core.files(wanted, state)
    reasons = core.drift(wanted, files, state)
    if not reasons:
        return
    contacts = core.contacts(wanted, state)
    if contacts and _by_a_jump_host():
        what = f"connections to {state.server} would end, and this host is behind a jump host"
        yield refuse([f"{what}: change its address from a controller on the same network"])
        return
    explain([*reasons, *core.moving(wanted, state)])
    yield _stage(wanted, files, state)
    yield from on_trial(_TRIAL, confirm_seconds, arrived=_ARRIVED, contacts=contacts)


def _stage(
    wanted: core.Addressing, files: Sequence[File], state: core.NetworkState
) -> StringCommand:
    """Stage the new configuration beside the old one and check it."""
    script = render(
        "network/trial.sh.j2",
        stage=core.STAGE,
        backup=core.BACKUP,
        unit=_UNDO_UNIT,
        change_unit=_CHANGE_UNIT,
        interface=core.interface_of(wanted, state),
        manager=state.manager,
        moves=bool(core.contacts(wanted, state)),
        paths=[file.path for file in files],
    )
    listed = "".join(f"{address}\n" for address in wanted.addresses)
    contents = {f"{core.STAGE}/next{file.path}": file for file in files}
    contents[_TRIAL] = File(_TRIAL, script, mode="0700")
    contents[f"{core.STAGE}/wanted.addresses"] = File("", listed, mode="0600")
    prepare = f"set -e; mkdir -p -m 0700 {core.STAGE}; rm -rf {core.STAGE}/next;"
    return StringCommand(f"{prepare} {UNPACK}; sh {_TRIAL} stage", _stdin=archive(contents))


def _by_a_jump_host() -> bool:
    """Whether the connection goes through another program or host (ssh_config's Proxy options)."""
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client else None
    return isinstance(getattr(transport, "sock", None), Channel | ProxyCommand)
