"""Which generation an NVIDIA GPU belongs to, from its PCI device id alone.

No driver is needed to know: sysfs names the device, and NVIDIA numbers its chips in blocks. The
blocks are those of the PCI ID database (https://pci-ids.ucw.cz, October 2026); the unit test
compares them with every NVIDIA GPU listed there.
"""

from bisect import bisect
from enum import Enum


class Generation(Enum):
    """Architectures, oldest first. `LEGACY` is older than any supported driver, `NEWER` is newer
    than this table."""

    LEGACY = "older than Maxwell"
    MAXWELL = "Maxwell"
    PASCAL = "Pascal"
    VOLTA = "Volta"
    TURING = "Turing"
    AMPERE = "Ampere"
    ADA = "Ada"
    HOPPER = "Hopper"
    BLACKWELL = "Blackwell"
    NEWER = "newer than Blackwell"

    @property
    def needs_closed(self) -> bool:
        """GPUs without the GSP firmware that the open modules need (560.28.03 README,
        kernel_open)."""
        return self in {Generation.MAXWELL, Generation.PASCAL, Generation.VOLTA}

    @property
    def needs_open(self) -> bool:
        """The closed modules do not know Blackwell or anything later (same README)."""
        return self in {Generation.BLACKWELL, Generation.NEWER}


# First device id of each block. GM20x chips were numbered around GP100's, Rubin before GB110.
_BLOCKS = (
    (0x0000, Generation.LEGACY),
    (0x1340, Generation.MAXWELL),
    (0x15C0, Generation.PASCAL),
    (0x1600, Generation.MAXWELL),
    (0x1700, Generation.PASCAL),
    (0x1740, Generation.MAXWELL),
    (0x1B00, Generation.PASCAL),
    (0x1D80, Generation.VOLTA),
    (0x1E00, Generation.TURING),
    (0x2000, Generation.AMPERE),
    (0x2100, Generation.TURING),
    (0x2200, Generation.AMPERE),
    (0x2300, Generation.HOPPER),
    (0x2400, Generation.AMPERE),
    (0x2600, Generation.ADA),
    (0x2900, Generation.BLACKWELL),
    (0x3000, Generation.NEWER),
    (0x3180, Generation.BLACKWELL),
    (0x3500, Generation.NEWER),
)
_STARTS = [start for start, _ in _BLOCKS]


def generation_of(device_id: int) -> Generation:
    """Generation of the GPU with this PCI device id; ids beyond the table count as `NEWER`."""
    return _BLOCKS[bisect(_STARTS, device_id) - 1][1]


def is_gpu(pci_class: int) -> bool:
    """VGA (0x0300xx) and 3D (0x0302xx) controllers; data-centre GPUs are of the second kind."""
    return pci_class >> 8 in {0x0300, 0x0302}


def is_nvswitch(pci_class: int) -> bool:
    """NVSwitches carry NVIDIA's vendor id too, and class "other bridge" (0x068000)."""
    return pci_class >> 8 == 0x0680
