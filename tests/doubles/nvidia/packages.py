"""Doubles of NVIDIA's packages under their real names, with doubles of what they bring."""

import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tests.doubles.apt_repository import DebDouble
from tests.doubles.nvidia.module import build_module

KERNEL = "6.8.0-85-generic"
DEBIAN_KERNEL = "6.12.48+deb13-amd64"
"""The kernels that the doubles are built for."""
_HERE = Path(__file__).parent
_LIBRARY = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so"
_CANONICAL = "Canonical Ltd. Kernel Module Signing"


def ubuntu_driver(
    version: str, *, open_module: bool, revision: str = "0ubuntu0.24.04.1", meta: str = "generic"
) -> list[DebDouble]:
    """Ubuntu's server driver of this upstream version, with its signed prebuilt module."""
    server = f"{version.partition('.')[0]}-server"
    full = f"{version}-{revision}"
    same = f"(= {full})"
    return [
        *ubuntu_modules(version, open_module=open_module, revision=revision, meta=meta),
        DebDouble(
            f"nvidia-headless-no-dkms-{server}{'-open' if open_module else ''}",
            full,
            fields={"Depends": f"libnvidia-compute-{server} {same}"},
        ),
        DebDouble(f"nvidia-kernel-common-{server}", full),
        DebDouble(
            f"libnvidia-compute-{server}",
            full,
            _library(version),
            {"Provides": "libnvidia-compute"} | {"Conflicts": "libnvidia-compute"},
        ),
        DebDouble(
            f"nvidia-utils-{server}",
            full,
            _smi(version),
            {"Depends": f"libnvidia-compute-{server} {same}", "Provides": "nvidia-utils"}
            | {"Conflicts": "nvidia-utils"},
        ),
        DebDouble(
            f"nvidia-compute-utils-{server}",
            full,
            _persistence_daemon(),
            {"Provides": "nvidia-compute-utils", "Conflicts": "nvidia-compute-utils"},
        ),
        *fabric(f"-{version.partition('.')[0]}", full),
    ]


def ubuntu_modules(
    version: str,
    *,
    open_module: bool,
    revision: str = "0ubuntu0.24.04.1",
    meta: str = "generic",
    kernel: str = KERNEL,
) -> list[DebDouble]:
    """Ubuntu's prebuilt module for a kernel, as source linux-restricted-modules makes it: the
    metapackage, the package of the kernel, the objects that it is linked from, and the signatures
    of all modules of this kernel. A module depends on the driver's version, or a newer one."""
    server = f"{version.partition('.')[0]}-server"
    flavour = f"{server}-open" if open_module else server
    abi = kernel.rpartition("-")[0]
    full = f"{abi.replace('-', '.', 1)}+{version}-{revision}"
    common = f"nvidia-kernel-common-{server} (>= {version})"
    own = f"linux-modules-nvidia-{flavour}-{kernel}"
    objects = f"linux-objects-nvidia-{flavour}-{kernel}"
    signatures = f"linux-signatures-nvidia-{kernel}"
    place = f"kernel/nvidia-{flavour.replace('-server', 'srv')}"
    module = _module(version, open_module, place, _CANONICAL, kernel=kernel)
    needs = f"kmod, {objects} (= {full}), {signatures}, {common}"
    return [
        DebDouble(
            f"linux-modules-nvidia-{flavour}-{meta}",
            full,
            fields={"Depends": f"{own} (= {full}), {common}"},
        ),
        DebDouble(own, full, module, {"Depends": needs}, postinst=f"depmod {kernel}"),
        DebDouble(objects, full, fields={"Depends": signatures}),
        DebDouble(signatures, abi),
    ]


