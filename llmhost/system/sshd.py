"""Settings of sshd as declared, compared with those in force.

Pure: the state comes from facts/sshd.py, the commands are run by operations/sshd.py.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmhost.system.files import PathState

Hardening = Literal["off", "baseline", "cis"]

MAIN = "/etc/ssh/sshd_config"
DROP_IN = "/etc/ssh/sshd_config.d/00-llmhost.conf"
"""sshd uses the first value that it finds, so the file comes before those of others."""

STAGE = "/run/llmhost-sshd"
"""Directory of new settings during their trial; on a tmpfs, so that a reboot ends the trial."""

LOAD = """\
if systemctl --quiet is-active ssh.socket; then
    systemctl try-restart ssh.service
elif systemctl --quiet is-active ssh.service; then
    systemctl reload ssh.service
else
    pkill -HUP -f '^sshd: .*\\[listener\\]' || :
fi"""
"""Shell commands by which sshd loads its settings. On a reload, an sshd that its socket starts
(Ubuntu since 22.10) ends: it cannot bind the port. Sessions survive a restart. One that systemd
does not know of gets the signal of a reload."""

UNDO_UNIT = "llmhost-sshd-undo"
BANNER = "/etc/issue.net"

KEY = "publickey"
"""The method of a login with a key (RFC 4252)."""


@dataclass(frozen=True)
class Setting:
    """One keyword of sshd_config(5). `accepts` says of another value, as `sshd -T` prints it,
    whether it is at least as strict; `shown` is the value in that output, if it differs."""

    keyword: str
    value: str
    accepts: Callable[[str], bool]
    shown: str = ""

    @property
    def line(self) -> str:
        return f"{self.keyword} {self.value}\n"

    @property
    def in_force(self) -> str:
        """The line that `sshd -T` prints."""
        return f"{self.keyword.lower()} {self.shown or self.value}"


@dataclass(frozen=True)
class SshdState:
    """Values by keyword in lower case: `effective` with all files, `others` without DROP_IN; empty
    on a host without sshd. `own` is DROP_IN's text. `stale`: it changed since sshd loaded it;
    `others_stale`: another file did. `failed` says why a running sshd could not be read. `methods`
    are the lines with AuthenticationMethods of all files, `exceptions` what blocks of Match allow
    again."""

    effective: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    own: str = ""
    paths: Mapping[str, PathState] = field(default_factory=dict)
    stale: bool = False
    others_stale: bool = False
    failed: str = ""
    methods: Sequence[str] = ()
    exceptions: Sequence[str] = ()


def _no(keyword: str) -> Setting:
    return Setting(keyword, "no", lambda value: value == "no")


def _at_most(keyword: str, limit: int) -> Setting:
    """Zero means no limit."""
    return Setting(keyword, str(limit), lambda value: 0 < int(value) <= limit)


NO_PASSWORDS = (
    _no("PasswordAuthentication"),
    _no("KbdInteractiveAuthentication"),
    Setting(
        "PermitRootLogin", "prohibit-password", lambda value: value != "yes", "without-password"
    ),
)
"""Only after a login with a key."""

_BASELINE = (
    _no("PermitEmptyPasswords"),
    _no("X11Forwarding"),
    # Not less: clients offer every key of their agent.
    _at_most("MaxAuthTries", 6),
    _at_most("LoginGraceTime", 60),
)
_CIS = (
    _no("PermitEmptyPasswords"),
    _no("X11Forwarding"),
    _no("AllowAgentForwarding"),
    _no("Compression"),
    _at_most("MaxAuthTries", 4),
    _at_most("LoginGraceTime", 60),
    _at_most("ClientAliveInterval", 300),
    _at_most("ClientAliveCountMax", 2),
    Setting("MaxStartups", "10:30:60", lambda value: int(value.split(":")[-1]) <= 60),
    Setting("LogLevel", "VERBOSE", lambda value: value.startswith(("VERBOSE", "DEBUG"))),
    Setting("Banner", BANNER, lambda value: value != "none"),
)
_LEVELS: Mapping[Hardening, Sequence[Setting]] = {"off": (), "baseline": _BASELINE, "cis": _CIS}


def passwords_end(state: SshdState, method: str) -> bool:
    """Whether to end password login: this run has logged in with a key, or an earlier one has and
    this one does not use a password. `method` is that of the connection, empty if unknown."""
    ended = NO_PASSWORDS[0].line in state.own
    return method == KEY or (ended and not method)


def second_factors(state: SshdState) -> list[str]:
    """Lines that require a password beside or instead of a key: without password login, the users
    of these lines would be locked out."""
    return [line for line in state.methods if re.search(r"password|keyboard-interactive", line)]


def wanted(level: Hardening, state: SshdState, *, passwords: bool) -> tuple[Setting, ...]:
    """The settings of DROP_IN: those that the other files do not already set as strictly, and that
    this sshd knows. `passwords`: password login stays."""
    settings = _LEVELS[level]
    if settings and not passwords:
        settings = (*NO_PASSWORDS, *settings)
    return tuple(
        each
        for each in settings
        if each.keyword.lower() in state.others
        and not each.accepts(state.others[each.keyword.lower()])
    )


def render(settings: Sequence[Setting]) -> str:
    """Text of DROP_IN."""
    lines = "".join(each.line for each in settings)
    return f"# Managed by llmhost: edit the inventory instead.\n{lines}"


def deviations(settings: Sequence[Setting], state: SshdState) -> list[str]:
    """Sentences about settings that are not in force."""
    found = ((each, state.effective.get(each.keyword.lower(), "")) for each in settings)
    return [
        f"sshd has {each.keyword} {value}, not {each.value}"
        for each, value in found
        if not each.accepts(value)
    ]


def parse_values(lines: Sequence[str]) -> dict[str, str]:
    """Output of `sshd -T`; OpenSSH 10.6 writes keywords with capital letters."""
    return {key.lower(): value for key, _, value in (line.partition(" ") for line in lines)}
