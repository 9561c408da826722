"""Driver and toolkit on machines that seem to have NVIDIA hardware, from packages that are doubles.

What is real here: apt with its signatures, pins and holds, dpkg, systemd, modinfo, dockerd, CDI,
nvidia-ml-py and a reboot. What is a double: the hardware, the module, NVML, nvidia-smi, nvidia-ctk.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from llmhost.tasks.container_toolkit import install_container_toolkit
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from llmhost.tasks.system import configure_system
from testbed import Lan, Machine
from tests.doubles.apt_repository import DebDouble, Repository, build_repository, serving
from tests.doubles.nvidia.hardware import PROFILES
from tests.doubles.nvidia.machine import OS_RELEASES, furnish
from tests.doubles.nvidia.packages import (
    DEBIAN_KERNEL,
    KERNEL,
    debian_dkms_driver,
    debian_driver,
    debians_own_driver,
    distinct,
    fabric,
    headers,
    kernel_headers,
    kernel_image,
    pinning,
    toolkit,
    ubuntu_driver,
    ubuntu_modules,
)
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

LONG_TERM, NEWER = "580.178.04", "595.91.07"
NEXT_KERNEL = "6.8.0-86-generic"
UBUNTU = distinct(
    [
        *headers("linux-image-generic", "linux-headers-generic"),
        *ubuntu_driver(LONG_TERM, open_module=True),
        *ubuntu_driver(LONG_TERM, open_module=False),
        *ubuntu_driver(NEWER, open_module=True),
        *fabric("-580", "580.182.01-0ubuntu0.24.04.1"),
    ]
)
BAD_MODULE = "bad exit status: 2 (double of a build of the module)"
BROKEN = [
    *headers("linux-image-generic"),
    *(
        replace(each, postinst=f"echo '{BAD_MODULE}' >&2; exit 1")
        if each.name.startswith("linux-modules")
        else each
        for each in ubuntu_driver(LONG_TERM, open_module=True, revision="0ubuntu0.24.04.0")
    ),
]
OLD = [*headers("linux-image-generic"), *ubuntu_driver("580.95.05", open_module=True)]
DEBIAN_12 = [
    *headers("linux-headers-amd64"),
    *debian_driver(LONG_TERM, open_module=False),
    *debian_driver(LONG_TERM, open_module=True)[:1],
    *debian_driver(NEWER, open_module=True),
    pinning(580),
    pinning(595),
]
# https://github.com/NVIDIA/cuda-repo-management/issues/38
DEBIAN_13 = [
    *headers("linux-headers-amd64"),
    *debian_driver(NEWER, open_module=True),
    pinning(595),
]
OWN = [*headers("linux-headers-amd64"), *debians_own_driver("550.163.01")]
TOOLKIT = toolkit("1.20.1-1")


@dataclass(frozen=True)
class Site:
    """The LAN and the repositories that its machines can reach."""

    lan: Lan
    ubuntu: Repository
    old_ubuntu: Repository
    broken_ubuntu: Repository
    debians_own: Repository
    nvidia: Repository
    debian_13: Repository
    toolkit: Repository
    url: str

    def dkms(self) -> Settings:
        """Options for NVIDIA's driver for Debian 13, whose module DKMS builds."""
        directory = self.toolkit.directory.parents[1] / "dkms/debian13/x86_64"
        packages = [*debian_dkms_driver(NEWER), pinning(595)]
        repository = build_repository(directory, packages)
        key = directory / f"{repository.fingerprint[-8:]}.pub"
        key.write_bytes(repository.key_path.read_bytes())
        return settings(
            nvidia_driver_repository_url=f"{self.url}/dkms",
            nvidia_driver_repository_fingerprint=repository.fingerprint,
        )

    def secure(self, machine: Machine, release: str, packages: list[DebDouble]) -> None:
        """Offer these packages as security updates of a machine's release."""
        name, _, codename = OS_RELEASES[release]
        fields = {"Origin": "Ubuntu", "Label": "Ubuntu", "Codename": codename}
        if name == "debian":
            fields = {"Origin": "Debian", "Label": "Debian-Security"}
            fields["Codename"] = f"{codename}-security"
        fields["Suite"] = f"{codename}-security"
        directory = self.toolkit.directory.parents[1] / "security"
        self.offer(machine, build_repository(directory, packages, release=fields))

    def offer(self, machine: Machine, repository: Repository) -> None:
        """Make a repository the distribution's own, as far as apt is concerned."""
        machine.ssh("cat >/etc/apt/distribution.asc", input=repository.key_path.read_text())
        path = repository.directory.name
        source = f"deb [signed-by=/etc/apt/distribution.asc] {self.url}/{path}/ /\n"
        machine.ssh("cat >/etc/apt/sources.list.d/distribution.list", input=source)
        machine.ssh("apt-get -qq update")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    top = tmp_path_factory.mktemp("repositories")
    ubuntu = build_repository(top / "ubuntu", UBUNTU)
    old = build_repository(top / "old", OLD)
    broken = build_repository(top / "broken", BROKEN)
    own = build_repository(top / "own", OWN)
    nvidia = build_repository(top / "debian12/x86_64", DEBIAN_12)
    debian_13 = build_repository(top / "debian13/x86_64", DEBIAN_13)
    for each in (nvidia, debian_13):
        # NVIDIA names a key's file after the end of its fingerprint.
        key = each.directory / f"{each.fingerprint[-8:]}.pub"
        key.write_bytes(each.key_path.read_bytes())
    toolkit = build_repository(top / "toolkit/amd64", TOOLKIT)
    with Lan.create("nvidia") as lan, serving(top, lan.gateway) as url:
        repositories = (ubuntu, old, broken, own, nvidia, debian_13, toolkit)
        yield Site(lan, *repositories, url)