def debian_driver(version: str, *, open_module: bool) -> list[DebDouble]:
    """The driver of this upstream version from NVIDIA's repository for Debian."""
    full = f"{version}-1"
    module = _module(version, open_module, "updates/dkms", kernel=DEBIAN_KERNEL)
    name = "nvidia-kernel-open-dkms" if open_module else "nvidia-kernel-dkms"
    return [
        DebDouble(name, full, module, {"Depends": "kmod"}, postinst=f"depmod {DEBIAN_KERNEL}"),
        DebDouble("nvidia-driver-cuda", full, fields={"Depends": f"nvidia-smi (= {full})"}),
        DebDouble("nvidia-smi", full, _smi(version), {"Depends": f"libnvidia-ml1 (= {full})"}),
        DebDouble("libnvidia-ml1", full, _library(version)),
        DebDouble("nvidia-persistenced", full, _persistence_daemon()),
        *fabric("", full),
    ]


def debians_own_driver(version: str) -> list[DebDouble]:
    """The driver of this upstream version as Debian packages it: its DKMS calls the open module
    nvidia-current-open.ko (dkms.conf of nvidia-open-kernel-dkms 550.163.01-2)."""
    full = f"1:{version}-2"  # newer than the real ones, which a machine's archive may have
    module = _module(
        version, True, "updates/dkms", kernel=DEBIAN_KERNEL, file="nvidia-current-open"
    )
    depends = {"Depends": f"kmod, firmware-nvidia-gsp (= {full})"}
    kmod = DebDouble(
        "nvidia-open-kernel-dkms", full, module, depends, postinst=f"depmod {DEBIAN_KERNEL}"
    )
    return [
        kmod,
        DebDouble("firmware-nvidia-gsp", full),
        DebDouble("nvidia-smi", full, _smi(version), {"Depends": f"libnvidia-ml1 (= {full})"}),
        DebDouble("libnvidia-ml1", full, _library(version)),
        DebDouble("libcuda1", full),
        DebDouble("nvidia-persistenced", full, _persistence_daemon()),
    ]


def kernel_image(kernel: str, *names: str) -> list[DebDouble]:
    """A kernel and the metapackages that bring it, newer than those of `headers`. It runs the hooks
    of other packages, as the real one does."""
    abi = kernel.rpartition("-")[0]
    own = f"linux-image-{kernel}"
    return [
        DebDouble(own, abi, {f"/boot/vmlinuz-{kernel}": "double\n"}, postinst=_hooks(kernel)),
        *(DebDouble(name, f"9:{abi}", fields={"Depends": own}) for name in names),
    ]


def kernel_headers(kernel: str, *names: str) -> list[DebDouble]:
    """Headers of a kernel and the metapackages that bring them."""
    abi = kernel.rpartition("-")[0]
    own = f"linux-headers-{kernel}"
    source = f"/usr/src/linux-headers-{kernel}"
    link = f"mkdir -p /lib/modules/{kernel} && ln -sfn {source} /lib/modules/{kernel}/build"
    return [
        DebDouble(
            own,
            abi,
            {f"{source}/include/double.h": "\n"},
            postinst=f"{link}\n{_hooks(kernel, 'header_postinst.d')}",
        ),
        *(DebDouble(name, f"9:{abi}", fields={"Depends": own}) for name in names),
    ]


def _hooks(kernel: str, directory: str = "postinst.d") -> str:
    """What linux-run-hooks(1) does after an installation."""
    hooks = f"/etc/kernel/{directory}"
    return f"! test -d {hooks} || run-parts --exit-on-error --arg={kernel} {hooks}"


