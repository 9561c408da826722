"""What a host would get, for each release, kind of GPU and source; and how old the figures are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from llmhost.nvidia.branches import maintained
from llmhost.nvidia.data import MATRIX, Branch, Bulletin, Generation, Source
from llmhost.nvidia.driver import Choice, Unsatisfiable, Wish, choose
from llmhost.nvidia.generation import GENERATIONS
from llmhost.nvidia.kernel import Kernel
from llmhost.nvidia.packages import packages

SCHEMA = 1
SOURCES: tuple[Source, ...] = ("distribution", "nvidia")
_KERNELS = {
    "ubuntu": Kernel("6.8.0-85-generic", ("linux-image-generic",)),
    "debian": Kernel("6.12.48+deb13-amd64", ("linux-image-amd64",)),
}


@dataclass(frozen=True)
class Row:
    """What `gpus` get on a release from a source: a choice with its packages, or why none.
    `default` is the source that is taken without being asked for."""

    release: str
    gpus: str
    source: Source
    default: bool
    choice: Choice | None = None
    packages: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(frozen=True)
class NvidiaReport:
    """The output of `llmhost nvidia --json`. `checked` is the day on which the figures were
    compared with their sources; `cuda` has the driver of each CUDA version."""

    schema: int
    checked: date
    age_days: int
    bulletin: Bulletin
    branches: tuple[Branch, ...]
    cuda: Mapping[str, str]
    drivers: tuple[Row, ...]


def nvidia_report(today: date) -> NvidiaReport:
    """All of it, as of a day."""
    return NvidiaReport(
        schema=SCHEMA,
        checked=MATRIX.checked,
        age_days=(today - MATRIX.checked).days,
        bulletin=MATRIX.bulletin,
        branches=tuple(MATRIX.branches.values()),
        cuda=dict(MATRIX.cuda_drivers),
        drivers=tuple(rows(today)),
    )


def groups() -> dict[str, tuple[Generation, ...]]:
    """Generations that get the same driver everywhere, by their titles."""
    found: dict[object, list[Generation]] = {}
    for each in GENERATIONS.values():
        first = max(each.first_branch, min(maintained(MATRIX.checked)))
        if each.name != "LEGACY":
            found.setdefault((first, each.last_branch, each.module), []).append(each)
    return {", ".join(each.title for each in group): tuple(group) for group in found.values()}


def rows(today: date) -> Iterator[Row]:
    """One for each release, group of GPUs and source."""
    for release in MATRIX.releases:
        for titles, generations in groups().items():
            default = "distribution" if release.startswith("ubuntu") else "nvidia"
            for source in SOURCES:
                yield _row(release, titles, generations, source, source == default, today)


def _row(
    release: str,
    titles: str,
    generations: tuple[Generation, ...],
    source: Source,
    default: bool,
    today: date,
) -> Row:
    try:
        choice = choose(Wish(source=source, today=today), release, generations)
        kernel = _KERNELS[release.partition("-")[0]]
        names = packages(choice, release, kernel, nvswitch=False).all
        return Row(release, titles, source, default, choice, names)
    except Unsatisfiable as error:
        return Row(release, titles, source, default, refusal=error.sentences[0])


def age(today: date) -> str:
    """When the figures were checked, for a reader of today."""
    days = (today - MATRIX.checked).days
    ago = {0: "", 1: ", 1 day ago"}.get(max(days, 0), f", {days} days ago")
    return f"checked on {MATRIX.checked}{ago}"


def branch_rows(today: date) -> Iterator[tuple[str, str, str, str]]:
    """Branch, kind, end and security floor."""
    for each in MATRIX.branches.values():
        end = f"{each.ends}" if each.ends else each.ended or "no date"
        state = end if not each.end(today) else f"{end} (without fixes now)"
        yield f"{each.number}", each.kind, state, each.floor or "none named"


def cuda_rows() -> Iterator[tuple[str, str, str]]:
    """CUDA version, its own driver, and the oldest branch that runs it."""
    for cuda, driver in MATRIX.cuda_drivers.items():
        yield cuda, driver, f"{MATRIX.cuda_oldest[int(cuda.partition('.')[0])]}"


def generation_rows() -> Iterator[tuple[str, str, str, str]]:
    """Generation, first branch, last branch and kernel module."""
    for each in GENERATIONS.values():
        module = f"only {each.module}" if each.module else "open or closed"
        first = f"{each.first_branch}" if each.first_branch else "all listed"
        last = f"{each.last_branch}" if each.last_branch else "none yet"
        yield each.title, first, last, module


def offer_rows() -> Iterator[tuple[str, str, str]]:
    """Release, and the branches of its own packages and of NVIDIA's repository."""
    for release in MATRIX.releases.values():
        own, nvidia = (", ".join(map(str, release.branches[source])) for source in SOURCES)
        yield release.name, own, nvidia