@pytest.fixture
def host(site: Site) -> Iterator[Machine]:
    """A bare machine, gone after the test."""
    machine = site.lan.machine("gpu-host")
    yield machine
    machine.destroy()


def settings(**data: object) -> Settings:
    return read_settings(data)


def changed_by(machine: Machine, options: Settings) -> list[str]:
    """What a deploy of the driver changes; it has to succeed, and to need no second one."""
    return converge(machine, install_nvidia_driver, options).changed


def refusal(machine: Machine, options: Settings) -> str:
    """What a deploy says that is refused, and a dry run of it as well."""
    outcome = deploy(machine, install_nvidia_driver, options)
    assert not outcome.succeeded, outcome.output
    return outcome.output


def held(machine: Machine) -> set[str]:
    return set(machine.ssh("apt-mark showhold").stdout.split())


def installed(machine: Machine) -> dict[str, str]:
    """Version of each NVIDIA package, by dpkg."""
    form = "${db:Status-Abbrev} ${Package} ${Version}\n"
    query = f"dpkg-query -W -f '{form}' '*nvidia*' 2>/dev/null || true"
    lines = [line.split() for line in machine.ssh(query).stdout.splitlines()]
    return {line[1]: line[2] for line in lines if line[0][1] == "i"}


def boot_id(machine: Machine) -> str:
    return machine.ssh("cat /proc/sys/kernel/random/boot_id").stdout


def probe(machine: Machine, options: Settings) -> dict[str, Any]:
    """What NVML says, by real nvidia-ml-py."""
    answer = machine.ssh(options.nvidia_driver.probe_command, check=False).stdout
    found: dict[str, Any] = json.loads(answer)
    return found


def ubuntu_host(site: Site, machine: Machine, profile: str) -> None:
    furnish(machine, profile, "ubuntu-24.04")
    site.offer(machine, site.ubuntu)
    machine.ssh("apt-get -qq -y install linux-image-generic")


