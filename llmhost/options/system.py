"""`system_*`: the operating system."""

from typing import Annotated

from pydantic import Field

from llmhost.options.base import Section
from llmhost.options.kind import Kind
from llmhost.options.types import LINE, Flag, HostPath, Items, Table, TimeZone, text, whole

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


class System(Section):
    """Time, updates and kernel limits."""

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
