"""A host's time zone and the service that synchronizes its clock.

Pure: the state comes from facts/clock.py, the commands are run by operations/clock.py.
"""

import shlex
from dataclasses import dataclass

from llmhost.system.virtualization import has_own_clock

ZONES = "/usr/share/zoneinfo"
TIMESYNCD = "systemd-timesyncd.service"
DAEMONS = (TIMESYNCD, "chrony.service", "ntpsec.service", "openntpd.service", "ntp.service")
"""Units that synchronize a clock; their Debian packages conflict with each other."""


@dataclass(frozen=True)
class ClockState:
    """`link` is the target of /etc/localtime, `zone_file` the first line of /etc/timezone (None
    without that file), `daemons` those of DAEMONS that start at boot, `installed` those that exist;
    `is_foreign` is set if another system manages the clock."""

    link: str = ""
    zone_file: str | None = None
    daemons: frozenset[str] = frozenset()
    installed: frozenset[str] = frozenset()
    is_foreign: bool = False


def parse_clock(lines: list[str]) -> ClockState:
    """Lines `link …`, `zone …`, `container NAME` of systemd-detect-virt, and `unit NAME STATE` of
    systemctl list-unit-files."""
    containers = [
        line.removeprefix("container ") for line in lines if line.startswith("container ")
    ]
    units = [line.split()[1:3] for line in lines if line.startswith("unit ")]
    zones = [line.removeprefix("zone ") for line in lines if line.startswith("zone ")]
    links = [line.removeprefix("link ") for line in lines if line.startswith("link ")]
    return ClockState(
        link="".join(links),
        zone_file=zones[0] if zones else None,
        daemons=frozenset(unit for unit, state in units if state == "enabled"),
        installed=frozenset(unit for unit, _ in units),
        is_foreign=not all(map(has_own_clock, containers)),
    )


def wrong_zone(zone: str, state: ClockState) -> str:
    """Why the time zone is not as declared; empty if it is."""
    found = state.link.partition("/zoneinfo/")[2] or "UTC"  # the default of localtime(5)
    if found != zone:
        return f"the time zone is {found}, not {zone}"
    if state.zone_file not in (None, zone):
        return f"/etc/timezone is {state.zone_file}, not {zone}"
    return ""


def unsynchronized(state: ClockState) -> str:
    """Why the clock may be wrong; empty if it is synchronized, or not the host's own."""
    return "" if state.is_foreign or state.daemons else "no service synchronizes the clock"


def zone_script(zone: str, *, file: bool) -> str:
    """Shell script that sets the time zone; `file`: in /etc/timezone too."""
    target = shlex.quote(f"{ZONES}/{zone}")
    lines = [
        f"[ -e {target} ] ||"
        f" {{ echo The package tzdata of this host has no time zone {shlex.quote(zone)} >&2;"
        " exit 1; }",
        # One rename, so that no process finds the link missing.
        f"ln -sfn {target} /etc/.localtime.llmhost-new",
        "mv -fT /etc/.localtime.llmhost-new /etc/localtime",
    ]
    lines += [f"printf '%s\\n' {shlex.quote(zone)} > /etc/timezone"] if file else []
    return "set -e\n" + "\n".join(lines)