def debian_dkms_driver(version: str) -> list[DebDouble]:
    """NVIDIA's open driver for Debian with a module that Debian's real DKMS builds for each kernel
    that has headers; its build copies what was compiled before."""
    name, full = "nvidia-kernel-open-dkms", f"{version}-1"
    source = f"/usr/src/nvidia-{version}"
    configuration = (
        f'PACKAGE_NAME="nvidia"\nPACKAGE_VERSION="{version}"\nAUTOINSTALL="yes"\n'
        'BUILT_MODULE_NAME[0]="nvidia"\nDEST_MODULE_LOCATION[0]="/updates/dkms"\n'
        'MAKE[0]="cp compiled nvidia.ko"\nCLEAN="true"\nSTRIP[0]="no"\n'
    )
    (compiled,) = _module(version, True, "", kernel="").values()
    files: dict[str, str | bytes] = {
        f"{source}/dkms.conf": configuration,
        f"{source}/compiled": compiled,
    }
    build = (
        f"dkms add nvidia/{version}\nfor each in /lib/modules/*/build; do\n"
        '  kernel=${each#/lib/modules/}; dkms autoinstall -k "${kernel%/build}"\ndone'
    )
    dkms = DebDouble(name, full, files, {"Depends": "dkms, kmod"}, postinst=build)
    return [dkms, *debian_driver(version, open_module=True)[1:]]


def distinct(packages: Iterable[DebDouble]) -> list[DebDouble]:
    """Each package once: some belong to several drivers."""
    return [*{(each.name, each.version): each for each in packages}.values()]


def pinning(branch: int) -> DebDouble:
    """The package that makes apt stay in a branch: preferences, as in NVIDIA's."""
    preferences = f"Package: nvidia-* libnvidia-*\nPin: version {branch}.*\nPin-Priority: 1000\n"
    path = "/etc/apt/preferences.d/nvidia-driver-pin"
    other = dict.fromkeys(("Provides", "Conflicts", "Replaces"), "nvidia-driver-pinning")
    return DebDouble(f"nvidia-driver-pinning-{branch}", f"{branch}-1", {path: preferences}, other)


def fabric(suffix: str, version: str) -> list[DebDouble]:
    """The fabric manager and its library."""
    unit = _unit("Fabric manager (double)", "/usr/bin/nv-fabricmanager")
    files = {
        "/usr/lib/systemd/system/nvidia-fabricmanager.service": unit,
        "/usr/bin/nv-fabricmanager": "#!/bin/sh\nexec sleep infinity\n",
    }
    return [
        DebDouble(f"nvidia-fabricmanager{suffix}", version, files),
        DebDouble(f"libnvidia-nscq{suffix}", version),
    ]


def headers(*names: str) -> list[DebDouble]:
    """Packages of the kernel, empty. With an epoch they are newer than Debian's own, which would
    bring a real kernel along."""
    return [DebDouble(name, "9:6.8.0-85") for name in names]


def toolkit(version: str) -> list[DebDouble]:
    """The container toolkit with its refresh units, as since 1.18."""
    upstream = version.partition("-")[0]
    same = f"(= {version})"
    base = "/usr/lib/systemd/system/nvidia-cdi-refresh"
    files: dict[str, str | bytes] = {
        "/usr/bin/nvidia-ctk": _script("nvidia-ctk", upstream),
        "/usr/bin/nvidia-cdi-hook": "#!/bin/sh\nexit 0\n",
        "/usr/lib/llmhost-double/bin/nvidia-smi": container_smi(),
        f"{base}.service": _REFRESH,
        f"{base}.service.d/10-container-engines.conf": (
            "[Unit]\nBefore=docker.service containerd.service\n[Service]\nTimeoutStartSec=90s\n"
        ),
        f"{base}.path": (
            "[Unit]\nDescription=CDI spec (double)\n[Path]\nPathChanged=/usr/bin/nvidia-ctk\n"
            f"PathChanged=/lib/modules/{KERNEL}/modules.dep\n"
            f"PathChanged=/lib/modules/{DEBIAN_KERNEL}/modules.dep\n"
            "[Install]\nWantedBy=multi-user.target\n"
        ),
    }
    files["/usr/bin/nvidia-container-runtime"] = '#!/bin/sh\nexec runc "$@"\n'
    depends = f"nvidia-container-toolkit-base {same}, libnvidia-container-tools {same}"
    # The real one ignores a failure, too: there may be no driver yet.
    refresh = "systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service || true"
    return [
        DebDouble("nvidia-container-toolkit", version, fields={"Depends": depends}),
        DebDouble("nvidia-container-toolkit-base", version, files, postinst=refresh),
        DebDouble(
            "libnvidia-container-tools", version, fields={"Depends": f"libnvidia-container1 {same}"}
        ),
        DebDouble("libnvidia-container1", version),
    ]


