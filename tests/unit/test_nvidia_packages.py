"""Package names, for each release, source, module and kernel."""

import re
import subprocess
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Literal

import pytest

from llmhost.nvidia.driver import RELEASES, Choice, Unsatisfiable
from llmhost.nvidia.kernel import Kernel, headers_package, prebuilt_kernel
from llmhost.nvidia.packages import (
    DKMS_KEYS,
    REPORTED,
    TOOLKIT,
    UPGRADE_BLACKLIST,
    check_signature,
    driver_packages,
    follows_the_kernel,
    foreign_packages,
    packages,
)
from llmhost.nvidia.repository import driver_repository

GA = Kernel("6.8.0-85-generic", ("linux-image-generic", "linux-image-6.8.0-85-generic"))
MAINTAINED = (580, 595, 615)
HWE = Kernel("6.17.0-40-generic", ("linux-image-generic", "linux-image-generic-hwe-24.04"))
DEBIAN = Kernel("6.12.48+deb13-amd64", ("linux-image-amd64",))


def kernel_of(release: str) -> Kernel:
    return DEBIAN if release.startswith("debian") else HWE


Case = tuple[str, Choice, Kernel, tuple[str, ...]]
CASES: list[Case] = [
    (
        "ubuntu-22.04",
        Choice(580, "closed", "distribution"),
        Kernel("5.15.0-160-generic", ("linux-image-generic",)),
        (
            "linux-modules-nvidia-580-server-generic",
            "nvidia-headless-no-dkms-580-server",
            "nvidia-utils-580-server",
            "nvidia-compute-utils-580-server",
        ),
    ),
    (
        "ubuntu-24.04",
        Choice(595, "open", "distribution"),
        HWE,
        (
            "linux-modules-nvidia-595-server-open-generic-hwe-24.04",
            "nvidia-headless-no-dkms-595-server-open",
            "nvidia-utils-595-server",
            "nvidia-compute-utils-595-server",
        ),
    ),
    (
        "ubuntu-24.04",
        Choice(580, "open", "nvidia"),
        GA,
        (
            "nvidia-driver-pinning-580",
            "linux-headers-generic",
            "nvidia-dkms-580-open",
            "libnvidia-compute-580",
            "nvidia-utils-580",
            "nvidia-persistenced",
        ),
    ),
    (
        "ubuntu-26.04",
        Choice(595, "open", "nvidia"),
        GA,
        (
            "nvidia-driver-pinning-595",
            "linux-headers-generic",
            "nvidia-dkms-open",
            "libnvidia-compute",
            "nvidia-persistenced",
        ),
    ),
    (
        "debian-12",
        Choice(580, "closed", "nvidia"),
        DEBIAN,
        (
            "nvidia-driver-pinning-580",
            "linux-headers-amd64",
            "nvidia-kernel-dkms",
            "nvidia-driver-cuda",
            "nvidia-persistenced",
        ),
    ),
    (
        "debian-13",
        Choice(595, "open", "nvidia"),
        DEBIAN,
        (
            "nvidia-driver-pinning-595",
            "linux-headers-amd64",
            "nvidia-kernel-open-dkms",
            "nvidia-driver-cuda",
            "nvidia-persistenced",
        ),
    ),
    (
        "debian-13",
        Choice(550, "open", "distribution"),
        Kernel("6.12.48+deb13-cloud-amd64", ("linux-image-cloud-amd64",)),
        (
            "linux-headers-cloud-amd64",
            "nvidia-open-kernel-dkms",
            "nvidia-smi",
            "libcuda1",
            "nvidia-persistenced",
        ),
    ),
]


@pytest.mark.parametrize(("release", "choice", "kernel", "names"), CASES)
def test_the_packages_of_a_choice(
    release: str, choice: Choice, kernel: Kernel, names: tuple[str, ...]
) -> None:
    assert packages(choice, release, kernel, nvswitch=False).all == names


