"""How far something is that takes long, in words. Pure."""

from llmhost.vram import GIB


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `1 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def so_far(seconds: float, done: int = 0, size: int = 0, begun_with: int = 0) -> str:
    """`3.1 of 16.2 GiB, 40 s, about 3 min left`; bytes, of which some were there at the beginning.
    Without a size, or before the first byte, only how long it has taken."""
    if not size or done <= begun_with:
        return f"{duration(seconds)} so far"
    left = (size - done) * seconds / (done - begun_with)
    amount = f"{done / GIB:.1f} of {size / GIB:.1f} GiB"
    return f"{amount}, {duration(seconds)}, about {duration(max(0, left))} left"
