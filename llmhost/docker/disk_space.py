"""Whether the images to build fit on a host's disks; checked before any download. Pure.

The state comes from facts/room.py.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llmhost.docker.image import ModelImage, ServiceImage
from llmhost.units import gib

UNPACKED = 2
"""Factor by which an engine's image grows when it is unpacked. A low estimate: Docker's own refusal
is better than one by a guess."""


@dataclass(frozen=True)
class FreeSpace:
    """A directory, its file system and the free space there."""

    path: str
    device: str
    free_bytes: int


@dataclass(frozen=True)
class Room:
    """Free space on a host, and sizes of downloads.

    `images` is Docker's directory, `uploads` that of weights. `sizes` are bytes of downloads by
    URL, or by path in a share, `engines` compressed bytes of missing images by reference,
    `unpacked` bytes of existing images. Unknown sizes are left out. Docker with containerd's image
    store keeps layers packed and unpacked (`kept_twice`).
    """

    images: FreeSpace
    uploads: FreeSpace
    sizes: Mapping[str, int] = field(default_factory=dict)
    engines: Mapping[str, int] = field(default_factory=dict)
    unpacked: Mapping[str, int] = field(default_factory=dict)
    kept_twice: bool = False


def compressed_bytes(manifest: str) -> int:
    """Bytes of an image's layers in the output of `docker manifest inspect --verbose`: the largest
    platform; 0 if the output cannot be parsed."""
    try:
        parsed = json.loads(manifest)
        platforms = parsed if isinstance(parsed, list) else [parsed]
        return max(map(_layers, platforms), default=0)
    except (ValueError, TypeError, AttributeError):
        return 0


def _layers(platform: Mapping[str, Mapping[str, Sequence[Mapping[str, int]]]]) -> int:
    manifest = platform.get("OCIManifest") or platform.get("SchemaV2Manifest") or {}
    return sum(layer["size"] for layer in manifest.get("layers", ()))


def shortage(
    room: Room,
    weights: Mapping[ModelImage, Mapping[str, int]],
    building: Iterable[ServiceImage],
) -> list[str]:
    """A sentence for each file system that is too small; none if everything fits.

    What is on the disk twice while the images are built counts twice.

    `weights` are the images of models to create, each with the bytes of its files by SHA-256; a
    file that is already in the upload directory counts 0.
    """
    times = 2 if room.kept_twice else 1
    arriving = sum(size for files in weights.values() for size in files.values())
    engines = sum(_engine_bytes(room, image, times) for image in building if image.engine)
    needs: dict[str, int] = {room.images.device: arriving * times + engines}
    # One model after another: uploaded files are removed when their image is complete.
    largest = max((sum(files.values()) for files in weights.values()), default=0)
    needs[room.uploads.device] = needs.get(room.uploads.device, 0) + largest
    places = {place.device: place for place in (room.uploads, room.images)}
    return [
        f"baking the models needs about {gib(needs[device])} below {place.path} (weights"
        f" {gib(arriving)}, engines {gib(engines)}), and {gib(place.free_bytes)} are free:"
        " free space with llmhost prune INVENTORY HOST, or move docker_data_root;"
        " preflight_min_free_disk_gib = 0"
        " disables this check"
        for device, place in places.items()
        if needs[device] > place.free_bytes
    ]


def _engine_bytes(room: Room, image: ServiceImage, times: int) -> int:
    """The engine's image, and its copy on top of the weights if there is one."""
    packed = room.engines.get(image.engine, 0)
    unpacked = room.unpacked.get(image.engine, packed * UNPACKED)
    return (packed + unpacked if packed else 0) + (unpacked * times if image.on_top else 0)