def test_ubuntu_gets_its_signed_open_module_loaded_by_a_reboot(site: Site, host: Machine) -> None:
    ubuntu_host(site, host, "rtx-5070-ti")
    before = boot_id(host)
    options = settings(nvidia_driver_power_limit_watts=250)

    planned = deploy(host, install_nvidia_driver, options, dry=True)
    assert planned.changed, planned.output
    assert changed_by(host, options)

    assert boot_id(host) != before
    module = "linux-modules-nvidia-580-server-open-generic"
    assert module in installed(host) and "libnvidia-compute-580-server" in held(host)
    assert "Open Kernel Module" in host.ssh("cat /proc/driver/nvidia/version").stdout
    blacklist = host.ssh("apt-config dump Unattended-Upgrade::Package-Blacklist").stdout
    assert '"libnvidia-"' in blacklist and "linux-modules" not in blacklist
    found = probe(host, options)
    (gpu,) = found["gpus"]
    assert found["driver"] == LONG_TERM
    assert gpu["uuid"] == PROFILES["rtx-5070-ti"].gpus[0].uuid
    assert (gpu["persistence"], gpu["power_limit_watts"]) == (True, 250.0)


@pytest.mark.flavours
@pytest.mark.parametrize(
    ("release", "profile", "module"),
    [
        ("ubuntu-22.04", "gtx-1080-ti", "linux-modules-nvidia-580-server-generic"),
        ("ubuntu-26.04", "two-rtx-4090", "linux-modules-nvidia-580-server-open-generic"),
        ("debian-12", "rtx-5070-ti", "nvidia-kernel-open-dkms"),
        ("debian-13", "rtx-5070-ti", "nvidia-kernel-open-dkms"),
    ],
)
def test_every_release_gets_its_own_packages(
    site: Site, host: Machine, release: str, profile: str, module: str
) -> None:
    furnish(host, profile, release)
    if release.startswith("ubuntu"):
        site.offer(host, site.ubuntu)
        host.ssh("apt-get -qq -y install linux-image-generic")
    nvidia = site.debian_13 if release == "debian-13" else site.nvidia
    options = settings(
        nvidia_driver_repository_url=site.url,
        nvidia_driver_repository_fingerprint=nvidia.fingerprint,
    )
    # By an ordinary user with sudo, reboot included.
    first = deploy(host, install_nvidia_driver, options, sudo=True)
    assert first.succeeded and first.changed, first.output
    assert changed_by(host, options) == []
    assert module in installed(host)
    assert len(probe(host, options)["gpus"]) == len(PROFILES[profile].gpus)


def test_the_power_limit_outlives_a_reboot_and_a_person(site: Site, host: Machine) -> None:
    ubuntu_host(site, host, "two-rtx-4090")
    options = settings(nvidia_driver_power_limit_watts=300)
    changed_by(host, options)
    host.reboot()
    assert [gpu["power_limit_watts"] for gpu in probe(host, options)["gpus"]] == [300.0, 300.0]
    assert deploy(host, install_nvidia_driver, options, dry=True).changed == []
    host.ssh("nvidia-smi -i 1 -pl 450")
    assert changed_by(host, options)
    assert [gpu["power_limit_watts"] for gpu in probe(host, options)["gpus"]] == [300.0, 300.0]


@pytest.mark.flavours
def test_a_driver_with_known_holes_is_upgraded_and_another_branch_replaces_it(
    site: Site, host: Machine
) -> None:
    ubuntu_host(site, host, "rtx-5070-ti")
    site.offer(host, site.old_ubuntu)
    # The host's source has no fix yet: that is reported, and the host is of use.
    first = deploy(host, install_nvidia_driver, settings())
    again = deploy(host, install_nvidia_driver, settings())
    assert first.succeeded and again.succeeded and again.changed == []
    for outcome in (first, again):
        assert "driver 580.95.05 has known vulnerabilities" in outcome.output
        assert "no package source of this host offers a fixed version yet" in outcome.output
    site.offer(host, site.ubuntu)
    accepted = settings(nvidia_driver_accept_vulnerable_until="2999-12-31")
    assert changed_by(host, accepted) == []
    assert changed_by(host, settings())
    assert installed(host)["nvidia-utils-580-server"].startswith(f"{LONG_TERM}-")
    assert changed_by(host, settings(nvidia_driver_branch=595))
    assert not [name for name in installed(host) if "580" in name]
    assert "linux-modules-nvidia-595-server-open-generic" in installed(host)
    assert probe(host, settings())["driver"] == NEWER


