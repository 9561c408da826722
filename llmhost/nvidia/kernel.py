"""The kernel that a module is for: which package brings its headers or a prebuilt module."""

import re
from dataclasses import dataclass

from llmhost.nvidia.driver import Unsatisfiable


@dataclass(frozen=True)
class Kernel:
    """What the packages depend on. `release` is `uname -r` of the kernel that boots next,
    `images` the installed packages, among them `linux-image-*` and `linux-headers-*`."""

    release: str
    images: tuple[str, ...]

    @property
    def flavour(self) -> str:
        """What follows the ABI in an Ubuntu kernel's release (`nvidia-64k` in
        `6.8.0-1030-nvidia-64k`); empty for a kernel that is not Ubuntu's."""
        match = _UBUNTU.match(self.release)
        return match["flavour"] if match else ""


# The ABI of a mainline kernel (kernel.ubuntu.com) begins with a zero: `6.14.0-061400-generic`.
_UBUNTU = re.compile(r"^\d+\.\d+\.\d+-(?!0)\d+-(?P<flavour>[a-z][a-z0-9-]*)$")
# Flavours with prebuilt modules: packages.ubuntu.com, source packages linux-restricted-modules*.
_CLOUDS = ("aws", "azure", "gcp", "gke", "ibm", "oracle")
_PREBUILT = ("generic", "lowlatency", "nvidia", "nvidia-lowlatency", "oem", *_CLOUDS)
# What a metapackage's name adds to the flavour: `-hwe-24.04`, `-lts-24.04`, `-24.04b`, `-6.14`.
_META = re.compile(
    r"^linux-image-(?P<flavour>[a-z][a-z0-9-]*?)((-(hwe|lts))?-\d+\.\d+[a-z]?(-edge)?)?$"
)
_DEBIAN = re.compile(r"-(?P<flavour>(cloud-|rt-)?(amd64|arm64)(-16k)?)$")
_PROXMOX = re.compile(r"-\d+-pve$")


def prebuilt_kernel(kernel: Kernel) -> str | None:
    """What follows the branch in the name of Ubuntu's prebuilt modules for a kernel.

    The name of the kernel's metapackage (`generic-hwe-24.04`), so that modules follow the kernel
    through its updates; the release of a kernel installed without one; nothing for a kernel that
    Ubuntu builds no modules for.
    """
    if kernel.flavour.removesuffix("-64k") not in _PREBUILT:
        return None
    return _metapackage(kernel) or kernel.release


def extra_modules_package(kernel: Kernel) -> tuple[str, ...]:
    """What brings InfiniBand's modules, if the kernel's own package does not require it: Ubuntu's
    kernels for clouds leave it out."""
    if kernel.flavour.removesuffix("-64k") not in _CLOUDS:
        return ()
    return (f"linux-modules-extra-{_metapackage(kernel) or kernel.release}",)


def _metapackage(kernel: Kernel) -> str | None:
    """The installed metapackage that brings this kernel, without `linux-image-`.

    An HWE kernel is newer than the release's own and so boots first.
    """
    found = []
    for image in kernel.images:
        # A virtual machine's kernel is the generic one with fewer modules of its own.
        name = re.sub(r"^linux-image-virtual(?=-|$)", "linux-image-generic", image)
        match = _META.match(name)
        if match and match["flavour"] == kernel.flavour:
            found.append(name.removeprefix("linux-image-"))
    return max(found, default=None)


def own_headers(kernel: Kernel) -> str:
    """The package with the headers of exactly this kernel."""
    source = "proxmox" if _PROXMOX.search(kernel.release) else "linux"
    return f"{source}-headers-{kernel.release}"


def headers_package(distribution: str, kernel: Kernel) -> str:
    """What DKMS builds against: the metapackage where there is one, so that updates bring it.

    Raises Unsatisfiable for a kernel whose headers no package source has.
    """
    own = f"linux-headers-{kernel.release}"
    if _PROXMOX.search(kernel.release):
        return "proxmox-default-headers"
    if distribution == "debian" and (match := _DEBIAN.search(kernel.release)):
        return f"linux-headers-{match['flavour']}"
    if distribution == "ubuntu" and kernel.flavour:
        meta = _metapackage(kernel)
        return f"linux-headers-{meta}" if meta else own
    if own in kernel.images:
        return own
    name = distribution.capitalize()
    raise Unsatisfiable(
        f"kernel {kernel.release} is not one of {name}'s, and its headers are not installed: "
        f"install {own} for it or boot one of {name}'s kernels, or set nvidia_driver_managed = "
        "False and install the driver yourself"
    )
