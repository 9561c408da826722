"""What is known of a driver branch: whether it gets fixes, which GPUs it knows, who offers it."""

from collections.abc import Iterable, Iterator
from datetime import date

from llmhost.nvidia.data import MATRIX, Generation, Source, Version, version

FLOORS = {number: each.floor for number, each in MATRIX.branches.items() if each.floor}
"""By branch: the version below which it has known holes."""


KNOWN = tuple(
    sorted({*MATRIX.branches, *(version(each)[0] for each in MATRIX.cuda_drivers.values())})
)
"""Branches that NVIDIA has released, as far as the matrix knows."""


def newest_of(branch: int) -> Version:
    """The newest version of a branch, as far as it is known to exist."""
    return version(FLOORS.get(branch, f"{branch}.999"))


def below_floor(driver: str) -> str:
    """Why a driver version has known holes, or nothing."""
    branch = version(driver)[0]
    least = FLOORS.get(branch)
    if least and version(driver) < version(least):
        bulletin = MATRIX.bulletin
        return (
            f"driver {driver} has known vulnerabilities: {least} is the first version without them "
            f"(NVIDIA's bulletin {bulletin.number} of {bulletin.published})"
        )
    return ""


def unmaintained(branch: int, today: date) -> str:
    """Why a branch gets no security fixes, or nothing if it does or is newer than the matrix."""
    known = MATRIX.branches.get(branch)
    if branch > MATRIX.newest_branch or (known and not known.end(today)):
        return ""
    why = known.end(today) if known else "is not one that NVIDIA maintains"
    return f"driver branch {branch} {why}: it gets no security fixes"


def maintained(today: date) -> tuple[int, ...]:
    """Branches that get security fixes."""
    return tuple(branch for branch in MATRIX.branches if not unmaintained(branch, today))


def misfits(branch: int, gpus: Iterable[Generation]) -> Iterator[str]:
    """Which GPUs a branch does not know, and which ones would."""
    ended: dict[int, list[str]] = {}
    begins: dict[int, list[str]] = {}
    for each in sorted(gpus, key=lambda each: each.title):
        if each.last_branch and branch > each.last_branch:
            ended.setdefault(each.last_branch, []).append(each.title)
        if branch < each.first_branch:
            begins.setdefault(each.first_branch, []).append(each.title)
    yield from (f"{', '.join(titles)} ends with branch {last}" for last, titles in ended.items())
    for first, titles in begins.items():
        yield f"{', '.join(titles)} needs branch {first} or newer"


def offered(release: str, source: Source) -> tuple[int, ...]:
    """Branches that a source has for a release, ascending."""
    return MATRIX.releases[release].branches[source]


def fitting(release: str, source: Source, gpus: Iterable[Generation]) -> tuple[int, ...]:
    """Those of them that know every GPU."""
    found = tuple(gpus)
    return tuple(each for each in offered(release, source) if not [*misfits(each, found)])


def serving(gpus: Iterable[Generation], today: date) -> Iterator[tuple[str, Source]]:
    """Releases and sources with a maintained branch for these GPUs."""
    found = tuple(gpus)
    for name, release in MATRIX.releases.items():
        for source in release.branches:
            if any(not unmaintained(each, today) for each in fitting(name, source, found)):
                yield name, source


def may_be_newer(branch: int, release: str, source: Source) -> bool:
    """Whether a branch may have come after the matrix was checked. Debian keeps one a release."""
    only = source == "distribution" and release.startswith("debian")
    return not only and branch > max(offered(release, source))


def where(source: Source, release: str) -> str:
    """A source with its verb."""
    return f"NVIDIA's repository for {release} has" if source == "nvidia" else f"{release} packages"
