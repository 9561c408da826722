"""Machine flavours: what hardware a machine seems to have, and what a site with it declares.

The driver and the toolkit come from repositories of the site, whose packages are doubles.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from testbed import Machine
from tests.doubles.apt_repository import DebDouble, build_repository
from tests.doubles.nvidia.hardware import PROFILES
from tests.doubles.nvidia.machine import furnish
from tests.doubles.nvidia.packages import (
    debian_driver,
    distinct,
    headers,
    pinning,
    toolkit,
    ubuntu_driver,
)

VERSION = "580.178.04"
ON_DEBIAN_13 = "595.91.07"
"""The long-term branch, and the first that NVIDIA's repository for Debian 13 has fixes of."""


@dataclass(frozen=True)
class Flavour:
    """A profile of hardware.py, a release that the machine seems to run, and what the service
    `llamacpp` asks for there. `suite` is the release that its packages come from, if another one;
    `data` is what else its inventory declares."""

    profile: str
    release: str = "debian-13"
    options: dict[str, object] = field(default_factory=dict)
    suite: str | None = None
    data: dict[str, object] = field(default_factory=dict)

    @property
    def has_gpu(self) -> bool:
        return bool(PROFILES[self.profile].gpus)


FLAVOURS = {
    "plain": Flavour("none"),
    "gpu": Flavour("rtx-5070-ti", options={"gpu": 0}),
    "two-gpus": Flavour("two-rtx-4090", options={"gpu": PROFILES["two-rtx-4090"].gpus[1].uuid}),
    "h200": Flavour("h200-nvswitch", options={"gpu_count": 2}),
    # NVIDIA's repository for Debian 13 has no driver for it.
    "gtx-1080-ti": Flavour("gtx-1080-ti", "ubuntu-24.04", {"gpu_count": 1}),
    "wsl": Flavour("wsl", options={"gpu_count": 1}),
    "ubuntu-24.04": Flavour("rtx-5070-ti", "ubuntu-24.04", {"gpu_count": 1}),
    "docker-28.5": Flavour(
        "rtx-5070-ti",
        options={"gpu": 0},
        suite="forky",
        data={"stack_egress": "deny", "system_hardening": "cis"},
    ),
}


def build_site(directory: Path) -> dict[str, str]:
    """Write the site's repositories, unless they are there; returns their keys' fingerprints."""
    fingerprints = directory / "fingerprints.json"
    if not fingerprints.exists():
        driver = build_repository(
            directory / "debian13/x86_64",
            [
                *headers("linux-headers-amd64"),
                *debian_driver(ON_DEBIAN_13, open_module=True),
                pinning(595),
            ],
        )
        # NVIDIA names a key's file after the end of its fingerprint.
        driver.key_path.rename(driver.directory / f"{driver.fingerprint[-8:]}.pub")
        ubuntu = build_repository(directory / "ubuntu", _ubuntu_packages())
        tools = build_repository(directory / "toolkit/amd64", toolkit("1.20.1-1"))
        fingerprints.write_text(
            json.dumps({"driver": driver.fingerprint, "toolkit": tools.fingerprint})
        )
        (directory / "ubuntu.asc").write_bytes(ubuntu.key_path.read_bytes())
    found: dict[str, str] = json.loads(fingerprints.read_text())
    return found


def _ubuntu_packages() -> list[DebDouble]:
    """What Ubuntu packages under names of its own; the rest comes from the real distribution."""
    return [
        *headers("linux-image-generic", "linux-headers-generic"),
        *distinct(
            [
                *ubuntu_driver(VERSION, open_module=True),
                *ubuntu_driver(VERSION, open_module=False),
            ]
        ),
        DebDouble("docker-compose-v2", "9:2", fields={"Depends": "docker-compose, docker-cli"}),
    ]


def dress(machine: Machine, flavour: Flavour, directory: Path, url: str) -> None:
    """Let a bare machine seem to have the flavour's hardware and release."""
    furnish(machine, flavour.profile, flavour.release)
    if flavour.release.startswith("ubuntu"):
        machine.ssh(
            "cat >/etc/apt/ubuntu.asc &&"
            f" echo 'deb [signed-by=/etc/apt/ubuntu.asc] {url}/ubuntu/ /'"
            " >/etc/apt/sources.list.d/ubuntu.list &&"
            " apt-get -qq update && apt-get -qq -y install linux-image-generic",
            input=(directory / "ubuntu.asc").read_text(),
        )


def site_data(flavour: Flavour, fingerprints: dict[str, str], url: str) -> dict[str, object]:
    """What the inventory of a site with this flavour adds; `url` serves `build_site`."""
    if not flavour.has_gpu:
        return {}
    return {
        **flavour.data,
        "nvidia_driver_repository_url": url,
        "nvidia_driver_repository_fingerprint": fingerprints["driver"],
        "container_toolkit_repository_url": f"{url}/toolkit",
        "container_toolkit_key_url": f"{url}/toolkit/amd64/gpg",
        "container_toolkit_repository_fingerprint": fingerprints["toolkit"],
        **{f"llamacpp_{option}": value for option, value in flavour.options.items()},
    }