def upgrade_unattended(machine: Machine) -> str:
    """What apt-daily-upgrade.service runs at night; returns what it did."""
    return machine.ssh("unattended-upgrade --verbose 2>&1").stdout


def with_kernel(
    kernel: str, meta: str, version: str = LONG_TERM, *older: DebDouble
) -> list[DebDouble]:
    """Ubuntu with this kernel, and an open driver of this version with a module for it."""
    driver = ubuntu_driver(version, open_module=True, meta=meta)
    modules = ubuntu_modules(version, open_module=True, meta=meta, kernel=kernel)
    image = kernel_image(kernel, f"linux-image-{meta}")
    return distinct([*older, *image, *modules, *driver[4:]])


def modules_of(machine: Machine, kernel: str) -> list[str]:
    """Modules that are on the disk for a kernel, by modinfo."""
    find = f"find /lib/modules/{kernel}/ -name 'nvidia*.ko' -exec modinfo -F version {{}} +"
    return machine.ssh(find, check=False).stdout.split()


def deployed_with_kernel(site: Site, host: Machine, release: str, meta: str) -> list[DebDouble]:
    """Deploy a host with one kernel of Ubuntu; the packages of its repository."""
    furnish(host, "rtx-5070-ti", release)
    before = with_kernel(KERNEL, meta)
    site.secure(host, release, before)
    host.ssh(f"apt-get -qq -y install linux-image-{meta}")
    assert deploy(host, configure_system, settings()).succeeded
    changed_by(host, settings())
    return before


@pytest.mark.flavours
@pytest.mark.parametrize(
    ("release", "meta"),
    [
        ("ubuntu-22.04", "generic"),
        ("ubuntu-24.04", "generic-hwe-24.04"),
        ("ubuntu-26.04", "generic"),
    ],
)
def test_unattended_upgrades_bring_kernel_and_module_together(
    site: Site, host: Machine, release: str, meta: str
) -> None:
    before = deployed_with_kernel(site, host, release, meta)
    driver = installed(host)["libnvidia-compute-580-server"]

    site.secure(host, release, with_kernel(NEXT_KERNEL, meta, LONG_TERM, *before))
    said = upgrade_unattended(host)
    # The kernel that runs keeps its module until it is removed itself.
    for kernel in (KERNEL, NEXT_KERNEL):
        assert modules_of(host, kernel) == [LONG_TERM], said
    host.reboot()
    upgrade_unattended(host)
    assert modules_of(host, NEXT_KERNEL) == [LONG_TERM]
    assert installed(host)["libnvidia-compute-580-server"] == driver
    assert probe(host, settings())["driver"] == LONG_TERM
    assert changed_by(host, settings()) == []


@pytest.mark.flavours
def test_a_module_that_unattended_upgrades_left_behind_comes_by_the_next_deploy(
    site: Site, host: Machine
) -> None:
    release, meta, newer = "ubuntu-24.04", "generic", "580.182.01"
    before = deployed_with_kernel(site, host, release, meta)

    # The new kernel's module needs a driver that is held and on the blacklist.
    site.secure(host, release, with_kernel(NEXT_KERNEL, meta, newer, *before))
    said = upgrade_unattended(host)
    host.ssh(f"test -e /boot/vmlinuz-{NEXT_KERNEL}")
    assert modules_of(host, NEXT_KERNEL) == [] and modules_of(host, KERNEL) == [LONG_TERM], said
    assert (
        f"kernel {NEXT_KERNEL} boots next" in deploy(host, install_nvidia_driver, settings()).output
    )
    assert modules_of(host, NEXT_KERNEL) == [newer]
    assert "libnvidia-compute-580-server" in held(host)
    assert probe(host, settings())["driver"] == newer
    assert changed_by(host, settings()) == []


