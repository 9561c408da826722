"""Names of the packages that make up a driver, for each release, source and module.

Headless throughout: no package pulls in a display server. Pure.

Sources: ubuntu-server-documentation (install-nvidia-drivers), packages.ubuntu.com,
packages.debian.org, NVIDIA's Driver Installation Guide r590.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmhost.nvidia_driver import Choice, Unsatisfiable

DKMS_KEYS = {"ubuntu": "/var/lib/shim-signed/mok/MOK.der", "debian": "/var/lib/dkms/mok.pub"}
"""Where a distribution's DKMS keeps the public key that it signs modules with."""

DRIVER_PATTERNS = ("linux-modules-nvidia-*", "nvidia-*", "libnvidia-*", "cuda-drivers*")
"""dpkg patterns of everything a driver may consist of; the toolkit's packages match too."""

TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
"""The container toolkit; since 1.18 the four must have exactly the same version."""

# Entries of unattended-upgrades' Package-Blacklist are regular expressions anchored at the start.
UPGRADE_BLACKLIST = ("nvidia-", "libnvidia-", "linux-modules-nvidia-", "cuda-")
"""What unattended-upgrades must leave alone; `libnvidia-` covers the toolkit's library."""


@dataclass(frozen=True)
class Kernel:
    """What the packages depend on. `release` is `uname -r` of the kernel that boots next,
    `images` the installed `linux-image-*` packages."""

    release: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Packages:
    """A driver as packages. `pinning` is installed in a run of its own, before the others;
    `signed` tells that the module carries the distribution's signature; `services` are the units
    that the packages bring."""

    names: tuple[str, ...]
    signed: bool
    pinning: str | None = None
    services: tuple[str, ...] = ("nvidia-persistenced.service",)

    @property
    def all(self) -> tuple[str, ...]:
        """Everything to be held, the pinning package included."""
        return (*((self.pinning,) if self.pinning else ()), *self.names)


def packages(choice: Choice, release: str, kernel: Kernel, *, nvswitch: bool) -> Packages:
    """The packages of a choice on a release (`ubuntu-24.04`)."""
    distribution = release.partition("-")[0]
    if choice.source == "nvidia":
        pinning = f"nvidia-driver-pinning-{choice.branch}"
        names = _from_nvidia(choice, distribution, kernel)
        switch = ("nvidia-fabricmanager", "libnvidia-nscq")
        found = Packages(names, signed=False, pinning=pinning)
    elif distribution == "ubuntu":
        found = _from_ubuntu(choice, kernel)
        switch = (f"nvidia-fabricmanager-{choice.branch}", f"libnvidia-nscq-{choice.branch}")
    else:
        found = Packages(_from_debian(choice), signed=False)
        switch = ()
    return _with_fabric(found, release, switch) if nvswitch else found


def _with_fabric(found: Packages, release: str, switch: Sequence[str]) -> Packages:
    """NVSwitch hosts do no CUDA at all before their fabric manager, of exactly the driver's
    version, has set the fabric up."""
    if not switch:
        raise Unsatisfiable(
            f"{release} packages no fabric manager, which a host with NVSwitches needs: "
            'set nvidia_driver_source = "nvidia"'
        )
    services = (*found.services, "nvidia-fabricmanager.service")
    return Packages((*found.names, *switch), found.signed, found.pinning, services)


def _from_nvidia(choice: Choice, distribution: str, kernel: Kernel) -> tuple[str, ...]:
    headers = headers_package(distribution, kernel)
    suffix = "-open" if choice.module == "open" else ""
    if distribution == "debian":
        module = f"nvidia-kernel{suffix}-dkms"
        return (headers, module, "nvidia-driver-cuda", "nvidia-persistenced")
    # From 590 on the names carry no branch; the pinning package selects it.
    branch = f"-{choice.branch}" if choice.branch < 590 else ""
    utilities = (f"nvidia-utils{branch}",) if branch else ()
    module = f"nvidia-dkms{branch}{suffix}"
    return (headers, module, f"libnvidia-compute{branch}", *utilities, "nvidia-persistenced")


