"""Whether what is to be baked will fit on a host's disks, before anything is downloaded. Pure.

What is there comes from facts/room.py.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llmhost.docker.image import ModelImage, ServiceImage
from llmhost.units import gib

UNPACKED = 2
"""How many times an engine's image grows when it is unpacked. An estimate on the low side: a host
is rather refused by Docker than by a guess."""


@dataclass(frozen=True)
class FreeSpace:
    """A directory: which file system it is on, and what is free there."""

    path: str
    device: str
    free_bytes: int


@dataclass(frozen=True)
class Room:
    """What a host has, and what it would fetch.

    `images` is where Docker keeps them, `uploads` where weights arrive. `sizes` are bytes of
    downloads by address, `engines` compressed bytes of images that are not there yet by reference,
    `unpacked` those of images that are. What nobody told is missing. Docker with containerd's
    image store keeps layers packed and unpacked (`kept_twice`).
    """

    images: FreeSpace
    uploads: FreeSpace
    sizes: Mapping[str, int] = field(default_factory=dict)
    engines: Mapping[str, int] = field(default_factory=dict)
    unpacked: Mapping[str, int] = field(default_factory=dict)
    kept_twice: bool = False


def compressed_bytes(manifest: str) -> int:
    """Bytes of an image's layers as `docker manifest inspect --verbose` tells them: of the largest
    where there is one for each platform; 0 if that can not be read."""
    try:
        told = json.loads(manifest)
        platforms = told if isinstance(told, list) else [told]
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
    """A sentence for each file system that is too small, none if all will fit.

    `weights` are the models' images that are to be made, each with the bytes by SHA-256 of its
    files; a file that waits in the upload directory already has none.
    """
    times = 2 if room.kept_twice else 1
    arriving = sum(size for files in weights.values() for size in files.values())
    engines = sum(_engine_bytes(room, image.engine, times) for image in building if image.engine)
    needs: dict[str, int] = {room.images.device: arriving * times + engines}
    # One model after another: what has arrived is removed when its image is made.
    largest = max((sum(files.values()) for files in weights.values()), default=0)
    needs[room.uploads.device] = needs.get(room.uploads.device, 0) + largest
    places = {place.device: place for place in (room.uploads, room.images)}
    return [
        f"about {gib(needs[device])} are needed below {place.path} to bake the models (weights"
        f" {gib(arriving)}, engines {gib(engines)}), and {gib(place.free_bytes)} are free: make"
        " room with llmhost prune, or move docker_data_root; with preflight_min_free_disk_gib = 0"
        " nobody looks"
        for device, place in places.items()
        if needs[device] > place.free_bytes
    ]


def _engine_bytes(room: Room, engine: str, times: int) -> int:
    """Its own image, and the copy that is laid over the weights."""
    packed = room.engines.get(engine, 0)
    unpacked = room.unpacked.get(engine, packed * UNPACKED)
    return (packed + unpacked if packed else 0) + unpacked * times