# As strict as the toolkit's own unit since 1.20.1: conditions, limits, capabilities. The kernel is
# the one that the machine seems to run (%v is that of its host).
_REFRESH = """\
[Unit]
Description=CDI spec (double)
ConditionPathExists=|/usr/bin/nvidia-smi
ConditionPathExists=|/usr/lib/wsl/lib/nvidia-smi
ConditionPathExists=/usr/bin/nvidia-ctk
StartLimitBurst=5
StartLimitIntervalSec=10s
[Service]
Type=oneshot
ExecCondition=/bin/sh -c 'grep -qE "/(nvidia|nvidia-current)[.]ko" \
  /lib/modules/$$(cat /proc/sys/kernel/osrelease)/modules.dep || [ -e /dev/dxg ]'
ExecStart=/bin/sh -c '/usr/bin/nvidia-smi -L || /usr/lib/wsl/lib/nvidia-smi -L'
ExecStart=/usr/bin/nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml
CapabilityBoundingSet=CAP_SYS_MODULE CAP_SYS_ADMIN CAP_MKNOD
Restart=on-failure
RestartSec=1s
[Install]
WantedBy=multi-user.target
"""


@cache
def container_smi() -> bytes:
    """The double of nvidia-smi for containers."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch, "nvidia-smi")
        source = str(_HERE / "container-smi.c")
        subprocess.run(["gcc", "-static", "-s", "-o", str(built), source], check=True)
        return built.read_bytes()


def build_library(path: Path, version: str) -> None:
    """Compile the double of NVML as a driver of this version has it."""
    define = f'-DVERSION="{version}"'
    source = str(_HERE / "nvml.c")
    subprocess.run(["gcc", "-shared", "-fPIC", define, "-o", str(path), source], check=True)


def library(version: str) -> bytes:
    """The double of NVML as a driver of this version has it."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch, "library")
        build_library(built, version)
        return built.read_bytes()


def _library(version: str) -> dict[str, str | bytes]:
    built = library(version)
    # Versioned as the real one, so that a CDI spec that names it goes stale with the driver.
    return {f"{_LIBRARY}.1": built, f"{_LIBRARY}.{version}": built}


def _module(
    version: str,
    open_module: bool,
    directory: str,
    signer: str = "",
    *,
    kernel: str,
    file: str = "nvidia",
) -> dict[str, str | bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch, "nvidia.ko")
        build_module(built, version, open_module=open_module, signer=signer)
        return {f"/lib/modules/{kernel}/{directory}/{file}.ko": built.read_bytes()}


def smi(version: str) -> str:
    """The double of nvidia-smi as a driver of this version has it."""
    return _script("nvidia-smi", version)


def _smi(version: str) -> dict[str, str | bytes]:
    return {"/usr/bin/nvidia-smi": smi(version)}


def _script(name: str, version: str) -> str:
    return (_HERE / name).read_text().replace("@VERSION@", version)


def _persistence_daemon() -> dict[str, str | bytes]:
    daemon = "#!/bin/sh\ntest -e /proc/driver/nvidia/version && exec sleep infinity\n"
    unit = _unit("Persistence daemon (double)", "/usr/bin/nvidia-persistenced")
    return {
        "/usr/bin/nvidia-persistenced": daemon,
        "/usr/lib/systemd/system/nvidia-persistenced.service": unit,
    }


def _unit(description: str, program: str) -> str:
    return (
        f"[Unit]\nDescription={description}\n[Service]\nExecStart={program}\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