@pytest.mark.flavours
def test_dkms_builds_the_module_of_a_kernel_that_unattended_upgrades_bring(
    site: Site, host: Machine
) -> None:
    release, following = "debian-13", "6.12.57+deb13-amd64"
    furnish(host, "rtx-5070-ti", release)
    before = [
        *kernel_image(DEBIAN_KERNEL, "linux-image-amd64"),
        *kernel_headers(DEBIAN_KERNEL, "linux-headers-amd64"),
    ]
    site.secure(host, release, before)
    host.ssh("apt-get -qq -y install linux-image-amd64")
    assert deploy(host, configure_system, settings()).succeeded
    options = site.dkms()
    changed_by(host, options)

    # Once with its headers, which the metapackage of the headers brings, and once without.
    image = kernel_image(following, "linux-image-amd64")
    site.secure(host, release, [*before, *image, *kernel_headers(following, "linux-headers-amd64")])
    said = upgrade_unattended(host)
    assert modules_of(host, following) == [NEWER], said
    host.reboot()
    assert probe(host, options)["driver"] == NEWER
    assert changed_by(host, options) == []

    last = "6.12.63+deb13-amd64"
    host.ssh("apt-mark hold linux-headers-amd64")
    image = kernel_image(last, "linux-image-amd64")
    site.secure(host, release, [*before, *image, *kernel_headers(last, "linux-headers-amd64")])
    said = upgrade_unattended(host)
    assert modules_of(host, last) == [], said
    outcome = deploy(host, install_nvidia_driver, options)
    assert outcome.succeeded, outcome.output
    assert f"linux-headers-{last} is not installed" in outcome.output
    assert modules_of(host, last) == [NEWER]
    assert probe(host, options)["driver"] == NEWER
    assert changed_by(host, options) == []


@pytest.mark.flavours
@pytest.mark.parametrize("offered", [True, False])
def test_kernel_that_is_older_than_the_newest_headers(
    site: Site, host: Machine, offered: bool
) -> None:
    """A host that was not updated before its first deploy."""
    release, newest = "debian-13", "6.12.57+deb13-amd64"
    furnish(host, "rtx-5070-ti", release)
    image = kernel_image(DEBIAN_KERNEL, "linux-image-amd64")
    own = kernel_headers(DEBIAN_KERNEL) if offered else []
    site.secure(host, release, [*image, *own, *kernel_headers(newest, "linux-headers-amd64")])
    host.ssh("apt-get -qq -y install linux-image-amd64")
    options = site.dkms()
    if offered:
        assert changed_by(host, options)
        assert modules_of(host, DEBIAN_KERNEL) == [NEWER]
        assert changed_by(host, options) == []
    else:
        refused = deploy(host, install_nvidia_driver, options)
        assert not refused.succeeded
        assert f"offers linux-headers-{DEBIAN_KERNEL}; install the newest" in refused.output


@pytest.mark.flavours
def test_debians_own_open_driver_is_found_by_what_its_module_says(
    site: Site, host: Machine
) -> None:
    furnish(host, "two-rtx-4090", "debian-13")
    site.offer(host, site.debians_own)
    options = settings(nvidia_driver_source="distribution", nvidia_driver_allow_unmaintained=True)
    assert changed_by(host, options)
    host.ssh("ls /lib/modules/*/updates/dkms/nvidia-current-open.ko")
    assert probe(host, options)["driver"] == "550.163.01"
    # NVIDIA's unit that writes the CDI spec does not know this name.
    host.ssh("apt-get -qq -y install --no-install-recommends docker.io")
    assert converge(host, install_container_toolkit, toolkit_of(site)).changed
    host.ssh("rm /var/run/cdi/nvidia.yaml && systemctl restart nvidia-cdi-refresh")
    spec = host.ssh("cat /var/run/cdi/nvidia.yaml").stdout
    assert all(gpu.uuid in spec for gpu in PROFILES["two-rtx-4090"].gpus)


