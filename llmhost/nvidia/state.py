"""A host's NVIDIA hardware and software, as read by facts/nvidia.py."""

import base64
import codecs
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmhost.nvidia.data import MATRIX, Generation, Module
from llmhost.nvidia.generation import generation_of, is_gpu, is_nvswitch
from llmhost.system.virtualization import is_wsl


@dataclass(frozen=True)
class PciDevice:
    """An NVIDIA function on the PCI bus: address, class (24 bits) and device id; `vgpu`: a
    hypervisor's share of a GPU."""

    address: str
    pci_class: int
    device_id: int
    vgpu: bool = False


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
    `mig`: it is split into MIG instances; `memory_bytes` is 0 where the GPU has no
    memory of its own; `fault` is what nvidia-smi says instead of a value: `GPU is lost`.
    `power_range_watts`: the least and the greatest power limit that it takes."""

    index: int
    uuid: str
    pci_address: str
    driver: str
    persistence: bool
    power_limit_watts: float | None
    mig: bool
    product: str
    memory_bytes: int = 0
    fault: str = ""
    power_range_watts: tuple[float, float] | None = None


@dataclass(frozen=True)
class CdiSpec:
    """A Container Device Interface file: its kind (`nvidia.com/gpu`), its devices' names, the
    device nodes that it hands to containers, and those of its files that are not there."""

    path: str
    kind: str
    devices: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class NvidiaState:
    """One host.

    `init` is the name of process 1, `wsl_conf` the text of /etc/wsl.conf; `next_kernel` is the one
    that boots next, and `next_module` its module; `smi_error` is what nvidia-smi said instead of
    listing GPUs, `smi_warnings` what it warned of beside the list; `mok_keys` are the keys found
    enrolled, `dkms_key` the one that DKMS is configured to sign with, if it is not the
    distribution's; `reboot_packages` is unset when no package asks for a reboot; `board` names an
    embedded board; `offered` has the versions of the installed driver's libraries that the host's
    package sources offer; `power_refused` are the PCI addresses of GPUs that took no power limit
    when they were asked.
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
    dkms_key: str = ""
    packages: Mapping[str, DriverPackage] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    cdi: tuple[CdiSpec, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    smi_error: str = ""
    smi_warnings: tuple[str, ...] = ()
    reboot_packages: tuple[str, ...] | None = None
    board: str = ""
    offered: tuple[str, ...] = ()
    power_refused: tuple[str, ...] = ()

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
    def has_hgx_fabric(self) -> bool:
        """Whether it is a whole HGX board whose NVSwitches are reached through InfiniBand, and so
        are not NVIDIA's on the PCI bus. Each has eight GPUs; a guest with fewer has no switches."""
        gpus = [device for device in self.pci if is_gpu(device.pci_class)]
        return sum(device.device_id in MATRIX.hgx_infiniband for device in gpus) >= 8

    @property
    def cdi_devices(self) -> frozenset[str]:
        """Names of all GPUs that CDI can hand out, without the kind."""
        return frozenset(name for name, specs in self.cdi_winners.items() if len(specs) == 1)

    @property
    def cdi_winners(self) -> Mapping[str, tuple[CdiSpec, ...]]:
        """By GPU: the spec that CDI takes it from. Of two specs for one GPU it takes the one in the
        later directory, /var/run/cdi; two in the same directory cost it the GPU, whatever is in the
        other one (CDI's pkg/cdi/cache.go).
        """
        found: dict[str, tuple[CdiSpec, ...]] = {}
        for directory in ("/etc/cdi/", "/var/run/cdi/"):
            here: dict[str, tuple[CdiSpec, ...]] = {}
            for spec in self.cdi:
                if spec.kind == "nvidia.com/gpu" and spec.path.startswith(directory):
                    for device in spec.devices:
                        here[device] = (*here.get(device, ()), spec)
            found |= {name: specs for name, specs in here.items() if len(found.get(name, ())) < 2}
        return found


def parse_state(lines: Iterable[str]) -> NvidiaState:
    """From lines `key value`; keys that name something of which there can be many repeat."""
    values: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition(" ")
        if value.strip():
            values.setdefault(key, []).append(value.strip())
    single = {key: found[0] for key, found in values.items()}
    rows = values.get("gpu", [])
    gpus = tuple(_gpu(value) for value in rows if _ROW.match(value))
    messages = [value for value in rows if not _ROW.match(value)]
    warnings = [each for each in messages if gpus and _WARNING.match(each)]
    faulty = [each for each in messages if each not in warnings]
    return NvidiaState(
        release=single.get("release", ""),
        machine=single.get("machine", ""),
        init=single.get("init", ""),
        running_kernel=single.get("running_kernel", ""),
        wsl_gpu="wsl_gpu" in single,
        pci=tuple(_pci(value) for value in values.get("pci", [])),
        wsl_conf=_text(base64.b64decode(single.get("wsl_conf", "is").removeprefix("is"))),
        next_kernel=single.get("next_kernel", ""),
        loaded=_loaded(single.get("loaded", "")),
        next_module=_module(single),
        nouveau="nouveau" in single,
        initramfs_stale="initramfs" in single,
        secure_boot=single.get("secure_boot") == "1",
        mok_keys=tuple(values.get("mok", [])),
        dkms_key=single.get("dkms_key", ""),
        packages=dict(found for value in values.get("package", []) if (found := _package(value))),
        units=tuple(values.get("unit", [])),
        cdi=tuple(_cdi(value, values.get("cdi_gone", [])) for value in values.get("cdi", [])),
        gpus=gpus,
        smi_error=" ".join([*values.get("smi_error", []), *faulty]),
        smi_warnings=tuple(_WARNING.sub("", each) for each in warnings),
        reboot_packages=_reboot_packages(values),
        board=single.get("board", ""),
        offered=tuple(values.get("offered", [])),
        power_refused=tuple(_refused(values.get("power_said", []))),
    )


def _text(content: bytes) -> str:
    """The text of a file that may have been saved with an editor on Windows."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _pci(value: str) -> PciDevice:
    address, pci_class, device, *configuration = value.split()
    vgpu = _is_vgpu(bytes.fromhex(configuration[0])) if configuration else False
    return PciDevice(address, int(pci_class, 16), int(device, 16), vgpu)


def _is_vgpu(configuration: bytes) -> bool:
    """Whether the PCI configuration has NVIDIA's vendor-specific capability of a vGPU, which begins
    with `VF` (k8s-device-plugin, internal/vgpu)."""
    if len(configuration) < 256 or not configuration[6] & 0x10:
        return False
    position, seen = configuration[0x34], set[int]()
    while position and position not in seen and position < 250:
        seen.add(position)
        if configuration[position] == 0x09:
            return configuration[position + 3 : position + 5] == b"VF"
        position = configuration[position + 1]
    return False


def _refused(lines: Iterable[str]) -> Iterator[str]:
    """Addresses of the GPUs of which `nvidia-smi -pl` says that they take no limit."""
    for line in lines:
        if match := re.search(r"not supported.* for GPU:? *([0-9A-Fa-f:.]+?)\.?$", line):
            yield match[1].lower()


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


def _cdi(value: str, gone: Iterable[str]) -> CdiSpec:
    """`PATH CONTENT`; `gone` has `PATH FILE` for each file of a spec that is not there."""
    import yaml  # only hosts with a GPU need it, and it takes time

    path, _, content = value.partition(" ")
    missing = tuple(
        file for each, _, file in (line.partition(" ") for line in gone) if each == path
    )
    try:
        spec: Any = yaml.safe_load(gzip.decompress(base64.b64decode(content)))
        devices = tuple(str(device["name"]) for device in spec["devices"])
        edits = [each.get("containerEdits") or {} for each in (spec, *spec["devices"])]
        nodes = dict.fromkeys(
            str(node["path"]) for each in edits for node in each.get("deviceNodes") or []
        )
        return CdiSpec(path, str(spec["kind"]), devices, tuple(nodes), missing)
    except (ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return CdiSpec(path, "unreadable", ())


_NONE = {"[N/A]", "[Not Supported]"}
_ROW = re.compile(r"\d+(,[^,]*){9},")
"""A row of nvidia-smi that names a GPU; any other line is a message."""
_WARNING = re.compile(r"WARNING:\s*", re.IGNORECASE)
_ERROR = re.compile(r"\[.+\]|ERR!")


def _gpu(value: str) -> Gpu:
    """A row of nvidia-smi, in which `[N/A]` is what the GPU does not have. A GPU whose identity or
    memory is an error does not work; other fields may be errors because the driver does not know
    what they ask."""
    fields = [part.strip() for part in value.split(",", 10)]
    index, uuid, pci, driver, persistence, power, mig, mib, least, most, product = fields
    faults = [each for each in (uuid, pci, driver) if _ERROR.fullmatch(each)]
    faults += [] if mib.isdecimal() else [mib]
    faults = [each for each in faults if each not in _NONE]
    lowest, highest = _watts(least), _watts(most)
    return Gpu(
        index=int(index),
        uuid=uuid,
        pci_address=pci.lower(),
        driver=driver,
        persistence=persistence == "Enabled",
        power_limit_watts=_watts(power),
        mig=mig == "Enabled",
        product=product,
        memory_bytes=int(mib) << 20 if mib.isdecimal() else 0,
        fault=faults[0].strip("[]") if faults else "",
        power_range_watts=(lowest, highest) if lowest is not None and highest else None,
    )


def _watts(value: str) -> float | None:
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else None


def _reboot_packages(values: Mapping[str, list[str]]) -> tuple[str, ...] | None:
    """`by` and the names in /run/reboot-required.pkgs, which may be missing."""
    if "reboot_required" not in values:
        return None
    return tuple(values["reboot_required"][0].split()[1:])