@pytest.mark.parametrize(
    ("kernel", "suffix"),
    [
        (GA, "generic"),
        (HWE, "generic-hwe-24.04"),
        (Kernel("6.8.0-85-generic", ("linux-image-virtual",)), "generic"),
        (Kernel("6.17.0-40-generic", ("linux-image-virtual-hwe-24.04",)), "generic-hwe-24.04"),
        (Kernel("6.8.0-1030-aws", ("linux-image-aws", "linux-image-generic")), "aws"),
        (Kernel("6.8.0-85-generic", ("linux-image-6.8.0-85-generic",)), "6.8.0-85-generic"),
        (Kernel("6.8.0-1030-aws", ("linux-image-aws-lts-24.04",)), "aws-lts-24.04"),
        (
            Kernel("6.11.0-1027-oem", ("linux-image-oem-24.04b", "linux-image-oem-24.04")),
            "oem-24.04b",
        ),
        (
            Kernel("6.8.0-85-generic-64k", ("linux-image-generic-64k-hwe-24.04",)),
            "generic-64k-hwe-24.04",
        ),
        (Kernel("6.17.0-1026-nvidia", ("linux-image-nvidia-hwe-24.04",)), "nvidia-hwe-24.04"),
        (Kernel("6.8.0-1030-nvidia-64k", ("linux-image-nvidia-64k",)), "nvidia-64k"),
        (Kernel("6.8.0-85-generic", ("linux-image-generic-6.8",)), "generic-6.8"),
        (Kernel("6.8.0-1030-raspi", ("linux-image-raspi",)), None),
        (Kernel("6.12.1-custom", ()), None),
        (Kernel("6.14.0-061400-generic", ("linux-image-generic",)), None),
        (Kernel("6.6.87.2-microsoft-standard-WSL2", ()), None),
    ],
)
def test_prebuilt_modules_follow_the_kernels_metapackage(
    kernel: Kernel, suffix: str | None
) -> None:
    assert prebuilt_kernel(kernel) == suffix


@pytest.mark.parametrize("release", ["6.12.1-custom", "6.14.0-061400-generic"])
def test_a_kernel_without_prebuilt_modules_gets_dkms_and_its_headers(release: str) -> None:
    choice = Choice(580, "open", "distribution")
    kernel = Kernel(release, (f"linux-headers-{release}", "linux-image-generic"))
    found = packages(choice, "ubuntu-24.04", kernel, nvswitch=False)
    assert found.names[:2] == (f"linux-headers-{release}", "nvidia-headless-580-server-open")
    assert not found.signed


@pytest.mark.parametrize(
    ("distribution", "kernel", "headers"),
    [
        ("debian", Kernel("6.12.48+deb13-arm64", ()), "linux-headers-arm64"),
        ("debian", Kernel("6.12.48+deb13-cloud-arm64", ()), "linux-headers-cloud-arm64"),
        ("debian", Kernel("6.12.48+deb13-arm64-16k", ()), "linux-headers-arm64-16k"),
        ("debian", Kernel("6.1.0-40-rt-amd64", ()), "linux-headers-rt-amd64"),
        ("debian", Kernel("6.8.12-4-pve", ()), "proxmox-default-headers"),
        (
            "ubuntu",
            Kernel("6.8.0-1030-raspi", ("linux-image-raspi",)),
            "linux-headers-raspi",
        ),
        (
            "ubuntu",
            Kernel("6.8.0-1030-aws", ("linux-image-aws-lts-24.04",)),
            "linux-headers-aws-lts-24.04",
        ),
    ],
)
def test_dkms_gets_the_headers_of_the_kernels_own_flavour(
    distribution: str, kernel: Kernel, headers: str
) -> None:
    assert headers_package(distribution, kernel) == headers


@pytest.mark.parametrize("distribution", ["debian", "ubuntu"])
def test_a_kernel_of_nobody_is_refused_unless_its_headers_are_there(distribution: str) -> None:
    with pytest.raises(Unsatisfiable, match=r"install linux-headers-6\.12\.1-custom for it"):
        headers_package(distribution, Kernel("6.12.1-custom", ()))
    mainline = "6.14.0-061400-generic"
    with pytest.raises(Unsatisfiable, match=f"install linux-headers-{mainline} for it"):
        headers_package(distribution, Kernel(mainline, ("linux-image-generic",)))
    there = Kernel("6.12.1-custom", ("linux-headers-6.12.1-custom",))
    assert headers_package(distribution, there) == "linux-headers-6.12.1-custom"


def test_dgx_spark_gets_the_series_that_its_kernel_has_modules_of() -> None:
    kernel = Kernel("6.17.0-1026-nvidia", ("linux-image-nvidia-hwe-24.04",))
    choice = Choice(580, "open", "distribution")
    found = packages(choice, "ubuntu-24.04", kernel, nvswitch=False)
    assert found.names == (
        "linux-modules-nvidia-580-open-nvidia-hwe-24.04",
        "nvidia-headless-no-dkms-580-open",
        "nvidia-utils-580",
        "nvidia-compute-utils-580",
    )
    assert found.module == "linux-modules-nvidia-580-open-6.17.0-1026-nvidia"


