"""Requirements of the controller: its packages, and two settings that all LANs share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from testbed.apt import backports_source, os_release
from testbed.process import MachineError, run
from testbed.registry import REGISTRY, locked, records

PACKAGES = (
    "ca-certificates",
    "curl",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "mmdebstrap",
    "openssh-client",
    "systemd-container",
)
"""Debian and Ubuntu packages that every LAN needs."""

DOUBLE_PACKAGES = ("gcc", "gnupg", "libc6-dev")
"""Only for doubles of a GPU's driver."""

VM_PACKAGES = ("qemu-system-x86",)
"""Only for ``kind="vm"``."""

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_NSPAWN_RUN = Path("/run/systemd/nspawn")


def install_requirements(*, vm: bool = False, doubles: bool = False) -> None:
    """Install missing Debian packages; without any it takes no time.

    QEMU comes from backports on Debian 12, whose own 7.2 crashes guest kernels under emulation.
    """
    if os.geteuid() != 0:
        raise MachineError("test machines need root: run this with sudo")
    with locked():  # apt does not run twice at the same time
        if missing := _missing(PACKAGES + (DOUBLE_PACKAGES if doubles else ())):
            run(["apt-get", "update", "-qq"])
            run([*_INSTALL, *missing], env=_QUIET)
        if vm and (missing := _missing(VM_PACKAGES)):
            _install_for_vm(missing)


_WAIT = "-oDPkg::Lock::Timeout=300"  # unattended-upgrades may be running
_INSTALL = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", _WAIT)
_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def _missing(packages: tuple[str, ...]) -> list[str]:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *packages]
    lines = run(query, check=False).stdout.splitlines()
    present = {line.split()[1] for line in lines if line.startswith("installed ")}
    return [package for package in packages if package not in present]


def _install_for_vm(packages: list[str]) -> None:
    if os_release()["VERSION_CODENAME"] != "bookworm":
        run(["apt-get", "update", "-qq"])
        run([*_INSTALL, *packages], env=_QUIET)
        return
    # A sources directory for this command only: the controller's own apt setup does not change.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "backports.sources").write_text(backports_source())
        for sources in Path("/etc/apt/sources.list.d").glob("*.*"):
            Path(directory, sources.name).symlink_to(sources)
        options = ["-o", f"Dir::Etc::SourceParts={directory}"]
        run(["apt-get", *options, "update", "-qq"])
        run([*_INSTALL, *options, "-t", "bookworm-backports", *packages], env=_QUIET)


def prepare_controller() -> None:
    """Enable forwarding, and mount the tmpfs that nspawn requires; `restore_controller` reverts
    both."""
    with locked():
        if _FORWARDING.read_text().strip() == "0":
            (REGISTRY / "forwarding-was-off").touch()
            _FORWARDING.write_text("1")
        if _file_system(_NSPAWN_RUN) not in {"tmpfs", "ramfs"}:
            # systemd has /run on a tmpfs; without systemd as process 1 it may be a plain directory,
            # which nspawn cannot pass to the container.
            _NSPAWN_RUN.mkdir(parents=True, exist_ok=True)
            run(["mount", "-t", "tmpfs", "-o", "mode=0755", "llmhost-lans", str(_NSPAWN_RUN)])


def restore_controller() -> None:
    """Restore the shared settings after the last LAN is removed."""
    with locked():
        if records():
            return
        if "llmhost-lans" in _mounts().get(str(_NSPAWN_RUN), ()):
            run(["umount", "--lazy", str(_NSPAWN_RUN)])
        marker = REGISTRY / "forwarding-was-off"
        # Another bridge belongs to a container engine or hypervisor, which needs forwarding.
        if marker.exists() and not any(Path("/sys/class/net").glob("*/bridge")):
            _FORWARDING.write_text("0")
        marker.unlink(missing_ok=True)


def _mounts() -> dict[str, tuple[str, str]]:
    """Mount point → (source, type); the topmost of several mounts."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return {point: (source, kind) for source, point, kind, *_ in map(str.split, lines)}


def _file_system(path: Path) -> str:
    """Type of the file system of ``path``, which need not exist."""
    mounts = _mounts()
    return next(mounts[str(at)][1] for at in (path, *path.parents) if str(at) in mounts)
