"""Generations by PCI id, against every NVIDIA GPU of the PCI ID database."""

from pathlib import Path

import pytest

from llmhost.nvidia.generation import (
    GENERATIONS,
    NEWER,
    generation_of,
    is_gpu,
    is_nvswitch,
)

CHIPS = Path(__file__).with_name("data") / "nvidia_chips.txt"
ROWS = [line.split() for line in CHIPS.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(("generation", "chip", "ids"), [(g, c, ids) for g, c, *ids in ROWS])
def test_every_known_chip_belongs_to_its_generation(
    generation: str, chip: str, ids: list[str]
) -> None:
    found = {device: generation_of(int(device, 16)).name for device in ids}
    assert found == dict.fromkeys(ids, generation), chip


def test_the_table_holds_every_generation() -> None:
    assert {generation for generation, *_ in ROWS} == {*GENERATIONS}


def test_an_id_beyond_the_table_counts_as_newer() -> None:
    assert generation_of(0x4F00) is NEWER


@pytest.mark.parametrize(
    ("pci_class", "gpu", "switch"),
    [
        (0x030000, True, False),  # GeForce
        (0x030200, True, False),  # data centre
        (0x068000, False, True),  # NVSwitch
        (0x040300, False, False),  # the GPU's audio function
        (0x0C0330, False, False),  # its USB controller
    ],
)
def test_gpus_and_nvswitches_are_told_apart_by_class(
    pci_class: int, gpu: bool, switch: bool
) -> None:
    assert (is_gpu(pci_class), is_nvswitch(pci_class)) == (gpu, switch)


def test_a_newer_gpu_is_treated_as_the_newest_that_is_known() -> None:
    newest = [*GENERATIONS.values()][-1]
    assert (NEWER.first_branch, NEWER.module) == (newest.first_branch, newest.module)
    assert not NEWER.known and newest.known