def test_a_gpu_that_takes_no_power_limit_is_asked_once(site: Site, host: Machine) -> None:
    ubuntu_host(site, host, "two-rtx-4090")
    host.ssh("mkdir -p /run/llmhost-double && touch /run/llmhost-double/1.fixed-power")
    host.ssh("printf 'f /run/llmhost-double/1.fixed-power\\n' >/etc/tmpfiles.d/double.conf")
    options = settings(nvidia_driver_power_limit_watts=300)
    first = deploy(host, install_nvidia_driver, options)
    assert first.succeeded, first.output
    again = deploy(host, install_nvidia_driver, options)
    assert again.succeeded and again.changed == [], again.output
    assert "GPU 1 rejects the power limit; it has 450 W" in again.output


def test_without_leave_to_reboot_the_host_is_refused_until_somebody_has(
    site: Site, host: Machine
) -> None:
    ubuntu_host(site, host, "rtx-5070-ti")
    options = settings(nvidia_driver_reboot="never")
    before = boot_id(host)
    assert f"module {LONG_TERM} is installed but not loaded" in refusal(host, options)
    assert boot_id(host) == before
    host.reboot()
    assert changed_by(host, options)
    # Somebody upgrades by hand: libraries of another version under the loaded module.
    host.ssh(
        "apt-mark unhold $(apt-mark showhold) && apt-get -qq -y install"
        " nvidia-utils-595-server linux-modules-nvidia-580-server-open-generic-"
        f" linux-modules-nvidia-580-server-open-{KERNEL}-"
    )
    host.ssh("apt-get -qq -y install linux-modules-nvidia-595-server-open-generic")
    options = settings(nvidia_driver_reboot="never", nvidia_driver_branch=595)
    said = refusal(host, options)
    assert f"module {LONG_TERM} is loaded, and {NEWER} is installed" in said


@pytest.mark.flavours
def test_debian_takes_the_closed_module_for_pascal_from_nvidia(site: Site, host: Machine) -> None:
    furnish(host, "gtx-1080-ti", "debian-13")
    assert "Pascal ends with branch 580" in refusal(host, settings())
    furnish(host, "gtx-1080-ti", "debian-12")
    base = {"nvidia_driver_repository_url": site.url}
    wrong = settings(**base, nvidia_driver_repository_fingerprint="0" * 40)
    assert "could not be fetched" in refusal(host, wrong)
    assert installed(host) == {}
    options = settings(**base, nvidia_driver_repository_fingerprint=site.nvidia.fingerprint)
    assert changed_by(host, options)
    assert "Open" not in host.ssh("cat /proc/driver/nvidia/version").stdout
    assert installed(host)["nvidia-kernel-dkms"] == f"{LONG_TERM}-1"
    policy = host.ssh("apt-cache policy nvidia-driver-cuda").stdout
    assert f"Candidate: {LONG_TERM}-1" in policy and f"{NEWER}-1" in policy
    assert probe(host, options)["driver"] == LONG_TERM


