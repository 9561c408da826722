"""What is to be baked is compared with the room that there is."""

import json
import subprocess
from dataclasses import replace

import pytest

from llmhost.docker.disk_space import FreeSpace, Room, compressed_bytes, shortage
from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile
from llmhost.facts.disk_space import HostRoom
from llmhost.system.files import File
from llmhost.units import GIB

ENGINE = "registry/engine:1@sha256:" + "0" * 64
MODEL = ModelImage("m", (WeightsFile("ab" * 32, "m.gguf", False, "/models/m.gguf"),))
ON_TOP = File("Dockerfile", "FROM base\n")
SERVICE = ServiceImage("llamacpp", ENGINE, (MODEL,), (ON_TOP,))
IMAGES, UPLOADS = FreeSpace("/var/lib/docker", "1", 100 * GIB), FreeSpace("/opt/up", "2", 100 * GIB)
ROOM = Room(IMAGES, UPLOADS)


def needed(room: Room, *gib: int) -> list[int]:
    """GiB that must be free for the images and for what arrives; found by trying."""
    models = {
        replace(MODEL, model=f"m{number}"): {"ab": size * GIB} for number, size in enumerate(gib)
    }
    found = []
    for place in (room.images, room.uploads):
        fits = [
            free
            for free in range(101)
            if not shortage(_with(room, place, free * GIB), models, [SERVICE])
        ]
        found.append(min(fits))
    return found


def _with(room: Room, place: FreeSpace, free_bytes: int) -> Room:
    images, uploads = (
        replace(each, free_bytes=free_bytes) if each.device == place.device else each
        for each in (room.images, room.uploads)
    )
    return replace(room, images=images, uploads=uploads)


@pytest.mark.parametrize(
    ("room", "images", "uploads"),
    [
        (ROOM, 5, 3),  # models arrive one after another
        (replace(ROOM, kept_twice=True), 10, 3),
        # Packed, unpacked, and once more on top of the weights.
        (replace(ROOM, engines={ENGINE: GIB}), 5 + 1 + 2 + 2, 3),
        (replace(ROOM, unpacked={ENGINE: 7 * GIB}), 5 + 7, 3),
        (replace(ROOM, uploads=replace(UPLOADS, device="1")), 5 + 3, 5 + 3),
    ],
)
def test_weights_and_engines_need_room(room: Room, images: int, uploads: int) -> None:
    assert needed(room, 2, 3) == [images, uploads]


def test_engine_that_an_image_begins_with_needs_no_room_for_a_copy() -> None:
    below = replace(SERVICE, context=(replace(ON_TOP, content="FROM engine\n"),))
    small = replace(ROOM, images=replace(IMAGES, free_bytes=3 * GIB), engines={ENGINE: GIB})
    assert shortage(small, {}, [below]) == [] and shortage(small, {}, [SERVICE]) != []
    assert shortage(replace(small, engines={}, unpacked={ENGINE: 7 * GIB}), {}, [below]) == []


def test_images_that_are_built_side_by_side_need_room_together() -> None:
    other = replace(SERVICE, service="other", engine=ENGINE.replace("0", "1"), models=())
    engines = {SERVICE.engine: GIB, other.engine: 2 * GIB}
    room = replace(ROOM, engines=engines)
    # Packed, unpacked, and once more in the image: 5 GiB and 10 GiB.
    for free, fits in ((15, True), (14, False)):
        assert (shortage(_with(room, IMAGES, free * GIB), {}, [SERVICE, other]) == []) == fits


def test_shortage_says_how_much_and_what_helps() -> None:
    small = replace(ROOM, images=replace(IMAGES, free_bytes=GIB), engines={ENGINE: GIB})
    assert shortage(small, {MODEL: {"ab": 2 * GIB}}, [SERVICE]) == [
        "baking the models needs about 7.0 GiB below /var/lib/docker (weights 2.0 GiB,"
        " engines 5.0 GiB), and 1.0 GiB are free: free space with llmhost prune INVENTORY"
        " HOST, or move"
        " docker_data_root; preflight_min_free_disk_gib = 0 disables this check"
    ]


def test_largest_platform_of_an_image_counts() -> None:
    platforms = [
        {"OCIManifest": {"layers": [{"size": 1}, {"size": 2}]}},
        {"SchemaV2Manifest": {"layers": [{"size": 9}]}},
        {"Descriptor": {}},
    ]
    assert compressed_bytes(json.dumps(platforms)) == 9
    assert compressed_bytes(json.dumps(platforms[0])) == 3


@pytest.mark.parametrize("text", ["", "no such manifest", "[]", '{"OCIManifest": 1}', "3"])
def test_unreadable_manifest_has_no_size(text: str) -> None:
    assert compressed_bytes(text) == 0


def test_fact_is_read() -> None:
    manifest = json.dumps({"OCIManifest": {"layers": [{"size": 5}]}}, indent=1).splitlines()
    output = [
        "twice",
        "images|64|2048|/var/lib/containerd",
        "uploads|65|1|/opt/llmhost/uploads",
        "size|https://hub.example/a|7",
        "size|https://hub.example/silent|",
        "unpacked|registry/here|11",
        *(f"engine|registry/there|{line}" for line in manifest),
    ]
    assert HostRoom().process(output) == Room(
        FreeSpace("/var/lib/containerd", "64", 2048 * 1024),
        FreeSpace("/opt/llmhost/uploads", "65", 1024),
        {"https://hub.example/a": 7},
        {"registry/there": 5},
        {"registry/here": 11},
        kept_twice=True,
    )


def test_command_is_posix_shell() -> None:
    text = HostRoom().command("/opt/up", ["https://hub.example/it's"], [ENGINE])
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
