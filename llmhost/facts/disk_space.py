"""How much room a host has for images, and what it would have to fetch."""

import shlex
from collections.abc import Sequence
from itertools import groupby

from pyinfra.api import FactBase

from llmhost.docker.disk_space import FreeSpace, Room, compressed_bytes
from llmhost.facts.images import DOCKER

# The directory may not be there yet.
_PLACE = """place() {
  path=$2
  until [ -e "$path" ]; do path=$(dirname "$path"); done
  echo "$1|$(stat -c %d "$path")|$(df -Pk "$path" | awk 'NR == 2 { print $4 }')|$2"
}"""

# A registry that the daemon may call without TLS may be asked without.
_ENGINE = r"""engine() {
  size=$(DOCKER image inspect --format '{{.Size}}' "$1" 2>/dev/null)
  if [ -n "$size" ]; then echo "unpacked|$1|$size"; return; fi
  index='{{with index .RegistryConfig.IndexConfigs "'"${1%%/*}"'"}}{{.Secure}}{{end}}'
  insecure=
  [ "$(DOCKER info --format "$index")" != false ] || insecure=--insecure
  DOCKER manifest inspect --verbose $insecure "$1" 2>/dev/null | sed "s,^,engine|$1|,"
}""".replace("DOCKER", DOCKER)
_LAST_LENGTH = "tr -d '\\r' | awk 'tolower($1) == \"content-length:\" { n = $2 } END { print n }'"


class HostRoom(FactBase[Room]):
    """Free space where Docker keeps images and where weights arrive, sizes of downloads and of
    engines. What can not be learned, such as without a network, is left out."""

    of_the_moment = True

    @staticmethod
    def default() -> Room:
        return Room(FreeSpace("", "", 0), FreeSpace("", "", 0))

    def command(self, uploads: str, addresses: Sequence[str], engines: Sequence[str]) -> str:
        lines = [
            _PLACE,
            _ENGINE,
            f"found=$({DOCKER} info --format '{{{{.DockerRootDir}}}}|{{{{.DriverStatus}}}}')",
            "case $found in",
            "  *io.containerd.snapshotter*) root=/var/lib/containerd; echo twice ;;",
            "  *) root=${found%%|*} ;;",
            "esac",
            'place images "${root:-/var/lib/docker}"',
            f"place uploads {shlex.quote(uploads)}",
        ]
        # All at once, for without a network each takes its whole time.
        for address in addresses:
            asked = f"curl --head --location --fail --silent --max-time 20 {shlex.quote(address)}"
            lines.append(f"echo {shlex.quote(f'size|{address}|')}$({asked} | {_LAST_LENGTH}) &")
        lines += ["wait", *(f"engine {shlex.quote(engine)}" for engine in engines)]
        return "\n".join([*lines, "true"])

    def process(self, output: list[str]) -> Room:
        told = [line.split("|") for line in output if line != "twice"]
        places = {kind: (device, free, path) for kind, device, free, path in _of(told, 4)}
        counts = [(kind, name, value) for kind, name, value in _of(told, 3) if kind != "engine"]
        manifests = [(name, text) for kind, name, text in _of(told, 3) if kind == "engine"]
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


def _of(told: list[list[str]], fields: int) -> list[list[str]]:
    return [each for each in told if len(each) == fields]


def _place(device: str, free_kib: str, path: str) -> FreeSpace:
    return FreeSpace(path, device, int(free_kib) * 1024)