def test_a_plan_names_the_packages_where_apt_knows_of_none(
    site: Site, host: Machine, tmp_path: Path
) -> None:
    """What a bundle has to bring (docs/air-gap.md)."""
    ubuntu_host(site, host, "rtx-5070-ti")
    host.ssh("rm -r /var/lib/apt/lists/*")
    data = {"preflight_min_free_disk_gib": 0, "preflight_min_memory_gib": 1, "gateway_tls": "off"}
    data |= {"services": ["redis"], "api_clients": [{"name": "app", "sha256": "cd" * 32}]}
    inventory = tmp_path / "inventory.py"
    hosts = [(host.name, {"ssh_config_file": str(host.ssh_config)})]
    inventory.write_text(f"servers = ({hosts!r}, {data!r})\n")

    command = [sys.executable, "-m", "llmhost.cli", "plan", str(inventory), "--json"]
    planned = subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert planned.returncode == 2, planned.stdout + planned.stderr
    (found,) = json.loads(planned.stdout)["hosts"]
    (driver,) = [step for step in found["steps"] if "driver" in step["operation"]]
    assert "linux-modules-nvidia-580-server-open-generic is not installed" in driver["reasons"]


@pytest.mark.flavours
def test_a_branch_whose_packages_keep_their_names_is_changed_up_and_down(
    site: Site, host: Machine
) -> None:
    furnish(host, "two-rtx-4090", "debian-12")
    base = {
        "nvidia_driver_repository_url": site.url,
        "nvidia_driver_repository_fingerprint": site.nvidia.fingerprint,
    }
    for branch, module in ((580, "closed"), (595, "open"), (580, "closed")):
        options = settings(**base, nvidia_driver_branch=branch, nvidia_driver_module=module)
        assert changed_by(host, options)
        assert probe(host, options)["driver"].startswith(f"{branch}.")
        found = installed(host)
        pins = [name for name in found if name.startswith("nvidia-driver-pinning-")]
        assert pins == [f"nvidia-driver-pinning-{branch}"]
        assert ("nvidia-kernel-open-dkms" in found) is (module == "open")
        assert set(found) <= held(host)


@pytest.mark.flavours
def test_an_nvswitch_host_gets_the_fabric_manager_of_its_drivers_version(
    site: Site, host: Machine
) -> None:
    ubuntu_host(site, host, "h200-nvswitch")
    assert changed_by(host, settings())
    found = installed(host)
    # 580.182.01 is on offer too, and newer.
    assert found["nvidia-fabricmanager-580"].startswith(f"{LONG_TERM}-")
    assert found["libnvidia-nscq-580"].startswith(f"{LONG_TERM}-")
    assert {"nvidia-fabricmanager-580", "libnvidia-nscq-580"} <= held(host)
    host.ssh("systemctl is-active nvidia-fabricmanager")


def test_hosts_that_no_driver_can_serve_are_refused_and_others_left_alone(
    site: Site, host: Machine
) -> None:
    before = host.ssh("dpkg -l").stdout
    furnish(host, "none")
    assert changed_by(host, settings()) == []
    furnish(host, "pascal-and-blackwell")
    assert "remove one of the GPUs" in refusal(host, settings())
    furnish(host, "rtx-5070-ti")
    unreachable = refusal(host, settings())
    assert "linux-modules-nvidia-580-server-open" in unreachable
    assert "No package source of this host offers" in unreachable
    assert host.ssh("dpkg -l").stdout == before


@pytest.mark.flavours
def test_a_driver_that_can_not_be_installed_stops_the_host_and_a_better_one_mends_it(
    site: Site, host: Machine
) -> None:
    furnish(host, "rtx-5070-ti", "ubuntu-24.04")
    site.offer(host, site.broken_ubuntu)
    host.ssh("apt-get -qq -y install linux-image-generic")
    before = boot_id(host)
    assert BAD_MODULE in refusal(host, settings())
    assert boot_id(host) == before
    site.offer(host, site.ubuntu)
    assert changed_by(host, settings())
    assert probe(host, settings())["driver"] == LONG_TERM


