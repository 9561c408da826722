"""What the NVIDIA tests of a server have in common: what is there, and what a proof is worth."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.settings import Settings

GPU_CLASSES = ("0x0300", "0x0302")

DOUBLE = "(double)"
"""Doubles of GPUs carry it in their product name, which is all that is known of them here."""


@dataclass(frozen=True)
class Nvidia:
    """What a server shows of NVIDIA without being asked by llmhost's own facts: PCI addresses of
    its GPUs, whether it is WSL, and the answer of the probe."""

    pci: tuple[str, ...]
    wsl: bool
    nvml: dict[str, Any] = field(default_factory=dict)

    @property
    def gpus(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.nvml.get("gpus", [])
        return found

    @property
    def proof(self) -> str:
        """What a test that passes on this server has shown."""
        names = [gpu["name"] or "" for gpu in self.gpus]
        if not all(names) or not names:
            return "not checked: NVML does not report what the GPUs are"
        double = any(DOUBLE in name for name in names)
        return "proven on a double" if double else "proven on hardware"


def on_wsl(host: Any) -> bool:
    """Whether the kernel is that of the Windows Subsystem for Linux, by its own name."""
    release = host.file("/proc/sys/kernel/osrelease").content_string.lower()
    return "microsoft" in release or "wsl" in release


def look(host: Any, settings: Settings) -> Nvidia:
    """Read a server's NVIDIA hardware from sysfs, and NVML through the probe."""
    script = (
        "for d in /sys/bus/pci/devices/*; do"
        ' printf "%s %s %s\\n" "$(cat $d/vendor)" "$(cat $d/class)" "${d##*/}"; done'
    )
    rows = [line.split() for line in host.run(script).stdout.splitlines()]
    pci = tuple(
        address
        for vendor, pci_class, address in (row for row in rows if len(row) == 3)
        if vendor == "0x10de" and pci_class.startswith(GPU_CLASSES)
    )
    answer = host.run(settings.nvidia_driver.probe_command).stdout
    return Nvidia(
        pci=pci,
        wsl=on_wsl(host),
        nvml=json.loads(answer) if answer.strip() else {},
    )


def require_gpu(nvidia: Nvidia, settings: Settings) -> None:
    """Skip where there is nothing to check; fail where a service asks for a GPU in vain."""
    if not settings.nvidia_driver.managed and not settings.gpu_requests:
        does_not_apply("llmhost does not manage the driver, and no service asks for a GPU")
    if nvidia.pci or (nvidia.wsl and nvidia.nvml):
        return
    asking = ", ".join(settings.gpu_requests)
    assert not asking, f"no NVIDIA GPU is on this server, and {asking} asks for one"
    does_not_apply("this server has no NVIDIA GPU, and no service asks for one")


def note(request: pytest.FixtureRequest, nvidia: Nvidia) -> None:
    """Let the test's record say what it is worth if it passes."""
    request.node.user_properties.append(("proof", nvidia.proof))
