"""Names of the packages that make up a driver, for each release, source and module.

Headless throughout: no package pulls in a display server. Pure.

Sources: ubuntu-server-documentation (install-nvidia-drivers), packages.ubuntu.com,
packages.debian.org, NVIDIA's Driver Installation Guide r590.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from llmhost.nvidia.driver import Choice, Unsatisfiable
from llmhost.nvidia.kernel import (
    Kernel,
    extra_modules_package,
    headers_package,
    prebuilt_kernel,
)

DKMS_KEYS = {"ubuntu": "/var/lib/shim-signed/mok/MOK.der", "debian": "/var/lib/dkms/mok.pub"}
"""Where a distribution's DKMS keeps the public key that it signs modules with."""

_NEW_KEY = {
    "ubuntu": "apt-get install shim-signed mokutil && update-secureboot-policy --new-key",
    # As DKMS itself makes it at its first build, which is too late here.
    "debian": "apt-get install openssl mokutil && mkdir -p /var/lib/dkms && "
    "openssl req -new -x509 -nodes -days 36500 -subj '/CN=DKMS module signing key' "
    "-newkey rsa:2048 -keyout /var/lib/dkms/mok.key -outform DER -out /var/lib/dkms/mok.pub",
}
"""Commands that create this key, on a host where DKMS has built nothing yet."""

REPORTED = (
    *("linux-modules-nvidia-*", "linux-objects-nvidia-*", "linux-signatures-nvidia-*"),
    *("nvidia-*", "libnvidia-*", "cuda-drivers*", "libcuda1", "nvlsm", "firmware-nvidia-*"),
    *("glx-alternative-nvidia", "xserver-xorg-video-nvidia*"),
    *("linux-image-*", "linux-headers-*", "proxmox-headers-*", "proxmox-default-headers"),
)
"""dpkg patterns of everything that matters here; the toolkit's packages match too."""

TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
"""The container toolkit; since 1.18 the four must have exactly the same version."""

PINNING = "nvidia-driver-pinning-"
"""Packages of NVIDIA's repository that make apt stay in the branch that follows."""

# Entries of unattended-upgrades' Package-Blacklist are regular expressions anchored at the start.
UPGRADE_BLACKLIST = (
    *("nvidia-", "libnvidia-", "cuda-", "libcuda1", "nvlsm", "firmware-nvidia-"),
    *("glx-alternative-nvidia", "xserver-xorg-video-nvidia"),
)
"""What unattended-upgrades must leave alone; `libnvidia-` covers the toolkit's library. Ubuntu's
prebuilt modules are not in it: see `follows_the_kernel`."""


@dataclass(frozen=True)
class Packages:
    """A driver as packages. `pinning` goes first, in an apt run of its own, because it decides
    which versions the next run sees; `fabric` goes last, with exactly the driver's version.
    `signed`: the module carries the distribution's signature; `module` is the one
    prebuilt for the kernel that boots next, empty where DKMS builds it; `kernel_modules` are to be
    loaded at boot."""

    names: tuple[str, ...]
    signed: bool
    pinning: tuple[str, ...] = ()
    fabric: tuple[str, ...] = ()
    module: str = ""
    kernel_modules: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Everything to be installed."""
        return (*self.pinning, *self.names, *self.fabric)

    @property
    def units(self) -> tuple[str, ...]:
        """Units that must run for the GPUs to be usable."""
        fabric = ("nvidia-fabricmanager.service",) if self.fabric else ()
        return ("nvidia-persistenced.service", *fabric)


_UNNUMBERED_FROM = 590
"""The branch with which the names in NVIDIA's repository for Ubuntu lost their number."""


