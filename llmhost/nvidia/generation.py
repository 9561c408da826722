"""Which generation an NVIDIA GPU belongs to, from its PCI device id alone.

No driver is needed to know: sysfs names the device, and NVIDIA numbers its chips in blocks.
"""

from bisect import bisect
from dataclasses import replace

from llmhost.nvidia.data import MATRIX, Generation

GENERATIONS = MATRIX.generations
_NEWEST = [*GENERATIONS.values()][-1]
NEWER = replace(_NEWEST, name="NEWER", title=f"newer than {_NEWEST.title}", known=False)
"""A GPU that the list does not have: it is treated as the newest generation of the list."""

_STARTS = [start for start, _ in MATRIX.blocks]


def generation_of(device_id: int) -> Generation:
    """Generation of the GPU with this PCI device id; ids beyond the table count as `NEWER`."""
    _, name = MATRIX.blocks[bisect(_STARTS, device_id) - 1]
    return GENERATIONS.get(name, NEWER)


def is_gpu(pci_class: int) -> bool:
    """VGA (0x0300xx) and 3D (0x0302xx) controllers; data-centre GPUs are of the second kind."""
    return pci_class >> 8 in {0x0300, 0x0302}


def is_nvswitch(pci_class: int) -> bool:
    """NVSwitches carry NVIDIA's vendor id too, and class "other bridge" (0x068000)."""
    return pci_class >> 8 == 0x0680
