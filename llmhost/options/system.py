"""`system_*`: the operating system below the components."""

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, field_validator

from llmhost.options.base import Section

ParameterName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9_]+([./][A-Za-z0-9_][A-Za-z0-9_.:-]*)+$")
]


class System(Section):
    """Time, updates and kernel limits."""

    timezone: str = "Etc/UTC"
    """IANA time zone name, for example `Asia/Seoul`."""

    unattended_upgrades: bool = True
    """Install security updates of the distribution every night, without rebooting."""

    apt_lock_timeout_seconds: int = Field(default=300, ge=0, le=3600)
    """How long apt waits for another package manager before it gives up."""

    sysctl: dict[ParameterName, str | int] = Field(default_factory=dict)
    """Further kernel parameters, name to value; they extend and override what the stack needs."""

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)  # to look through the whole list would take a tenth of a second
            if name.startswith(("posix", "right/")):  # other forms of the same, not on every host
                raise LookupError
        except (ValueError, LookupError, OSError):
            text = "is not a time zone; list them with: timedatectl list-timezones"
            raise ValueError(text) from None
        return name

    @property
    def kernel_parameters(self) -> dict[str, str]:
        """Everything written to sysctl.d, in the order of the names."""
        needed: dict[str, str | int] = {
            # Vector stores and model runtimes map many files: Qdrant and Elasticsearch ask for it.
            "vm.max_map_count": "1048576",
            # A burst of clients must not overflow the accept queue of nginx.
            "net.core.somaxconn": "4096",
            "fs.inotify.max_user_instances": "1024",
        }
        return {name: str(value) for name, value in sorted({**needed, **self.sysctl}.items())}
