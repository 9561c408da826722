"""Which NVIDIA driver a host gets: branch, module and source, or why none fits.

Pure: the host comes from nvidia/state.py, the packages are named by nvidia/packages.py, the figures
are those of nvidia/data.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from llmhost.nvidia.branches import (
    fitting,
    maintained,
    may_be_newer,
    misfits,
    newest_of,
    offered,
    serving,
    unmaintained,
    where,
)
from llmhost.nvidia.cuda import at_risk, own_driver, too_old, unknown
from llmhost.nvidia.data import MATRIX, Generation, Module, Source

RELEASES = tuple(MATRIX.releases)
"""Supported releases, as `<ID>-<VERSION_ID>` of os-release."""


class Unsatisfiable(ValueError):
    """No driver fits; `sentences` say why and what to do."""

    def __init__(self, *sentences: str) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = sentences


@dataclass(frozen=True)
class Wish:
    """What the settings ask for; `auto` leaves the choice to the host. `cuda` maps services to
    the CUDA version they are built with; `today` decides which branches have ended."""

    branch: int | Literal["auto"] = "auto"
    module: Module | Literal["auto"] = "auto"
    source: Source | Literal["auto"] = "auto"
    allow_unmaintained: bool = False
    cuda: Mapping[str, str] = field(default_factory=dict)
    today: date = field(default_factory=date.today)


@dataclass(frozen=True)
class Choice:
    """The driver that a host gets; `notes` are what an operator should know of it."""

    branch: int
    module: Module
    source: Source
    notes: tuple[str, ...] = ()


def choose(
    wish: Wish, release: str, generations: Iterable[Generation], *, nvidia_only: bool = False
) -> Choice:
    """The driver for a release (`ubuntu-24.04`) and the generations of its GPUs; `nvidia_only`:
    something else that the host needs comes from NVIDIA's repository alone.

    Raises Unsatisfiable.
    """
    found = frozenset(generations)
    if release not in RELEASES:
        raise Unsatisfiable(f"{release} is not one of {', '.join(RELEASES)}")
    if old := [each.title for each in found if each.name == "LEGACY"]:
        raise Unsatisfiable(f"a GPU is {old[0]}: no maintained driver supports it")
    source = _source(wish, release, nvidia_only=nvidia_only)
    module = _module(wish, found, release, source)
    branch = _branch(wish, release, source, found)
    if sentences := [*_unfit(branch, found), *_unpackaged(branch, release, source)]:
        raise Unsatisfiable(*sentences)
    if not wish.allow_unmaintained and (sentence := unmaintained(branch, wish.today)):
        raise Unsatisfiable(f"{sentence}; {_way_out(wish, source)}")
    newest = newest_of(branch)
    if sentences := list(too_old(newest, wish.cuda)):
        raise Unsatisfiable(*sentences)
    return Choice(branch, module, source, tuple(_notes(branch, release, source, found, wish)))


def _module(wish: Wish, found: frozenset[Generation], release: str, source: Source) -> Module:
    closed = sorted(each.title for each in found if each.needs_closed)
    opened = sorted(each.title for each in found if each.needs_open)
    if closed and opened:
        raise Unsatisfiable(
            f"{', '.join(closed)} needs the closed modules and {', '.join(opened)} the open ones: "
            "one host can load only one of them, so remove one of the GPUs"
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
    packaged = MATRIX.releases[release].distribution_modules
    possible = packaged if source == "distribution" else ("open", "closed")
    module: Module = "closed" if closed or (not opened and "open" not in possible) else "open"
    wanted = module if wish.module == "auto" else wish.module
    if wanted not in possible:
        raise Unsatisfiable(
            f"the {wanted} module that {release} packages cannot be installed beside its security "
            'updates: set nvidia_driver_source = "nvidia"'
        )
    return wanted


def _source(wish: Wish, release: str, *, nvidia_only: bool) -> Source:
    """Ubuntu's own modules are signed and kept in step with its kernels; Debian's own drivers are
    of branches that NVIDIA has ended."""
    if wish.source != "auto":
        return wish.source
    return "distribution" if release.startswith("ubuntu") and not nvidia_only else "nvidia"


def _branch(wish: Wish, release: str, source: Source, found: frozenset[Generation]) -> int:
    """The oldest maintained branch that knows every GPU and CUDA version, or comes closest."""
    if wish.branch != "auto":
        return wish.branch
    fit = fitting(release, source, found)
    if not fit:
        raise Unsatisfiable(_none_fits(release, source, found, wish.today))
    alive = [branch for branch in fit if not unmaintained(branch, wish.today)] or fit
    asked = [own_driver(cuda) for cuda in wish.cuda.values()]
    enough = [branch for branch in alive if all(newest_of(branch) >= each for each in asked)]
    return min(enough) if enough else max(alive)


def _none_fits(release: str, source: Source, found: frozenset[Generation], today: date) -> str:
    branches = offered(release, source)
    why = dict.fromkeys(sentence for each in branches for sentence in misfits(each, found))
    sources = [*serving(found, today)]
    here = [other for name, other in sources if name == release]
    others = list(dict.fromkeys(name for name, _ in sources))
    advice = (
        f'set nvidia_driver_source = "{here[0]}"'
        if here
        else f"install {' or '.join(others)} on the host"
        if others
        else "no release has a branch for all of them: remove one of the GPUs"
    )
    listed = ", ".join(map(str, branches))
    return f"{' and '.join(why)}, and {where(source, release)} {listed}: {advice}"


def _unfit(branch: int, found: frozenset[Generation]) -> Iterator[str]:
    yield from (f"{why}: {branch} does not support it" for why in misfits(branch, found))


def _unpackaged(branch: int, release: str, source: Source) -> Iterator[str]:
    has = offered(release, source)
    if branch in has or may_be_newer(branch, release, source):
        return
    other = "distribution" if source == "nvidia" else "nvidia"
    yield (
        f"{where(source, release)} no branch {branch} (there are {', '.join(map(str, has))}): "
        f'choose another, or set nvidia_driver_source = "{other}"'
    )


def _way_out(wish: Wish, source: Source) -> str:
    if source == "distribution" and wish.branch == "auto":
        return 'set nvidia_driver_source = "nvidia"'
    return f"set nvidia_driver_branch to {' or '.join(map(str, maintained(wish.today)))}"


def _notes(
    branch: int, release: str, source: Source, found: frozenset[Generation], wish: Wish
) -> Iterator[str]:
    if sentence := unmaintained(branch, wish.today):
        yield sentence
    matrix = f"the matrix of {MATRIX.checked}"
    if branch not in offered(release, source):
        has = where(source, release)
        yield f"driver branch {branch} is newer than {matrix}: it is assumed that {has} it"
    if branch > MATRIX.newest_branch:
        yield f"driver branch {branch} is newer than {matrix}: no security floor is checked"
    for each in found:
        if not each.known:
            yield f"a GPU is newer than {matrix}: it is assumed to need what its newest one needs"
    yield from unknown(wish.cuda)
    yield from at_risk(newest_of(branch), wish.cuda)
