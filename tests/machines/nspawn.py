"""A machine as a systemd-nspawn container: a system of its own at native speed.

It has its own systemd, users, network stack and netfilter; it shares the controller's kernel, so
there are no kernel modules to load, sysctls outside net.* are the controller's, and memory limits
work only where the controller's cgroup v2 has the memory controller.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.machines.cgroup import Cgroup
from tests.machines.machine import Machine
from tests.machines.process import run

_MASKED = (
    # They would set off and handle events of the controller's devices.
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    # They work on kernel-wide state that a container may see and must not touch.
    "systemd-modules-load.service",
    "systemd-pstore.service",
    "fstrim.timer",
)


class NspawnMachine(Machine):
    """``systemd-nspawn --boot`` on an overlay."""

    @property
    def _cgroup(self) -> Cgroup:
        return Cgroup(self._network.namespace(self._host.number))

    def _furnish(self) -> None:
        for unit in _MASKED:
            Path(self._disk.root / "etc/systemd/system" / unit).symlink_to("/dev/null")
        for path in self._host.volumes:
            self._disk.volume(path).mkdir(parents=True)

    def _power_on(self) -> None:
        self._disk.mount()
        self._cgroup.create()
        spec = self._disk.directory / "supervisor.json"
        spec.write_text(
            json.dumps(
                {
                    "before": self._network.plug_namespace(self._host.number),
                    "argv": [*self._cgroup.entering(), "env", *_ENVIRONMENT, *self._nspawn()],
                    # See systemd-nspawn(1), EXIT STATUS, and supervisor.py.
                    "again": 133,
                }
            )
        )
        self._supervise(spec)

    def _nspawn(self) -> list[str]:
        space = self._network.namespace(self._host.number)
        binds = [f"--bind={self._disk.volume(path)}:{path}" for path in self._host.volumes]
        return [
            "systemd-nspawn",
            "--quiet",
            f"--directory={self._disk.root}",
            f"--machine={space}",
            f"--hostname={self.name}",
            "--boot",
            "--register=no",
            "--keep-unit",
            f"--network-namespace-path=/run/netns/{space}",
            # Container engines inside need what a host's root may do, and three system calls that
            # nspawn's default filter refuses.
            "--capability=all",
            "--system-call-filter=add_key keyctl bpf",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=read-only",
            *binds,
        ]

    def _request_shutdown(self) -> None:
        # nspawn passes SIGTERM on as SIGRTMIN+3, which systemd takes as "power off".
        for process in self._cgroup.processes():
            if process.program == "systemd-nspawn":
                process.identity.send(signal.SIGTERM)

    def _power_off(self) -> None:
        # The supervisor first, or it would start the machine again.
        if self._process:
            self._process.send(signal.SIGKILL)
            self._process.wait(5)
        self._cgroup.kill()

    def _clear(self) -> None:
        for command in self._network.unplug(self._host.number):
            run(command, check=False)
        self._cgroup.remove()
        self._disk.unmount()


_ENVIRONMENT = (
    # The machine gets cgroup v2 even where the controller is in hybrid mode.
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
    # /proc/sys and /sys writable: the machine's own net.* sysctls live there.
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes",
)

