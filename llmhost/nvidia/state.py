"""A host's NVIDIA hardware and software, as read by facts/nvidia.py."""

import base64
import gzip
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmhost.nvidia.driver import Module
from llmhost.nvidia.generation import Generation, generation_of, is_gpu, is_nvswitch
from llmhost.system.virtualization import is_wsl


@dataclass(frozen=True)
class PciDevice:
    """An NVIDIA function on the PCI bus: address, class (24 bits) and device id."""

    address: str
    pci_class: int
    device_id: int


@dataclass(frozen=True)
class KernelModule:
    """A version of the `nvidia` module; `signer` is empty when nobody signed it."""

    version: str
    kind: Module
    signer: str = ""


@dataclass(frozen=True)
class DriverPackage:
    """An installed package; `held` means that apt leaves it at its version."""

    version: str
    held: bool


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it. `power_limit_watts` is unset where the GPU has none to set,
    `mig` tells whether it is cut into MIG instances; `memory_bytes` is 0 where the GPU has no
    memory of its own."""

    index: int
    uuid: str
    pci_address: str
    driver: str
    persistence: bool
    power_limit_watts: float | None
    mig: bool
    product: str
    memory_bytes: int = 0


@dataclass(frozen=True)
class CdiSpec:
    """A Container Device Interface file: its kind (`nvidia.com/gpu`) and its devices' names."""

    path: str
    kind: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class NvidiaState:
    """One host.

    `init` is the name of process 1, `wsl_conf` the text of /etc/wsl.conf; `next_kernel` is the one
    that boots next, and `next_module` its module; `smi_error` is what nvidia-smi said instead of
    listing GPUs; `cdi_gone` are files that a CDI spec hands to containers and that are not there;
    `mok_keys` are the keys found enrolled; `reboot_packages` is unset when no package
    asks for a reboot.
    """

    release: str
    machine: str
    init: str
    running_kernel: str
    wsl_gpu: bool = False
    pci: tuple[PciDevice, ...] = ()
    wsl_conf: str = ""
    next_kernel: str = ""
    loaded: KernelModule | None = None
    next_module: KernelModule | None = None
    nouveau: bool = False
    initramfs_stale: bool = False
    secure_boot: bool = False
    mok_keys: tuple[str, ...] = ()
    packages: Mapping[str, DriverPackage] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    cdi: tuple[CdiSpec, ...] = ()
    cdi_gone: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    smi_error: str = ""
    reboot_packages: tuple[str, ...] | None = None

    @property
    def is_wsl(self) -> bool:
        """Whether it is the Windows Subsystem for Linux."""
        return is_wsl(self.running_kernel)

    @property
    def generations(self) -> tuple[Generation, ...]:
        """One for each GPU on the PCI bus."""
        devices = (device for device in self.pci if is_gpu(device.pci_class))
        return tuple(generation_of(device.device_id) for device in devices)

    @property
    def has_gpu(self) -> bool:
        """Whether there is NVIDIA hardware, with or without a driver. On WSL /dev/dxg stands for a
        GPU of any maker; NVIDIA's driver of Windows brings nvidia-smi along."""
        if self.is_wsl:
            return self.wsl_gpu and bool(self.gpus or self.smi_error)
        return bool(self.generations)

    @property
    def has_nvswitch(self) -> bool:
        return any(is_nvswitch(device.pci_class) for device in self.pci)

    @property
    def cdi_devices(self) -> frozenset[str]:
        """Names of all GPUs that some CDI spec describes, without the kind."""
        specs = (spec for spec in self.cdi if spec.kind == "nvidia.com/gpu")
        return frozenset(device for spec in specs for device in spec.devices)