def packages(
    choice: Choice, release: str, kernel: Kernel, *, nvswitch: bool, infiniband: bool = False
) -> Packages:
    """The packages of a choice on a release (`ubuntu-24.04`).

    `nvswitch`: the host has NVSwitches; `infiniband`: they are reached through InfiniBand, as on
    HGX boards from B200 on. Raises Unsatisfiable.
    """
    distribution = release.partition("-")[0]
    fabric: tuple[str, ...] = ()
    if choice.source == "nvidia":
        found = _from_nvidia(choice, distribution, kernel)
        fabric = ("nvidia-fabricmanager", "libnvidia-nscq")
    elif distribution == "ubuntu":
        found = _from_ubuntu(choice, kernel)
        fabric = (f"nvidia-fabricmanager-{choice.branch}", f"libnvidia-nscq-{choice.branch}")
    else:
        found = _from_debian(choice, kernel)
    if not (nvswitch or infiniband):
        return found
    if not fabric or (infiniband and choice.source != "nvidia"):
        parts = "NVLink subnet manager" if infiniband else "fabric manager"
        raise Unsatisfiable(
            f"{release} packages no {parts}, without which a host with NVSwitches cannot "
            'use CUDA: set nvidia_driver_source = "nvidia"'
        )
    if infiniband:
        # The fabric manager checks for both (Fabric Manager User Guide, fourth generation).
        extra = extra_modules_package(kernel) if distribution == "ubuntu" else ()
        names = (*found.names, *extra, "nvlsm")
        found = replace(found, names=names, kernel_modules=("ib_umad",))
    return replace(found, fabric=fabric)


def _from_nvidia(choice: Choice, distribution: str, kernel: Kernel) -> Packages:
    headers = headers_package(distribution, kernel)
    open_ = "-open" if choice.module == "open" else ""
    names: tuple[str, ...]
    if distribution == "debian":
        names = (headers, f"nvidia-kernel{open_}-dkms", "nvidia-driver-cuda", "nvidia-persistenced")
    elif choice.branch < _UNNUMBERED_FROM:
        dkms, suffix = f"nvidia-dkms-{choice.branch}{open_}", f"-{choice.branch}"
        library, utilities = f"libnvidia-compute{suffix}", f"nvidia-utils{suffix}"
        names = (headers, dkms, library, utilities, "nvidia-persistenced")
    else:
        # The pinning package selects the branch.
        names = (headers, f"nvidia-dkms{open_}", "libnvidia-compute", "nvidia-persistenced")
    return Packages(names, signed=False, pinning=(f"{PINNING}{choice.branch}",))


def _from_ubuntu(choice: Choice, kernel: Kernel) -> Packages:
    series = f"{choice.branch}-server" if _is_server(choice, kernel) else f"{choice.branch}"
    flavour = f"{series}-open" if choice.module == "open" else series
    utilities = (f"nvidia-utils-{series}", f"nvidia-compute-utils-{series}")
    if prebuilt := prebuilt_kernel(kernel):
        modules = f"linux-modules-nvidia-{flavour}-"
        names = (f"{modules}{prebuilt}", f"nvidia-headless-no-dkms-{flavour}", *utilities)
        return Packages(names, signed=True, module=f"{modules}{kernel.release}")
    headers = headers_package("ubuntu", kernel)
    return Packages((headers, f"nvidia-headless-{flavour}", *utilities), signed=False)


def _is_server(choice: Choice, kernel: Kernel) -> bool:
    """Whether the wanted driver is one of Ubuntu's server series. Ubuntu builds no modules of it
    for NVIDIA's own kernel, that of DGX Spark."""
    return choice.source == "distribution" and not kernel.flavour.startswith("nvidia")


def _from_debian(choice: Choice, kernel: Kernel) -> Packages:
    """In the archive's components contrib, non-free and non-free-firmware."""
    module = "nvidia-open-kernel-dkms" if choice.module == "open" else "nvidia-kernel-dkms"
    headers = headers_package("debian", kernel)
    return Packages((headers, module, "nvidia-smi", "libcuda1", "nvidia-persistenced"), False)


def check_signature(found: Packages, distribution: str, key: str) -> None:
    """Refuse a module that Secure Boot would not load, because the key of this host's DKMS is no
    enrolled machine owner key (MOK). Raises Unsatisfiable.
    """
    if found.signed:
        return
    own = key == DKMS_KEYS[distribution]
    create = f". If there is no such file, create the key first: `{_NEW_KEY[distribution]}`"
    other = ' (or set nvidia_driver_source = "distribution": Ubuntu signs its modules)'
    raise Unsatisfiable(
        "Secure Boot is on, and DKMS signs the module it builds with a key that this host's "
        "firmware does not know, so the kernel would not load it: enroll the key with "
        f"`mokutil --import {key}`, reboot, confirm it on the console, then deploy again"
        f"{other if distribution == 'ubuntu' else ''}{create if own else ''}"
    )


