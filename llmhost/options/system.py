"""`system_*`: the operating system."""

from typing import Annotated, Literal

from pydantic import Field

from llmhost.options.base import Section
from llmhost.options.kind import Kind
from llmhost.options.types import (
    LINE,
    ConfirmSeconds,
    Flag,
    HostPath,
    Items,
    OneOf,
    Table,
    TimeZone,
    text,
    whole,
)

ParameterName = Annotated[
    str,
    text(
        r"[a-z0-9_]+([./][A-Za-z0-9_][A-Za-z0-9_.:-]*)+",
        "the name of a kernel parameter",
        "vm.swappiness",
    ),
]


def _parameter(value: object) -> object:
    """A whole number, or one line of text such as `4096 87380 6291456`."""
    if isinstance(value, str):
        return LINE.read(value)
    return _NUMBER.read(value)


_NUMBER = whole(-(2**63), 2**64 - 1)
ParameterValue = Annotated[
    str | int, Kind(_parameter, "a whole number or one line of text", 1048576)
]


# Not here, because others set them at each boot: log_martians (ufw), fs.suid_dumpable (apport,
# systemd-coredump). Nor those that work depends on: rp_filter with several networks, ptrace_scope
# with CUDA memory that processes share, ip_forward with Docker.
_BASELINE_PARAMETERS = {
    "fs.protected_fifos": "1",
    "fs.protected_hardlinks": "1",
    "fs.protected_regular": "1",
    "fs.protected_symlinks": "1",
    "kernel.dmesg_restrict": "1",
    "kernel.kptr_restrict": "1",
    "kernel.randomize_va_space": "2",
    "net.ipv4.icmp_echo_ignore_broadcasts": "1",
    "net.ipv4.icmp_ignore_bogus_error_responses": "1",
    "net.ipv4.tcp_syncookies": "1",
    **{
        f"net.{family}.conf.{scope}.{name}": "0"
        for family, names in {
            "ipv4": ("accept_redirects", "accept_source_route", "send_redirects"),
            "ipv6": ("accept_redirects", "accept_source_route"),
        }.items()
        for scope in ("all", "default")
        for name in names
    },
}
_CIS_PARAMETERS = {
    **_BASELINE_PARAMETERS,
    "dev.tty.ldisc_autoload": "0",
    "fs.protected_fifos": "2",
    "fs.protected_regular": "2",
    "kernel.core_uses_pid": "1",
    "kernel.kptr_restrict": "2",
    "kernel.sysrq": "0",
    "kernel.unprivileged_bpf_disabled": "1",
    "net.core.bpf_jit_harden": "2",
}
_HARDENED = {"off": {}, "baseline": _BASELINE_PARAMETERS, "cis": _CIS_PARAMETERS}


class System(Section):
    """Time, updates, kernel limits and hardening."""

    timezone: TimeZone = "Etc/UTC"
    """IANA time zone, such as `Asia/Seoul`."""

    unattended_upgrades: Flag = True
    """Install security updates of the distribution every night, without a reboot."""

    apt_lock_timeout_seconds: Annotated[int, whole(0, 3600, "seconds", 300)] = 300
    """Maximum wait of apt for another package manager."""

    sysctl: Table[ParameterName, ParameterValue] = Field(default_factory=dict)
    """Additional kernel parameters, name to value; they override those of llmhost."""

    accepted_overrides: Items[HostPath] = ()
    """Paths of drop-ins, unit files and environment files that change a unit that llmhost relies on
    (such as docker.service) and that a deploy leaves alone. It removes all others, except those of
    packages, drop-ins that only set proxies, and those of sshd; a copy is kept in
    `/var/lib/llmhost/overrides`."""

    hardening: OneOf[Literal["off", "baseline", "cis"]] = "baseline"
    """`baseline`: safe settings of sshd, the kernel, Docker and the services' containers. `cis`:
    what docker-bench-security and lynis ask for in addition, such as auditd. `off`: neither."""

    ssh_password_login: Flag = False
    """Keep password login over SSH. Otherwise hardening ends it as soon as a deploy logs in with a
    key; a deploy that logs in with a password never ends it."""

    confirm_seconds: ConfirmSeconds = 60
    """A change of sshd is reverted unless the controller logs in again within this time."""

    @property
    def kernel_parameters(self) -> dict[str, str]:
        """The parameters in sysctl.d, sorted by name."""
        needed: dict[str, str | int] = {
            # Vector stores and model runtimes map many files: Qdrant and Elasticsearch require it.
            "vm.max_map_count": "1048576",
            # A burst of clients must not overflow the accept queue of nginx.
            "net.core.somaxconn": "4096",
            "fs.inotify.max_user_instances": "1024",
        }
        return {name: str(value) for name, value in sorted({**needed, **self.sysctl}.items())}

    @property
    def hardened_parameters(self) -> dict[str, str]:
        """Further parameters, of the hardening; kernels may lack some of them."""
        known = self.kernel_parameters
        return {
            name: value
            for name, value in sorted(_HARDENED[self.hardening].items())
            if name not in known
        }