def test_an_hgx_board_behind_infiniband_gets_its_subnet_manager_and_module() -> None:
    choice = Choice(580, "open", "nvidia")
    found = packages(choice, "ubuntu-24.04", HWE, nvswitch=False, infiniband=True)
    assert found.fabric == ("nvidia-fabricmanager", "libnvidia-nscq")
    assert "nvlsm" in found.names and found.kernel_modules == ("ib_umad",)
    assert not any("extra" in name for name in found.names)
    cloud = Kernel("6.8.0-1030-aws", ("linux-image-aws",))
    aws = packages(choice, "ubuntu-24.04", cloud, nvswitch=False, infiniband=True)
    assert "linux-modules-extra-aws" in aws.names
    with pytest.raises(Unsatisfiable, match="no NVLink subnet manager"):
        packages(
            Choice(580, "open", "distribution"),
            "ubuntu-24.04",
            HWE,
            nvswitch=False,
            infiniband=True,
        )


@pytest.mark.parametrize(
    ("release", "choice", "fabric"),
    [
        (
            "ubuntu-24.04",
            Choice(580, "open", "distribution"),
            ("nvidia-fabricmanager-580", "libnvidia-nscq-580"),
        ),
        ("debian-13", Choice(595, "open", "nvidia"), ("nvidia-fabricmanager", "libnvidia-nscq")),
    ],
)
def test_an_nvswitch_host_gets_the_fabric_manager_and_its_unit(
    release: str, choice: Choice, fabric: tuple[str, ...]
) -> None:
    found = packages(choice, release, kernel_of(release), nvswitch=True)
    assert found.fabric == fabric
    assert "nvidia-fabricmanager.service" in found.units
    assert not packages(choice, release, kernel_of(release), nvswitch=False).fabric


def test_nvswitches_are_refused_where_no_fabric_manager_is_packaged() -> None:
    with pytest.raises(Unsatisfiable, match="no fabric manager"):
        packages(Choice(550, "open", "distribution"), "debian-13", DEBIAN, nvswitch=True)


MODULES: tuple[Literal["open", "closed"], ...] = ("open", "closed")
CHOICES = [
    (release, Choice(branch, module, "nvidia"))
    for release, branch, module in product(RELEASES, MAINTAINED, MODULES)
] + [
    (release, Choice(branch, module, "distribution"))
    for release, branch, module in product(RELEASES, MAINTAINED, MODULES)
    if release.startswith("ubuntu")
]


@pytest.mark.parametrize(("release", "choice"), CHOICES)
def test_unattended_upgrades_keeps_off_every_part_of_every_driver(
    release: str, choice: Choice
) -> None:
    found = packages(choice, release, kernel_of(release), nvswitch=True)
    drivers = [
        name
        for name in found.all
        if not name.startswith("linux-headers-") and not follows_the_kernel(name)
    ]
    assert [name for name in drivers if not name.startswith(UPGRADE_BLACKLIST)] == []
    assert [name for name in TOOLKIT if not name.startswith(UPGRADE_BLACKLIST)] == []


@pytest.mark.parametrize(("release", "choice"), CHOICES)
def test_no_driver_is_foreign_to_itself(release: str, choice: Choice) -> None:
    own = packages(choice, release, kernel_of(release), nvswitch=True).all
    assert foreign_packages([*own, *TOOLKIT], choice, release, kernel_of(release)) == ()


@pytest.mark.parametrize(("release", "choice"), CHOICES)
def test_another_branch_is_foreign_as_far_as_its_names_tell(release: str, choice: Choice) -> None:
    other = Choice(470, choice.module, "distribution")
    installed = packages(other, "ubuntu-24.04", GA, nvswitch=True).all
    found = foreign_packages(installed, choice, release, kernel_of(release))
    assert set(found) == set(installed)


@pytest.mark.parametrize(
    ("installed", "choice", "foreign"),
    [
        (
            ("linux-modules-nvidia-580-server-generic", "nvidia-kernel-common-580-server"),
            Choice(580, "open", "distribution"),
            ("linux-modules-nvidia-580-server-generic",),
        ),
        (
            ("nvidia-dkms-open", "libnvidia-compute", "nvidia-driver-pinning-595", "nvidia-prime"),
            Choice(595, "open", "distribution"),
            ("libnvidia-compute", "nvidia-dkms-open", "nvidia-driver-pinning-595"),
        ),
        (
            ("nvidia-utils-595-server", "libnvidia-compute-595-server"),
            Choice(595, "open", "nvidia"),
            ("libnvidia-compute-595-server", "nvidia-utils-595-server"),
        ),
        (
            ("nvidia-driver-pinning-580", "nvidia-driver-pinning-580.95.05"),
            Choice(580, "open", "nvidia"),
            ("nvidia-driver-pinning-580.95.05",),
        ),
        (
            ("nvidia-driver-pinning-595.58.03", "nvidia-firmware-580-580.95.05"),
            Choice(580, "open", "nvidia"),
            ("nvidia-driver-pinning-595.58.03",),
        ),
    ],
)
def test_parts_of_another_module_or_source_are_foreign(
    installed: tuple[str, ...], choice: Choice, foreign: tuple[str, ...]
) -> None:
    assert foreign_packages(installed, choice, "ubuntu-24.04", GA) == foreign


