"""Processor time and memory of the processes of a benchmark, by what they are."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_PARTS = {
    "tests.doubles.qdrant": "qdrant",
    "search_api.main:app": "search_api",
    "multiprocessing.spawn": "search_api",
    "benchmarks.search.thin:app": "thin",
    "benchmarks.search.topics:app": "embeddings",
    "benchmarks.search.minilm": "embeddings",
    "redis-server": "redis",
}
"""A part of the command line, and the name of the process in figures."""


def processor_seconds() -> dict[str, float]:
    """Used since each process began; other work on the machine does not count."""
    return _sums(_seconds)


def busy_processors(before: tuple[float, float]) -> float:
    """Processors that all programs of the machine kept busy since `clock`."""
    busy, now = clock()
    return (busy - before[0]) / (now - before[1])


def clock() -> tuple[float, float]:
    """Processor time that the machine has used, and the time."""
    fields = Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    user, nice, system, _, _, *rest = map(int, fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK"), time.monotonic()


def memory_mib() -> dict[str, float]:
    """Resident memory, with the pages of files that are mapped."""
    return _sums(_mib)


def processor_ms(before: Mapping[str, float], requests: int) -> dict[str, float]:
    """Of each process for one request, since an earlier measurement."""
    now = processor_seconds()
    return {
        name: round((now[name] - before.get(name, 0)) * 1000 / requests, 2) for name in sorted(now)
    }


def _sums(figure: Callable[[Path], float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, directory in _processes():
        with suppress(OSError):
            sums[name] = sums.get(name, 0.0) + figure(directory)
    return sums


def _processes() -> Iterator[tuple[str, Path]]:
    """Those of this process group."""
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if os.getpgid(int(directory.name)) != os.getpgid(0):
                continue
            for part, name in _PARTS.items():
                if part in command:
                    yield name, directory


def _seconds(directory: Path) -> float:
    fields = (directory / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _mib(directory: Path) -> float:
    pages = int((directory / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