_PREBUILT = re.compile(r"^linux-(modules|objects|signatures)-nvidia-")
# Much else is called nvidia-…: tools, the CUDA toolkit, helpers of containers.
_DRIVER = re.compile(
    rf"{_PREBUILT.pattern}"
    r"|^libnvidia-(?!container|egl-(gbm|wayland|xcb|xlib)|.*-dev$)"
    r"|^(cuda-drivers|libcuda1|nvlsm|firmware-nvidia|(glx-alternative|xserver-xorg-video)-nvidia)"
    r"(-|$)"
    r"|^nvidia-(tesla-(\d+-)?)?(alternative|compute-utils|cuda-mps|dkms"
    r"|driver(?!-(assistant|local))|(egl|opencl|vulkan)-(common|icd)|fabricmanager|firmware"
    r"|headless|imex|installer-cleanup|kernel|legacy-check|modprobe|open|persistenced|smi|support"
    r"|suspend-common|utils|vdpau-driver)(-|$)"
)
# The name of the signatures has no branch, and the kernel's ABI may look like one.
_BRANCH = re.compile(r"^(?!linux-signatures-).*?-(\d{3})(?=[-.]|$)")
_OF_BOTH_SERIES = re.compile(r"^(nvidia-(fabricmanager|imex)|libnvidia-nscq)-")
_MODULES = re.compile(
    r"^(linux-(modules|objects)-nvidia-|nvidia-(dkms|headless|kernel|open-kernel))"
)
_OF_ANY_MODULE = re.compile(r"^nvidia-kernel-(common|support)")
# What NVIDIA's repository calls the parts of a driver without a number, or its metapackages.
_UNNUMBERED = {
    "libnvidia-compute",
    "nvidia-dkms",
    "nvidia-dkms-open",
    "nvidia-open",
    "cuda-drivers",
}


_TWINS = _UNNUMBERED - {"cuda-drivers"} | {
    *("nvidia-utils", "nvidia-compute-utils", "nvidia-fabricmanager", "libnvidia-nscq")
}
_WITHOUT_NUMBER = re.compile(r"-\d{3}(?=-|$)")


def driver_packages(installed: Iterable[str]) -> frozenset[str]:
    """Those of the installed packages that belong to some driver, whatever its branch."""
    return frozenset(name for name in installed if _DRIVER.match(name))


def follows_the_kernel(package: str) -> bool:
    """Whether a part of a driver must be free to move with the kernel: Ubuntu's prebuilt modules.

    Held, they would leave the next kernel without a module. They cannot run ahead of the driver:
    each depends on `nvidia-kernel-common` of its own version or newer, which is held.
    """
    return bool(_PREBUILT.match(package))


def foreign_packages(
    installed: Iterable[str], choice: Choice, release: str, kernel: Kernel
) -> tuple[str, ...]:
    """Installed parts of another branch, series, module or source: they must go in the same apt
    run."""
    ubuntu, server = release.startswith("ubuntu"), _is_server(choice, kernel)
    parts = driver_packages(installed)
    return tuple(
        sorted(
            name
            for name in parts
            if _foreign(name, choice) or (ubuntu and _of_other_series(name, choice, server))
        )
    )


def _foreign(name: str, choice: Choice) -> bool:
    if name.startswith(PINNING):
        return choice.source == "distribution" or name != f"{PINNING}{choice.branch}"
    branch = _BRANCH.match(name)
    if branch and int(branch[1]) != choice.branch:
        return True
    if _MODULES.match(name) and not _OF_ANY_MODULE.match(name):
        return ("open" if "-open" in name else "closed") != choice.module
    return False


def _of_other_series(name: str, choice: Choice, server: bool) -> bool:
    """On Ubuntu: whether a part is of the desktop series instead of the server series or the other
    way round, or of Ubuntu instead of NVIDIA's repository or the other way round."""
    if name.startswith(PINNING):
        return False
    if not _BRANCH.match(name):
        return choice.source == "distribution" and name in _UNNUMBERED
    if choice.source == "nvidia" and choice.branch >= _UNNUMBERED_FROM:
        # Not each numbered name: a package without a number may need one, such as the firmware's.
        return "-server" in name or _WITHOUT_NUMBER.sub("", name) in _TWINS
    return ("-server" in name) != server and not _OF_BOTH_SERIES.match(name)