DESKTOP = (
    *("nvidia-driver-580-open", "nvidia-utils-580", "libnvidia-gl-580"),
    *("linux-modules-nvidia-580-open-generic", "xserver-xorg-video-nvidia-580"),
)
SERVER = ("nvidia-driver-580-server-open", "nvidia-utils-580-server", "libnvidia-gl-580-server")
NEITHER = ("nvidia-fabricmanager-580", "libnvidia-nscq-580", "nvidia-imex-580", "nvidia-prime")
SPARK = Kernel("6.17.0-1026-nvidia", ("linux-image-nvidia-hwe-24.04",))


@pytest.mark.parametrize(
    ("choice", "kernel", "foreign"),
    [
        (Choice(580, "open", "distribution"), HWE, DESKTOP),
        (Choice(580, "open", "distribution"), SPARK, SERVER),
        (Choice(580, "open", "nvidia"), HWE, SERVER),
    ],
)
def test_the_other_series_of_the_same_branch_is_foreign(
    choice: Choice, kernel: Kernel, foreign: tuple[str, ...]
) -> None:
    installed = (*DESKTOP, *SERVER, *NEITHER)
    assert set(foreign_packages(installed, choice, "ubuntu-24.04", kernel)) == set(foreign)


def test_numbers_in_names_are_ubuntus_where_nvidias_repository_has_none() -> None:
    theirs = ("nvidia-utils-595", "libnvidia-compute-595", "nvidia-fabricmanager-595")
    own = ("nvidia-driver-pinning-595", "nvidia-dkms-open", "libnvidia-compute", "cuda-drivers-595")
    choice = Choice(595, "open", "nvidia")
    found = foreign_packages((*theirs, *own), choice, "ubuntu-24.04", HWE)
    assert set(found) == set(theirs)


def test_the_abi_of_a_kernel_is_not_taken_for_a_branch() -> None:
    kernel = "6.8.0-111-generic"
    own = (f"linux-modules-nvidia-580-server-open-{kernel}", f"linux-signatures-nvidia-{kernel}")
    choice = Choice(580, "open", "distribution")
    assert foreign_packages(own, choice, "ubuntu-24.04", GA) == ()


def test_every_package_of_a_prebuilt_module_is_known_and_follows_the_kernel() -> None:
    parts = {
        "linux-modules-nvidia-580-server-open-generic",
        "linux-modules-nvidia-580-server-open-6.8.0-85-generic",
        "linux-objects-nvidia-580-server-open-6.8.0-85-generic",
        "linux-signatures-nvidia-6.8.0-85-generic",
    }
    assert driver_packages(parts) == parts
    assert all(follows_the_kernel(name) for name in parts)
    assert not any(name.startswith(UPGRADE_BLACKLIST) for name in parts)
    assert not follows_the_kernel("nvidia-kernel-common-580-server")
    other = Choice(595, "open", "distribution")
    foreign = set(foreign_packages(parts, other, "ubuntu-24.04", GA))
    assert foreign == {name for name in parts if "580" in name}


def test_all_that_debians_own_driver_brings_is_known_and_left_alone() -> None:
    parts = {  # seen installed with nvidia-open-kernel-dkms 550.163.01-2
        *("firmware-nvidia-gsp", "glx-alternative-nvidia", "libnvidia-ml1", "nvidia-alternative"),
        *("nvidia-installer-cleanup", "nvidia-kernel-common", "nvidia-modprobe", "nvidia-support"),
    }
    assert driver_packages(parts) == parts
    assert all(name.startswith(UPGRADE_BLACKLIST) for name in parts)


def test_a_name_with_nvidia_makes_no_driver() -> None:
    others = {
        *("nvidia-docker2", "nvidia-container-runtime", "nvidia-cuda-toolkit", "nvidia-cudnn"),
        *("nvidia-settings", "nvidia-prime", "nvidia-nsight-systems", "nvidia-dgx-telemetry"),
        *("libnvidia-ml-dev", "libnvidia-egl-wayland1", "nvidia-driver-assistant"),
        *("nvidia-driver-local-repo-ubuntu2404-580.95.05", "nvidia-fs-dkms", "nvidia-detect"),
    }
    assert driver_packages(others) == set()


