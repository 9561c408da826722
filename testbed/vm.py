"""A virtual machine: its own kernel, all of cgroup v2, modules, a disk that can be lost.

QEMU runs it with KVM if that works, else by emulation, about eight times slower than native. Kernel
and initial RAM disk are passed to QEMU, so there is no boot loader, and a kernel upgrade inside has
no effect.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from testbed.machine import Machine
from testbed.network import Command, Network
from testbed.process import MachineError, run

_CPUS = 2
_MEMORY_MIB = 4096
_DISK_SIZE = "40G"
"""Sparse: it uses only the space of written data."""

_TUN = Path("/dev/net/tun")

# mitigations=off halves the time of an emulated boot; nothing inside needs protection.
_KERNEL_OPTIONS = "root=/dev/vda rootfstype=ext4 rw console=ttyS0 net.ifnames=0 mitigations=off"


class VirtualMachine(Machine):
    """QEMU with a tap device on the LAN's bridge."""

    kernel = True
    boot_seconds = 600.0  # emulated, on a busy controller

    @property
    def _image(self) -> Path:
        return self._disk.directory / "disk.img"

    @property
    def _kernel_options(self) -> Path:
        return self._disk.directory / "kernel-options"

    def set_kernel_options(self, options: str) -> None:
        """Words for the kernel's command line, from the next start on."""
        self._kernel_options.write_text(options)

    def _furnish(self) -> None:
        if not _TUN.exists():
            raise MachineError(f"virtual machines are plugged in by {_TUN}: modprobe tun")
        root = self._disk.root
        (root / "etc/fstab").write_text("/dev/vda / ext4 defaults,discard 0 1\n")
        networks = root / "etc/systemd/network"
        (networks / "10-lan.network").write_text(_network_file(self._network, self._host.number))
        run(["chroot", str(root), "systemctl", "enable", "--quiet", "systemd-networkd"])
        # -d fills the file system without mounting it (mke2fs(8)).
        run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(self._image), _DISK_SIZE])
        self._disk.unmount()
        run(["rm", "-rf", "--one-file-system", str(self._disk.upper)])

    def _connect(self) -> list[Command]:
        return self._network.plug_tap(self._host.number)

    def _command(self) -> Command:
        boot = self._disk.lower / "boot"
        number = self._host.number
        return [
            *("qemu-system-x86_64", "-name", self.name),
            *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
            *accelerator(boot),
            *("-smp", str(_CPUS), "-m", str(_MEMORY_MIB)),
            *("-kernel", str(next(boot.glob("vmlinuz-*")))),
            *("-initrd", str(next(boot.glob("initrd.img-*")))),
            *("-append", f"{_KERNEL_OPTIONS} {self._kernel_options.read_text()}"),
            # Unsafe only if the controller itself crashes; the disk does not outlive the tests.
            "-drive",
            f"file={self._image},if=virtio,format=raw,cache=unsafe,discard=unmap",
            *("-netdev", f"tap,id=lan,ifname={self._network.port(number)},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=lan,mac={self._network.mac(number)},romfile="),
            *("-device", "virtio-rng-pci"),
        ]

    def _release(self) -> None:
        self._disk.unmount()


def _network_file(network: Network, number: int) -> str:
    """The machine's addresses, as systemd.network(5)."""
    return f"""\
[Match]
MACAddress={network.mac(number)}

[Network]
Address={network.address(number)}/24
Address={network.address6(number)}/64
Gateway={network.gateway}
IPv6AcceptRA=no
"""


@cache
def accelerator(boot: Path) -> tuple[str, ...]:
    """QEMU's options for the fastest way to run a guest here.

    /dev/kvm may exist and not work, as in a virtual machine without nested virtualization: only a
    boot of a kernel shows it. It has no root file system, so a panic soon ends it: that is success.
    """
    kvm = ("-accel", "kvm", "-cpu", "host")
    if os.access("/dev/kvm", os.R_OK | os.W_OK) and _boots(boot, kvm):
        return kvm
    return ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max")


def _boots(boot: Path, options: tuple[str, ...]) -> bool:
    kernel = next(boot.glob("vmlinuz-*"))
    append = "console=ttyS0 panic=-1"
    probe = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
    probe += ["-serial", "stdio", "-m", "256", "-no-reboot", "-kernel", str(kernel)]
    said = run(["timeout", "15", *probe, "-append", append, *options], check=False).stdout
    return "Kernel panic" in said and "Unable to mount root" in said
