"""The identity of a host, as read by facts/system.py."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llmhost.system.virtualization import is_wsl

# dpkg's names for what `uname -m` prints.
_PACKAGE_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class HostIdentity:
    """One host. Memory and free space in KiB, `free_kib` by path, `virtualization` as
    systemd-detect-virt names it (`none`, `kvm`, `wsl`, `systemd-nspawn`, …), `init` the name of
    process 1, `docker_of` what provides the command `docker` instead of Docker Engine (`snap`,
    `podman`)."""

    distribution: str
    version: str
    codename: str
    machine: str
    kernel: str
    uid: int
    user: str
    init: str
    boot_id: str
    virtualization: str
    memory_kib: int
    deployed: bool
    ipv6: bool = True
    docker_of: str = ""
    free_kib: Mapping[str, int] = field(default_factory=dict)

    @property
    def package_architecture(self) -> str:
        """The architecture as dpkg writes it."""
        return _PACKAGE_ARCHITECTURES.get(self.machine, self.machine)

    @property
    def is_wsl(self) -> bool:
        """Whether the host is a Windows Subsystem for Linux."""
        return self.virtualization == "wsl" or is_wsl(self.kernel)


def parse_identity(lines: Iterable[str]) -> HostIdentity:
    """From `key=value` lines; free space comes as `free_kib PATH=KIB`."""
    values: dict[str, str] = {}
    free: dict[str, int] = {}
    for line in lines:
        key, _, value = (
            line.rpartition("=") if line.startswith("free_kib ") else line.partition("=")
        )
        if key.startswith("free_kib "):
            free[key.removeprefix("free_kib ")] = int(value or 0)
        else:
            values[key] = value
    return HostIdentity(
        **{key: values[key] for key in ("distribution", "version", "codename", "machine")},
        **{key: values[key] for key in ("kernel", "user", "init", "boot_id", "virtualization")},
        uid=int(values["uid"]),
        memory_kib=int(values["memory_kib"]),
        deployed="deployed" in values,
        ipv6=values.get("ipv6") != "off",
        docker_of=values.get("docker_of", ""),
        free_kib=free,
    )
