"""A machine as a systemd-nspawn container: its own system at native speed.

It has its own systemd, users, network stack and netfilter. It shares the controller's kernel: there
are no kernel modules to load, sysctls outside net.* are those of the controller and read-only, and
resource limits work only if their controllers are in cgroup v2, not in v1 of a hybrid setup.
"""

from __future__ import annotations

from pathlib import Path

from testbed.machine import Machine
from testbed.network import Command
from testbed.process import run

_MASKED = (
    # They would trigger and handle events of the controller's devices.
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    # They work on kernel-wide state that a container may see and must not touch.
    "systemd-modules-load.service",
    "systemd-pstore.service",
    "fstrim.timer",
)

_ENVIRONMENT = (
    # The machine gets cgroup v2 even if the controller is in hybrid mode.
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
    # In /proc/sys and /sys only the machine's own network is writable.
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
)

_CONTROLLERS_OWN = (
    "CAP_SYS_TIME",  # the clock: even `timedatectl set-timezone` moves it (settimeofday(2))
    "CAP_WAKE_ALARM",
    "CAP_SYS_MODULE",  # kernel modules
    "CAP_SYSLOG",  # the kernel's log
    "CAP_SYS_RAWIO",  # memory and input/output ports
    "CAP_AUDIT_CONTROL",  # audit rules
    "CAP_AUDIT_READ",
    "CAP_SYS_PACCT",  # process accounting
    "CAP_BLOCK_SUSPEND",
)
"""Capabilities that affect more than a machine's namespaces."""

_RUNTIME = Path("/run/systemd/nspawn")


class NspawnMachine(Machine):
    """``systemd-nspawn --boot`` on an overlay."""

    def _furnish(self) -> None:
        for unit in _MASKED:
            Path(self._disk.root / "etc/systemd/system" / unit).symlink_to("/dev/null")
        for path in self._host.volumes:
            self._disk.volume(path).mkdir(parents=True)

    def _connect(self) -> list[Command]:
        self._disk.mount()
        return self._network.plug_namespace(self._host.number)

    def _command(self) -> Command:
        space = self._network.namespace(self._host.number)
        binds = [f"--bind={self._disk.volume(path)}:{path}" for path in self._host.volumes]
        return [
            # Not by --network-namespace-path: with it, /sys/class/net shows the controller's links,
            # because nspawn mounts a writable sysfs before it enters the namespace.
            *("nsenter", f"--net=/run/netns/{space}"),
            *("env", *_ENVIRONMENT),
            *("systemd-nspawn", "--quiet", "--boot"),
            f"--directory={self._disk.root}",
            f"--machine={space}",
            f"--hostname={self.name}",
            # Without a service manager or machined: the cgroup is managed here.
            *("--register=no", "--keep-unit"),
            # Container engines in it need the capabilities of a host's root, and three system calls
            # that nspawn's default filter refuses.
            *("--capability=all", f"--drop-capability={','.join(_CONTROLLERS_OWN)}"),
            "--system-call-filter=add_key keyctl bpf",
            # No settings of the controller are passed to the machine.
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
            "--console=read-only",
            *binds,
        ]

    def _release(self) -> None:
        self._disk.unmount()
        # A killed nspawn leaves its runtime directories, and a new one then refuses the name.
        for directory in _RUNTIME.glob(f"*/{self._network.namespace(self._host.number)}"):
            if directory.is_mount():
                run(["umount", "--lazy", str(directory)])
            run(["rm", "-rf", "--one-file-system", str(directory)])
