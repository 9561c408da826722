"""A host's clock."""

from pyinfra.api import StringCommand

from llmhost.facts.clock import Clock
from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.system import apt
from llmhost.system.clock import TIMESYNCD, ClockState, unsynchronized, wrong_zone, zone_script


@declared(prefetch=lambda *_, **__: [ask(Clock)])
def right(zone: str) -> Commands:
    """Set an IANA time zone and let a daemon synchronize the clock.

    Any of the usual daemons is accepted; if there is none, systemd-timesyncd is used. A container
    uses its host's clock.
    """
    state = get_fact(Clock)
    zone_reason, daemon_reason = wrong_zone(zone, state), unsynchronized(state)
    if zone_reason or daemon_reason:
        explain(reason for reason in (zone_reason, daemon_reason) if reason)
    if zone_reason:
        yield StringCommand(zone_script(zone, file=state.zone_file is not None))
    if daemon_reason:
        yield from _synchronise(state)


def _synchronise(state: ClockState) -> Commands:
    if TIMESYNCD not in state.installed:
        yield StringCommand(apt.script(apt.AptPlan(install=(TIMESYNCD.removesuffix(".service"),))))
    yield StringCommand(f"systemctl enable --quiet --now {TIMESYNCD}")