def parse_state(lines: Iterable[str]) -> NvidiaState:
    """From lines `key value`; keys that name something of which there can be many repeat."""
    values: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition(" ")
        if value.strip():
            values.setdefault(key, []).append(value.strip())
    single = {key: found[0] for key, found in values.items()}
    return NvidiaState(
        release=single.get("release", ""),
        machine=single.get("machine", ""),
        init=single.get("init", ""),
        running_kernel=single.get("running_kernel", ""),
        wsl_gpu="wsl_gpu" in single,
        pci=tuple(_pci(value) for value in values.get("pci", [])),
        wsl_conf=base64.b64decode(single.get("wsl_conf", "is").removeprefix("is")).decode(),
        next_kernel=single.get("next_kernel", ""),
        loaded=_loaded(single.get("loaded", "")),
        next_module=_module(single),
        nouveau="nouveau" in single,
        initramfs_stale="initramfs" in single,
        secure_boot=single.get("secure_boot") == "1",
        mok_keys=tuple(values.get("mok", [])),
        packages=dict(found for value in values.get("package", []) if (found := _package(value))),
        units=tuple(values.get("unit", [])),
        cdi=tuple(_cdi(value) for value in values.get("cdi", [])),
        cdi_gone=tuple(values.get("cdi_gone", [])),
        gpus=tuple(_gpu(value) for value in values.get("gpu", []) if value.count(",") >= 8),
        smi_error=" ".join(values.get("smi_error", [])),
        reboot_packages=_reboot_packages(values),
    )


def _pci(value: str) -> PciDevice:
    address, pci_class, device = value.split()
    return PciDevice(address, int(pci_class, 16), int(device, 16))


_LOADED = re.compile(r"^NVRM version: (?P<text>.*?)\s+(?P<version>\d{3}(?:\.\d+)+)\s")


def _loaded(line: str) -> KernelModule | None:
    """First line of /proc/driver/nvidia/version: only the open module calls itself so."""
    if not (match := _LOADED.match(f"{line} ")):
        return None
    kind: Module = "open" if "Open Kernel Module" in match["text"] else "closed"
    return KernelModule(match["version"], kind)


def _module(single: Mapping[str, str]) -> KernelModule | None:
    """modinfo's fields: the open module is `Dual MIT/GPL`, the closed one `NVIDIA`."""
    if "module_version" not in single:
        return None
    kind: Module = "open" if "GPL" in single.get("module_license", "") else "closed"
    return KernelModule(single["module_version"], kind, single.get("module_signer", ""))


def _package(value: str) -> tuple[str, DriverPackage] | None:
    """`ii NAME VERSION`: the first letter is what is wanted, the second what is."""
    status, name, *rest = value.split()
    if not status[1:].startswith("i"):
        return None
    return name, DriverPackage(rest[0] if rest else "", status.startswith("h"))


def _cdi(value: str) -> CdiSpec:
    import yaml  # only hosts with a GPU need it, and it takes time

    path, _, content = value.partition(" ")
    try:
        spec: Any = yaml.safe_load(gzip.decompress(base64.b64decode(content)))
        devices = tuple(str(device["name"]) for device in spec["devices"])
        return CdiSpec(path, str(spec["kind"]), devices)
    except (ValueError, OSError, EOFError, KeyError, TypeError, yaml.YAMLError):
        return CdiSpec(path, "unreadable", ())


def _gpu(value: str) -> Gpu:
    index, uuid, pci, driver, persistence, power, mig, mib, product = (
        part.strip() for part in value.split(",", 8)
    )
    return Gpu(
        index=int(index),
        uuid=uuid,
        pci_address=pci.lower(),
        driver=driver,
        persistence=persistence == "Enabled",
        power_limit_watts=float(power) if re.fullmatch(r"[\d.]+", power) else None,
        mig=mig == "Enabled",
        product=product,
        memory_bytes=int(mib) << 20 if mib.isdecimal() else 0,
    )


def _reboot_packages(values: Mapping[str, list[str]]) -> tuple[str, ...] | None:
    """`by` and the names in /run/reboot-required.pkgs, which may be missing."""
    if "reboot_required" not in values:
        return None
    return tuple(values["reboot_required"][0].split()[1:])
