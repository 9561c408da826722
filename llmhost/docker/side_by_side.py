"""Which images of a host are built side by side: docs/decisions/0162. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmhost.docker.image import ServiceImage
from llmhost.units import GIB

MOST = 3
"""Builds at a time, because all of them use the same disk."""

COPIES_BYTES = GIB
"""Memory for a build that only unpacks and copies."""

RUNS_PROGRAMS_BYTES = 4 * GIB
"""Memory for a build that runs programs. What an app's Dockerfile runs is unknown."""


@dataclass(frozen=True)
class Capacity:
    """Hardware threads, and the memory in bytes that was available when the last build ended."""

    threads: int
    available_bytes: int


def needed_bytes(image: ServiceImage) -> int:
    """Memory that must be available for a build beside others."""
    return RUNS_PROGRAMS_BYTES if image.has_run_instruction else COPIES_BYTES


def next_build(
    waiting: Sequence[ServiceImage], running: Sequence[ServiceImage], capacity: Capacity
) -> ServiceImage | None:
    """The image whose build begins now; None if all have to wait.

    If nothing is being built, it is the first one, however little memory there is. Images that
    share layers are built one after the other.
    """
    if not running:
        return next(iter(waiting), None)
    if len(running) >= min(MOST, capacity.threads):
        return None
    free = capacity.available_bytes - sum(map(needed_bytes, running))
    taken = _origins(running)
    for image in waiting:
        if needed_bytes(image) <= free and not _origins([image]) & taken:
            return image
    return None


def _origins(images: Iterable[ServiceImage]) -> set[str]:
    """Names of the images that these get layers from; empty for those of a site's own Dockerfile,
    which the builder pulls itself."""
    return {
        name
        for image in images
        for name in (image.engine, *(model.reference for model in image.models))
    }