def _from_ubuntu(choice: Choice, kernel: Kernel) -> Packages:
    flavour = f"{choice.branch}-server" + ("-open" if choice.module == "open" else "")
    utilities = (
        f"nvidia-utils-{choice.branch}-server",
        f"nvidia-compute-utils-{choice.branch}-server",
    )
    if prebuilt := prebuilt_kernel(kernel):
        module = f"linux-modules-nvidia-{flavour}-{prebuilt}"
        return Packages((module, f"nvidia-headless-no-dkms-{flavour}", *utilities), signed=True)
    headers = headers_package("ubuntu", kernel)
    return Packages((headers, f"nvidia-headless-{flavour}", *utilities), signed=False)


def _from_debian(choice: Choice) -> tuple[str, ...]:
    module = "nvidia-open-kernel-dkms" if choice.module == "open" else "nvidia-kernel-dkms"
    return ("linux-headers-amd64", module, "nvidia-smi", "libcuda1", "nvidia-persistenced")


_FLAVOURS = ("generic", "lowlatency", "nvidia", "aws", "azure", "gcp", "oracle")
_META = re.compile(rf"^linux-image-(?P<meta>(?:virtual|{'|'.join(_FLAVOURS)})(?:-hwe-[\d.]+)?)$")


def prebuilt_kernel(kernel: Kernel) -> str | None:
    """What follows the branch in the name of Ubuntu's prebuilt modules for a kernel.

    The name of the kernel's metapackage (`generic-hwe-24.04`), so that modules follow the kernel
    through its updates; the release of a kernel installed without one; nothing for a kernel that
    Ubuntu builds no modules for. An HWE kernel is newer than the release's own and so boots first.
    """
    flavour = kernel.release.rpartition("-")[2]
    if flavour not in _FLAVOURS:
        return None
    found = [match["meta"] for image in kernel.images if (match := _META.match(image))]
    # A virtual machine's kernel is the generic one with fewer modules of its own.
    metas = [meta.replace("virtual", "generic") for meta in found]
    fitting = sorted(meta for meta in metas if meta.partition("-hwe-")[0] == flavour)
    return fitting[-1] if fitting else kernel.release


def headers_package(distribution: str, kernel: Kernel) -> str:
    """What DKMS builds against: the metapackage where there is one, so that updates bring it."""
    if distribution == "debian":
        architecture = "cloud-amd64" if "cloud" in kernel.release else "amd64"
        return f"linux-headers-{architecture}"
    return f"linux-headers-{prebuilt_kernel(kernel) or kernel.release}"


def check_signature(
    found: Packages, distribution: str, *, secure_boot: bool, enrolled: bool
) -> None:
    """Refuse a module that Secure Boot would not load.

    `enrolled` tells that the machine owner key (MOK) of this host's DKMS is. Raises Unsatisfiable.
    """
    if not secure_boot or found.signed or enrolled:
        return
    other = ' (or set nvidia_driver_source = "distribution": Ubuntu signs its modules)'
    raise Unsatisfiable(
        "Secure Boot is on, and DKMS signs the module it builds with a key that this host's "
        "firmware does not know, so the kernel would not load it: enrol the key with "
        f"'mokutil --import {DKMS_KEYS[distribution]}', reboot, confirm it on the console, "
        f"then deploy again{other if distribution == 'ubuntu' else ''}"
    )


def driver_packages(installed: Iterable[str]) -> frozenset[str]:
    """Those of the installed packages that belong to some driver, whatever its branch."""
    toolkit = frozenset(TOOLKIT)
    known = re.compile(r"^(linux-modules-nvidia|nvidia|libnvidia|cuda-drivers|libcuda1)(-|$)")
    return frozenset(name for name in installed if known.match(name)) - toolkit