def test_every_part_of_a_desktops_driver_is_known() -> None:
    parts = {
        *DESKTOP,
        *("nvidia-compute-utils-580", "nvidia-dkms-580-open", "nvidia-kernel-source-580-open"),
        *("nvidia-kernel-common-580", "nvidia-firmware-580-580.95.05", "libnvidia-cfg1-580"),
        *("nvidia-headless-no-dkms-580", "nvidia-driver-cuda", "nvidia-open", "cuda-drivers-580"),
        *("nvidia-opencl-icd", "nvidia-vdpau-driver", "nvidia-tesla-535-driver", "libcuda1"),
        *("nvidia-suspend-common", "libnvidia-eglcore", "libnvidia-ml1", "nvlsm"),
    }
    assert driver_packages(parts) == parts
    loose = {name for name in parts if not name.startswith(UPGRADE_BLACKLIST)}
    assert loose == {"linux-modules-nvidia-580-open-generic"}
    assert all(any(fnmatch(name, pattern) for pattern in REPORTED) for name in parts)


def test_the_toolkit_is_no_part_of_a_driver() -> None:
    assert driver_packages([*TOOLKIT, "nvidia-utils-580", "nginx"]) == {"nvidia-utils-580"}


@pytest.mark.parametrize(
    ("release", "machine", "uri", "key"),
    [
        ("ubuntu-22.04", "x86_64", "ubuntu2204/x86_64/", "3bf863cc.pub"),
        ("ubuntu-24.04", "aarch64", "ubuntu2404/sbsa/", "3bf863cc.pub"),
        ("ubuntu-26.04", "x86_64", "ubuntu2604/x86_64/", "60DF8A40.pub"),
        ("debian-12", "x86_64", "debian12/x86_64/", "3bf863cc.pub"),
        ("debian-13", "x86_64", "debian13/x86_64/", "8793F200.pub"),
    ],
)
def test_nvidias_repository_and_key_for_each_release(
    release: str, machine: str, uri: str, key: str
) -> None:
    found = driver_repository("https://nvidia.example/repos", None, release, machine)
    assert found.uri == f"https://nvidia.example/repos/{uri}"
    assert found.key_url == found.uri + key
    assert found.fingerprint.endswith(key.removesuffix(".pub").upper())


def test_a_mirror_may_sign_with_its_own_key() -> None:
    own = "0123456789ABCDEF0123456789ABCDEF01234567"
    found = driver_repository("http://mirror.example/cuda", own, "debian-13", "x86_64")
    assert (found.fingerprint, found.key_url[-12:]) == (own, "01234567.pub")


PREBUILT = packages(Choice(580, "open", "distribution"), "ubuntu-24.04", GA, nvswitch=False)
DKMS = packages(Choice(580, "open", "nvidia"), "debian-13", DEBIAN, nvswitch=False)


def test_secure_boot_refuses_a_module_signed_with_an_unknown_key() -> None:
    with pytest.raises(Unsatisfiable, match=r"mokutil --import /var/lib/dkms/mok\.pub"):
        check_signature(DKMS, "debian", DKMS_KEYS["debian"])
    with pytest.raises(Unsatisfiable, match='nvidia_driver_source = "distribution"') as refusal:
        check_signature(DKMS, "ubuntu", DKMS_KEYS["ubuntu"])
    assert "update-secureboot-policy --new-key" in str(refusal.value)


def test_key_that_does_not_exist_yet_is_created_where_dkms_looks(tmp_path: Path) -> None:
    """A bare host has no DKMS, and gets none before its key is enrolled."""
    with pytest.raises(Unsatisfiable) as refusal:
        check_signature(DKMS, "debian", DKMS_KEYS["debian"])
    (create,) = re.findall("`(apt-get .*)`", str(refusal.value))
    create = create.partition(" && ")[2].replace("/var/lib/dkms", str(tmp_path / "dkms"))
    subprocess.run(["sh", "-c", create], check=True, capture_output=True, timeout=60)
    show = ["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-in"]
    shown = subprocess.run([*show, str(tmp_path / "dkms/mok.pub")], capture_output=True, text=True)
    assert "DKMS module signing key" in shown.stdout and (tmp_path / "dkms/mok.key").exists()


def test_a_module_that_the_distribution_signed_is_accepted() -> None:
    check_signature(PREBUILT, "ubuntu", DKMS_KEYS["ubuntu"])
