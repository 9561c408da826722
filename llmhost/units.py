"""Formats numbers, sizes and durations. Pure.

Memory and disks are in GiB and MiB (1024-based), as in `nvidia-smi`, `free` and Docker. Durations
are in seconds."""

GIB = 2**30
MIB = 2**20


def counted(number: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float | None) -> str:
    """Seconds in a readable unit; empty for None."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def gib(size: float | None) -> str:
    """Bytes as GiB, less than 1 GiB as MiB; a dash for None."""
    if size is None:
        return "–"
    return f"{size / GIB:.1f} GiB" if size >= GIB or not size else f"{size / MIB:.0f} MiB"


def exact_gib(size: float) -> str:
    """Bytes as GiB with two digits, for figures that are compared or added."""
    return f"{in_gib(size)} GiB"


def in_gib(size: float) -> str:
    """The same without the unit, for the columns of a table."""
    return f"{size / GIB:.2f}"


def so_far(seconds: float, done: int = 0, size: int = 0, begun_with: int = 0) -> str:
    """`3.1 GiB of 16.2 GiB, 40 s, about 3 min left`; `begun_with` bytes were there at the
    beginning. Without a size, or before the first byte, only the elapsed time."""
    if not size or done <= begun_with:
        return f"{duration(seconds)} so far"
    left = (size - done) * seconds / (done - begun_with)
    return f"{gib(done)} of {gib(size)}, {duration(seconds)}, about {duration(max(0, left))} left"


def gib_to_bytes(size: float) -> int:
    """GiB in bytes."""
    return int(size * GIB)


def bytes_of(size: str) -> int:
    """Bytes of a size for Docker, such as `16g`."""
    return int(size[:-1]) << {"k": 10, "m": 20, "g": 30}[size[-1]]


def docker_size(size: int) -> str:
    """The inverse of `bytes_of`, in the largest unit without a fraction."""
    shift, unit = next((s, u) for s, u in ((30, "g"), (20, "m"), (10, "k")) if not size % (1 << s))
    return f"{size >> shift}{unit}"
