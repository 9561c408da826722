"""What hosts with NVIDIA hardware show of it before any driver is there.

The list of GPUs is a file of lines `index uuid pci-address bytes watts mig product`; the doubles of
NVML and nvidia-smi read it as a driver would read its devices. `mig` is 1 for a GPU that is cut
into MIG instances, 0 for one that could be, and -1 for one that can not.
"""

from dataclasses import dataclass, replace
from pathlib import Path

GPU_LIST = "/etc/llmhost-double/gpus"
WSL_KERNEL = "6.6.87.2-microsoft-standard-WSL2"


@dataclass(frozen=True)
class DoubleGpu:
    """One GPU; memory in bytes, default power limit in watts."""

    uuid: str
    address: str
    device_id: int
    memory: int
    watts: int
    product: str
    pci_class: int = 0x030000
    mig: int = -1
    vgpu: bool = False

    def line(self, index: int) -> str:
        fields = (index, self.uuid, self.address, self.memory, self.watts, self.mig)
        return " ".join(map(str, (*fields, self.product)))


@dataclass(frozen=True)
class Profile:
    """The NVIDIA hardware of one kind of host."""

    gpus: tuple[DoubleGpu, ...] = ()
    nvswitches: int = 0
    wsl: bool = False

    @property
    def gpu_list(self) -> str:
        return "".join(f"{gpu.line(index)}\n" for index, gpu in enumerate(self.gpus))


def _gpu(number: int, device_id: int, gib: int, watts: int, product: str) -> DoubleGpu:
    data_centre = any(name in product for name in ("H200", "B200"))
    pci_class = 0x030200 if data_centre else 0x030000
    uuid = f"GPU-{device_id:08x}-0000-4000-8000-{number:012x}"
    address = f"0000:{number:02x}:00.0"
    # Reported by NVML and nvidia-smi alike: nobody shall take a double for hardware.
    name = f"{product} (double)"
    mig = 0 if data_centre else -1
    return DoubleGpu(uuid, address, device_id, gib << 30, watts, name, pci_class, mig)


PROFILES = {
    "none": Profile(),
    "rtx-5070-ti": Profile((_gpu(1, 0x2C05, 16, 300, "NVIDIA GeForce RTX 5070 Ti"),)),
    "two-rtx-4090": Profile(
        tuple(_gpu(number, 0x2684, 24, 450, "NVIDIA GeForce RTX 4090") for number in (1, 2))
    ),
    "h200-nvswitch": Profile(
        tuple(_gpu(number, 0x2335, 141, 700, "NVIDIA H200") for number in (1, 2)), nvswitches=4
    ),
    # Its NVSwitches are behind InfiniBand devices of another vendor.
    "hgx-b200": Profile(
        tuple(_gpu(number, 0x2901, 180, 1000, "NVIDIA B200") for number in range(1, 9))
    ),
    "vgpu-guest": Profile((replace(_gpu(1, 0x2684, 24, 450, "NVIDIA L40S-24C"), vgpu=True),)),
    "gtx-1080-ti": Profile((_gpu(1, 0x1B06, 11, 250, "NVIDIA GeForce GTX 1080 Ti"),)),
    "pascal-and-blackwell": Profile(
        (
            _gpu(1, 0x1B06, 11, 250, "NVIDIA GeForce GTX 1080 Ti"),
            _gpu(2, 0x2C05, 16, 300, "NVIDIA GeForce RTX 5070 Ti"),
        )
    ),
    "wsl": Profile((_gpu(1, 0x2C05, 16, 300, "NVIDIA GeForce RTX 5070 Ti"),), wsl=True),
}


def write_tree(root: Path, profile: Profile, kernel: str = "6.8.0-85-generic") -> None:
    """What sysfs, /proc and /dev show of the hardware, below `root`."""
    _write(root / "proc/sys/kernel/osrelease", WSL_KERNEL if profile.wsl else kernel)
    _write(root / GPU_LIST.lstrip("/"), profile.gpu_list)
    write_pci(root / "sys/bus/pci/devices", profile)
    if profile.wsl:
        _write(root / "dev/dxg", "")


def write_pci(bus: Path, profile: Profile) -> None:
    """Directories as in /sys/bus/pci/devices, of all functions; on WSL the bus shows no GPU."""
    functions = [("0000:00:00.0", 0x8086, 0x060000, 0x29C0)]
    if not profile.wsl:
        for gpu in profile.gpus:
            functions.append((gpu.address, 0x10DE, gpu.pci_class, gpu.device_id))
            _write_configuration(bus / gpu.address / "config", vgpu=gpu.vgpu)
            functions.append((gpu.address[:-1] + "1", 0x10DE, 0x040300, 0x22E9))
    for number in range(profile.nvswitches):
        functions.append((f"0000:{0x80 + number:02x}:00.0", 0x10DE, 0x068000, 0x22A3))
    for address, vendor, pci_class, device_id in functions:
        _write(bus / address / "vendor", f"0x{vendor:04x}")
        _write(bus / address / "class", f"0x{pci_class:06x}")
        _write(bus / address / "device", f"0x{device_id:04x}")


def _write_configuration(path: Path, *, vgpu: bool) -> None:
    """PCI configuration with a list of two capabilities: a vGPU's own one is vendor-specific."""
    configuration = bytearray(256)
    configuration[6], configuration[0x34] = 0x10, 0x60
    configuration[0x60:0x62] = bytes((0x01, 0x68))  # power management
    own = bytes((0x09, 0x00, 0x1B)) + b"VF" if vgpu else bytes((0x09, 0x00, 0x14, 0x01, 0x00))
    configuration[0x68 : 0x68 + len(own)] = own
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(configuration)


def _write(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{line.rstrip()}\n")
