"""A bundle's parts on a host: which ones are there, and scripts that transfer the rest.

Pure: llmhost/cli/bundle_apply.py runs the scripts.
"""

import shlex
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmhost.bundle.manifest import DIRECTORY, KEYS, Part, Release
from llmhost.resources import script
from llmhost.system.apt_repository import KEYRINGS

LOOK_SCRIPT = script("bundle/look.sh", DIRECTORY)


@dataclass(frozen=True)
class HostState:
    """A host's release, its free space in bytes, and the sizes of its bundle files by path."""

    release: Release
    free: int
    files: Mapping[str, int]


def parse_look(output: str) -> HostState:
    """Parse the output of `LOOK_SCRIPT`."""
    lines = [line.split("|", 3) for line in output.splitlines()]
    release = next(Release(*rest) for kind, *rest in lines if kind == "release")
    free = next(int(rest[0]) * 1024 for kind, *rest in lines if kind == "free")
    return HostState(
        release, free, {rest[1]: int(rest[0]) for kind, *rest in lines if kind == "file"}
    )


CHECK_SCRIPT = (
    f"cd {DIRECTORY} && {{ LC_ALL=C sha256sum --check --quiet 2>/dev/null || [ $? = 1 ]; }}"
)
"""Checks the parts listed on stdin with sha256sum(1); prints those that do not match, in English
whatever the host's language. It fails if they could not be checked."""


def checksums(parts: Iterable[Part]) -> bytes:
    """Parts in the input format of sha256sum(1)."""
    return "".join(f"{part.sha256}  {part.path}\n" for part in parts).encode()


def parse_check(output: str) -> set[str]:
    """Paths of the parts that do not match."""
    return {line.partition(": FAILED")[0] for line in output.splitlines() if ": FAILED" in line}


UNPACK_SCRIPT = f"mkdir -p {DIRECTORY} && tar --extract --no-same-owner --directory {DIRECTORY}"


def stream(contents: Iterable[tuple[str, int, Iterable[bytes]]]) -> Iterator[bytes]:
    """A tar archive, in chunks, of files by path, size and content."""
    for path, size, pieces in contents:
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = size, 0o644
        yield entry.tobuf(tarfile.GNU_FORMAT)
        yield from pieces
        yield b"\0" * (-size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def append_script(part: Part, keep: bool) -> str:
    """Write a part's content from stdin, with `keep` appended to what an interrupted run left."""
    path = shlex.quote(f"{DIRECTORY}/{part.path}")
    return f"mkdir -p $(dirname {path}) && cat {'>>' if keep else '>'}{path}.part"


def finish_script(part: Part) -> str:
    """Keep a transferred part if its digest is right."""
    return script("bundle/finish.sh", f"{DIRECTORY}/{part.path}", part.sha256)


def keys_script(parts: Sequence[Part]) -> str:
    """Install the keys of other repositories where the deploy looks before it fetches them."""
    keys = [part.path for part in parts if part.path.startswith(f"{KEYS}/")]
    places = {path: f"{KEYRINGS}/{path.removeprefix(f'{KEYS}/')}" for path in keys}
    return "\n".join(
        f"install -D -m 0644 {DIRECTORY}/{path} {place} || exit 1" for path, place in places.items()
    )


REMOVE_SCRIPT = f"rm -rf {DIRECTORY}"
