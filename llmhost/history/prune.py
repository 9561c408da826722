"""Which llmhost images a host no longer needs, and an estimate of the disk space they use.

Pure: what is there comes from facts/kept.py, operations/rollback.py removes it.
"""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from llmhost.history.rollback import Image, KeptState

REPOSITORIES = "llmhost/"
"""Prefix of the names of llmhost's images."""


@dataclass(frozen=True)
class Superfluous:
    """Images to remove, names of files in the upload directory, and an estimate of their size."""

    images: tuple[Image, ...]
    uploads: tuple[str, ...]
    freed_bytes: int

    @property
    def references(self) -> tuple[str, ...]:
        return tuple(each for image in self.images for each in removed_names(image))


def own_names(image: Image) -> tuple[str, ...]:
    """The names that llmhost gave it. An operator may have added others or built on top of it."""
    return tuple(each for each in image.references if each.startswith(REPOSITORIES))


def removed_names(image: Image) -> tuple[str, ...]:
    """What `llmhost prune` removes. An engine's image has the name by which it was pulled too."""
    own = own_names(image)
    return (*image.pulled_as, *own) if own == image.references else own


def superfluous(found: KeptState, declared: Collection[str]) -> Superfluous:
    """Images that no kept deploy, container or inventory needs.

    `declared` are the references in the inventory. A model's image stays as long as an image that
    is based on it: the next engine is added on top of it without an upload.
    """
    wanted = {*declared, *found.images_of_deploys}
    needed = [each for each in found.images if each.in_use or wanted & {*each.references}]
    layers = {layer for image in needed for layer in image.layers}
    rest = [
        image
        for image in found.images
        if own_names(image) and image not in needed and not {*image.layers} <= layers
    ]
    removed = [image for image in rest if own_names(image) == image.references]
    return Superfluous(tuple(rest), found.uploads, _freed(removed, found.images, layers))


def _freed(removed: Sequence[Image], images: Sequence[Image], needed: Collection[str]) -> int:
    """Images share layers, and Docker does not report the size of a layer. The size is known for
    images with a single layer, such as weights; the rest of an image counts as its own."""
    known = {image.layers[0]: image.size_bytes for image in images if len(image.layers) == 1}
    gone = {layer for image in removed for layer in image.layers if layer not in needed}
    total = sum(known.get(layer, 0) for layer in gone)
    for image in removed:
        if len(image.layers) > 1:
            total += max(0, image.size_bytes - sum(known.get(each, 0) for each in image.layers))
    return total


def prune_script(todo: Superfluous, uploads: str) -> str:
    """Shell script that removes images by name, so that Docker refuses those in use, and what the
    builder keeps of them."""
    lines = [f"docker image rm {shlex.quote(name)} >/dev/null" for name in todo.references]
    lines += ["docker builder prune --force >/dev/null"] if todo.references else []
    if todo.uploads:
        lines.append(f"rm -rf {shlex.quote(uploads)}")
    return "\n".join(["set -e", *lines])
