"""Which NVIDIA driver a host gets: branch, module and source, or why none fits.

Pure: the host comes from nvidia_state.py, the packages are named by nvidia_packages.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmhost.nvidia.cuda import KNOWN_CUDA, at_risk, own_driver, too_old, version
from llmhost.nvidia.generation import Generation

Module = Literal["open", "closed"]
Source = Literal["distribution", "nvidia"]

LONG_TERM = 580
"""Long-term branch, maintained until August 2028, and the last for Maxwell, Pascal and Volta."""
NEWEST = 595
"""Newest branch with a published security floor."""

MAINTAINED = (LONG_TERM, NEWEST)
"""Branches that get security fixes."""

# The version below which a branch has known holes (NVIDIA's security bulletins).
FLOORS = {535: "535.309.01", 580: "580.159.03", 595: "595.71.05"}
# Branches that a supported release still packages although NVIDIA has ended them.
ENDED = {
    535: "ended in June 2026",
    550: "has ended",
    570: "ended in February 2026; Ubuntu's packages of it lead to 580",
}

# What each release packages itself. Ubuntu's 550 to 570 are transitional packages to 580, its 590
# to 595; Debian has one branch a release (packages.ubuntu.com, packages.debian.org).
PACKAGED: dict[str, tuple[int, ...]] = {
    "ubuntu-22.04": (535, 580, 595),
    "ubuntu-24.04": (535, 580, 595),
    "ubuntu-26.04": (580, 595),
    "debian-12": (535,),
    "debian-13": (550,),
}
# The first branch in NVIDIA's repository for a release, where that is not the long-term one.
FIRST_FROM_NVIDIA = {"ubuntu-26.04": 595}
RELEASES = tuple(PACKAGED)
"""Supported releases, as `<ID>-<VERSION_ID>` of os-release."""

KNOWN_BRANCHES = tuple(
    sorted(
        {*FLOORS, *ENDED, *(branch for each in PACKAGED.values() for branch in each)}
        | {own_driver(cuda)[0] for cuda in KNOWN_CUDA}
    )
)
"""Branches that NVIDIA has released, as far as llmhost knows."""


class Unsatisfiable(ValueError):
    """No driver fits; `sentences` say why and what to do."""

    def __init__(self, *sentences: str) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = sentences


@dataclass(frozen=True)
class Wish:
    """What the settings ask for; `auto` leaves the choice to the host. `cuda` maps services to
    the CUDA version they are built with."""

    branch: int | Literal["auto"] = "auto"
    module: Module | Literal["auto"] = "auto"
    source: Source | Literal["auto"] = "auto"
    allow_unmaintained: bool = False
    cuda: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """The driver that a host gets; `notes` are what an operator should know of it."""

    branch: int
    module: Module
    source: Source
    notes: tuple[str, ...] = ()


def choose(wish: Wish, release: str, generations: Iterable[Generation]) -> Choice:
    """The driver for a release (`ubuntu-24.04`) and the generations of its GPUs.

    Raises Unsatisfiable.
    """
    found = frozenset(generations)
    if release not in PACKAGED:
        raise Unsatisfiable(f"{release} is not one of {', '.join(RELEASES)}")
    if Generation.LEGACY in found:
        raise Unsatisfiable("a GPU is older than Maxwell: no maintained driver knows it")
    module = _module(wish, found)
    source = _source(wish, release)
    branch = _branch(wish, release, source, found)
    if sentences := [*_unfit_branch(branch, found), *_unpackaged(branch, release, source)]:
        raise Unsatisfiable(*sentences)
    if not wish.allow_unmaintained and (sentence := unmaintained(branch)):
        raise Unsatisfiable(f"{sentence}; {_way_out(wish, source)}")
    newest = version(FLOORS.get(branch, f"{branch}.999"))
    if sentences := list(too_old(newest, wish.cuda)):
        raise Unsatisfiable(*sentences)
    return Choice(branch, module, source, tuple(_notes(branch, newest, found, wish)))


def _module(wish: Wish, found: frozenset[Generation]) -> Module:
    closed = sorted(each.value for each in found if each.needs_closed)
    opened = sorted(each.value for each in found if each.needs_open)
    if closed and opened:
        raise Unsatisfiable(
            f"{', '.join(closed)} needs the closed modules and {', '.join(opened)} the open ones: "
            "one host can load only one of them, so take one of the GPUs out"
        )
    if wish.module == "open" and closed:
        raise Unsatisfiable(
            f"{', '.join(closed)} does not work with the open modules: "
            'set nvidia_driver_module = "auto"'
        )
    if wish.module == "closed" and opened:
        raise Unsatisfiable(
            f"{', '.join(opened)} works only with the open modules: "
            'set nvidia_driver_module = "auto"'
        )
    if wish.module != "auto":
        return wish.module
    return "closed" if closed else "open"


def _source(wish: Wish, release: str) -> Source:
    """Ubuntu's own modules are signed and kept in step with its kernels; Debian's own drivers are
    of branches that NVIDIA has ended."""
    if wish.source != "auto":
        return wish.source
    return "distribution" if release.startswith("ubuntu") else "nvidia"


def _branch(wish: Wish, release: str, source: Source, found: frozenset[Generation]) -> int:
    if wish.branch != "auto":
        return wish.branch
    if source == "distribution" and LONG_TERM not in PACKAGED[release]:
        return PACKAGED[release][-1]
    if any(each.needs_closed for each in found):
        return LONG_TERM
    if source == "nvidia" and release in FIRST_FROM_NVIDIA:
        return FIRST_FROM_NVIDIA[release]
    asked = [own_driver(cuda) for cuda in wish.cuda.values()]
    needs_newest = any(driver > version(FLOORS[LONG_TERM]) for driver in asked)
    return NEWEST if needs_newest or Generation.NEWER in found else LONG_TERM


def _unfit_branch(branch: int, found: frozenset[Generation]) -> Iterator[str]:
    old = sorted(each.value for each in found if each.needs_closed)
    new = sorted(each.value for each in found if each.needs_open)
    if old and branch > LONG_TERM:
        yield f"{', '.join(old)} ends with branch {LONG_TERM}: {branch} does not know it"
    # GeForce RTX 50 first appears in open-gpu-kernel-modules 570.86.16.
    if new and branch < 570:
        yield f"{', '.join(new)} needs branch 570 or newer: {branch} does not know it"


def _unpackaged(branch: int, release: str, source: Source) -> Iterator[str]:
    if source == "distribution" and branch not in PACKAGED[release]:
        offered = ", ".join(map(str, PACKAGED[release]))
        yield (
            f"{release} packages no branch {branch} (it has {offered}): choose another, or set "
            'nvidia_driver_source = "nvidia"'
        )
    first = FIRST_FROM_NVIDIA.get(release, LONG_TERM)
    if source == "nvidia" and branch < first:
        yield (
            f"NVIDIA's repository for {release} begins with branch {first}, not {branch}: choose "
            'another, or set nvidia_driver_source = "distribution"'
        )


def unmaintained(branch: int) -> str:
    """Why a branch gets no security fixes, or nothing if it does or is newer than the table."""
    if branch in MAINTAINED or branch > NEWEST:
        return ""
    why = ENDED.get(branch, "is not one that NVIDIA maintains")
    return f"driver branch {branch} {why}: it gets no security fixes"


def _way_out(wish: Wish, source: Source) -> str:
    if source == "distribution" and wish.branch == "auto":
        return 'set nvidia_driver_source = "nvidia"'
    return f"set nvidia_driver_branch to {' or '.join(map(str, MAINTAINED))}"


def _notes(
    branch: int, newest: tuple[int, ...], found: frozenset[Generation], wish: Wish
) -> Iterator[str]:
    if sentence := unmaintained(branch):
        yield sentence
    if branch > NEWEST:
        yield f"driver branch {branch} is newer than llmhost knows: no security floor is checked"
    if Generation.NEWER in found:
        yield "a GPU is newer than llmhost knows: it is treated as Blackwell's successor"
    yield from at_risk(newest, wish.cuda)


def below_floor(driver: str) -> str:
    """Why an installed driver version has known holes, or nothing."""
    branch = version(driver)[0]
    least = FLOORS.get(branch)
    if least and version(driver) < version(least):
        return f"driver {driver} has known security holes: {least} is the first without them"
    return ""