@pytest.mark.flavours
def test_wsl_keeps_the_driver_of_windows(site: Site, host: Machine) -> None:
    furnish(host, "wsl", windows_driver=False)
    # The GPU may be another maker's; only a service that asks for NVIDIA's makes it an error.
    assert changed_by(host, settings()) == []
    furnish(host, "wsl")
    host.ssh("echo init >/run/comm && mount --bind /run/comm /proc/1/comm")
    host.ssh("printf '[user]\\ndefault=kim\\n' >/etc/wsl.conf")
    assert "wsl.exe --shutdown" in refusal(host, settings())
    assert host.ssh("cat /etc/wsl.conf").stdout.endswith("[boot]\nsystemd=true\n")
    host.ssh("umount /proc/1/comm")
    assert changed_by(host, settings())  # nothing but the probe
    assert installed(host) == {}
    assert probe(host, settings())["driver"] == "581.15"
    options = toolkit_of(site)
    host.ssh("apt-get -qq update && apt-get -qq -y install --no-install-recommends docker.io")
    assert converge(host, install_container_toolkit, options).changed
    names = host.ssh("grep -h name: /var/run/cdi/*.yaml").stdout.split()
    assert names == ["name:", "all"]
    assert set(installed(host)) == {deb.name for deb in TOOLKIT}
    # A Linux driver hides that of Windows.
    site.offer(host, site.ubuntu)
    host.ssh("apt-get -qq -y install nvidia-utils-580-server")
    assert "apt-get purge libnvidia-compute-580-server" in refusal(host, settings())


def toolkit_of(site: Site) -> Settings:
    return settings(
        container_toolkit_repository_url=f"{site.url}/toolkit",
        container_toolkit_key_url=f"{site.url}/toolkit/amd64/gpg",
        container_toolkit_repository_fingerprint=site.toolkit.fingerprint,
    )


def test_containers_get_their_gpu_and_the_probe_finds_them_on_it(
    site: Site, host: Machine, tmp_path: Path
) -> None:
    ubuntu_host(site, host, "two-rtx-4090")
    options = toolkit_of(site)
    changed_by(host, options)
    host.ssh("apt-get -qq -y install --no-install-recommends docker.io docker-cli busybox-static")
    host.ssh("echo stale >/etc/apt/sources.list.d/nvidia-docker.list")
    assert converge(host, install_container_toolkit, options).changed
    host.ssh("test ! -e /etc/apt/sources.list.d/nvidia-docker.list")

    host.ssh("tar -C / -c bin/busybox | docker import - box")
    second = PROFILES["two-rtx-4090"].gpus[1].uuid
    sleep = "box /bin/busybox sleep 3600"
    given = host.ssh(f"docker run -d --device nvidia.com/gpu={second} {sleep}").stdout.strip()
    bare = host.ssh(f"docker run -d {sleep}").stdout.strip()
    zeroth, first = probe(host, options)["gpus"]
    assert [each["container"] for each in zeroth["processes"]] == []
    assert [each["container"] for each in first["processes"]] == [given] != [bare]
    assert first["processes"][0]["command"] == "busybox"
    verify(host, options, tmp_path)

    # A GPU fell out, and the spec still describes it.
    furnish(host, "rtx-5070-ti", "ubuntu-24.04")
    assert converge(host, install_container_toolkit, options).changed
    names = host.ssh("grep name: /var/run/cdi/nvidia.yaml").stdout
    assert second not in names and PROFILES["rtx-5070-ti"].gpus[0].uuid in names


def verify(machine: Machine, options: Settings, directory: Path) -> None:
    """The server tests of driver and toolkit pass, and say that they proved it on a double."""
    data = {"ssh_config_file": str(machine.ssh_config)}
    data |= {f"container_toolkit_{key}": value for key, value in options.container_toolkit}
    place, report = directory / "site.json", directory / "report.xml"
    place.write_text(json.dumps({machine.name: data}))
    tests = [f"llmhost/checks/test_{name}.py" for name in ("nvidia_driver", "container_toolkit")]
    paths = ["--site", str(place), "--junitxml", str(report)]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths, *tests],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert 'value="proven on a double"' in report.read_text()
    assert 'value="proven on hardware"' not in report.read_text()
