"""Free disk space for images, and the sizes of downloads."""

from collections.abc import Sequence
from itertools import groupby

from pyinfra.api import FactBase

from llmhost.docker.disk_space import FreeSpace, Room, compressed_bytes
from llmhost.resources import script


class HostRoom(FactBase[Room]):
    """Free space where Docker keeps images and where weights are uploaded, and the sizes of
    downloads and engines. Values that cannot be read, such as without a network, are left out."""

    of_the_moment = True

    @staticmethod
    def default() -> Room:
        return Room(FreeSpace("", "", 0), FreeSpace("", "", 0))

    def command(self, uploads: str, addresses: Sequence[str], engines: Sequence[str]) -> str:
        arguments = (uploads, *addresses, "--", *engines)
        return script("docker/room.sh", *arguments, functions="docker/functions.sh")

    def process(self, output: list[str]) -> Room:
        rows = [line.split("|") for line in output if line != "twice"]
        places = {kind: (device, free, path) for kind, device, free, path in _of(rows, 4)}
        counts = [(kind, name, value) for kind, name, value in _of(rows, 3) if kind != "engine"]
        manifests = [(name, text) for kind, name, text in _of(rows, 3) if kind == "engine"]
        return Room(
            images=_place(*places["images"]),
            uploads=_place(*places["uploads"]),
            sizes={name: int(value) for kind, name, value in counts if kind == "size" and value},
            engines={
                name: compressed_bytes("".join(text for _, text in lines))
                for name, lines in groupby(manifests, lambda line: line[0])
            },
            unpacked={name: int(value) for kind, name, value in counts if kind == "unpacked"},
            kept_twice="twice" in output,
        )


def _of(rows: list[list[str]], fields: int) -> list[list[str]]:
    return [each for each in rows if len(each) == fields]


def _place(device: str, free_kib: str, path: str) -> FreeSpace:
    return FreeSpace(path, device, int(free_kib) * 1024)
