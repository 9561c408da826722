"""What is known of NVIDIA's drivers, CUDA versions and GPUs, with its date: one file, read once.

The file, `files/nvidia_driver/matrix.toml`, names the source of every figure.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from llmhost.resources import FILES

Module = Literal["open", "closed"]
Source = Literal["distribution", "nvidia"]
Version = tuple[int, ...]


@dataclass(frozen=True)
class Branch:
    """A driver branch: `ends` is the last day with security fixes, `ended` says so where
    no day is known; `floor` is the first version without known holes, empty
    where no bulletin names one."""

    number: int
    kind: str
    ends: date | None = None
    ended: str = ""
    floor: str = ""

    def end(self, today: date) -> str:
        """Since when there are no security fixes, or nothing if there are."""
        if self.ended or self.ends is None or today <= self.ends:
            return self.ended
        return f"ended on {self.ends}"


@dataclass(frozen=True)
class Release:
    """Branches by source for a release such as `debian-13`, ascending, and the modules that the
    distribution's own packages can install."""

    name: str
    branches: Mapping[Source, tuple[int, ...]]
    distribution_modules: tuple[Module, ...] = ("open", "closed")


@dataclass(frozen=True)
class Generation:
    """GPUs of one architecture: the branches that know them (`last_branch` is unset while all new
    ones do) and the only kernel module that works, if not both do."""

    name: str
    title: str
    first_branch: int = 0
    last_branch: int | None = None
    module: Module | None = None
    known: bool = True

    @property
    def needs_closed(self) -> bool:
        return self.module == "closed"

    @property
    def needs_open(self) -> bool:
        return self.module == "open"


@dataclass(frozen=True)
class Bulletin:
    """NVIDIA's security bulletin that the floors come from."""

    number: str
    published: date
    url: str


@dataclass(frozen=True)
class Matrix:
    """The whole file. `cuda_drivers` maps CUDA versions to the driver of their toolkit,
    `cuda_oldest` their major version to the oldest branch that runs them; `blocks` are first PCI
    device ids with a generation's name, ascending."""

    checked: date
    bulletin: Bulletin
    branches: Mapping[int, Branch]
    releases: Mapping[str, Release]
    cuda_drivers: Mapping[str, str]
    cuda_oldest: Mapping[int, int]
    generations: Mapping[str, Generation]
    blocks: tuple[tuple[int, str], ...]
    hgx_infiniband: frozenset[int]
    jetson: frozenset[int]

    @property
    def newest_branch(self) -> int:
        return max(self.branches)

    @property
    def newest_cuda(self) -> str:
        return max(self.cuda_drivers, key=version)


def version(text: str) -> Version:
    """Numbers of a version such as `580.159.03` or `580.159.03-0ubuntu0.24.04.1`."""
    upstream = text.partition(":")[2] or text
    numbers = upstream.replace("-", "+").partition("+")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdigit())


def _release(found: dict[str, Any]) -> Release:
    branches: dict[Source, tuple[int, ...]] = {
        "distribution": tuple(found["distribution"]),
        "nvidia": tuple(found["nvidia"]),
    }
    modules = tuple(found.get("distribution_modules", ("open", "closed")))
    return Release(found["name"], branches, modules)


def _read() -> Matrix:
    found = tomllib.loads((FILES / "nvidia_driver/matrix.toml").read_text())
    generations = [Generation(**each) for each in found["generation"]]
    return Matrix(
        checked=found["checked"],
        bulletin=Bulletin(**found["bulletin"]),
        branches={each["number"]: Branch(**each) for each in found["branch"]},
        releases={each["name"]: _release(each) for each in found["release"]},
        cuda_drivers=found["cuda"]["own_driver"],
        cuda_oldest={int(major): each for major, each in found["cuda"]["oldest_branch"].items()},
        generations={each.name: each for each in generations},
        blocks=tuple((start, name) for start, name in found["pci"]["blocks"]),
        hgx_infiniband=frozenset(found["pci"]["hgx_infiniband"]),
        jetson=frozenset(found["pci"]["jetson"]),
    )


MATRIX = _read()
