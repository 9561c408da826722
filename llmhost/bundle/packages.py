"""Packages with all that they depend on, as a small repository of their own.

Pure: scripts for a connected machine of the same release, and the reading of what they print.
"""

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from llmhost.bundle.manifest import DIRECTORY, PACKAGES, BundleError
from llmhost.resources import script
from llmhost.system.apt_repository import Repository

SCRATCH = "/var/cache/llmhost-bundle"
"""On the builder: lists and sources of its own, so that its apt stays as it is."""

KEY = "key.asc"
LISTS = f"{DIRECTORY}/lists"
SOURCES = f"{DIRECTORY}/sources.list.d"
APT_CONF = f"{DIRECTORY}/apt.conf"
"""On the host, for the run in which the deploy installs from the bundle: apt reads the file that
APT_CONFIG names before all others (apt.conf(5))."""

_ENTRY = re.compile(r"'[^']+' (?P<file>\S+_\S+_\S+\.deb) (?P<bytes>\d+) ")


@dataclass(frozen=True)
class Deb:
    """A package file: its name as apt stores it, its stanza in the index, what it must be."""

    file: str
    stanza: str
    bytes: int
    sha256: str

    @property
    def pool_path(self) -> str:
        """Where it is in the repository: without the version's epoch, for in apt's name of the file
        its colon is escaped, and an address would mean the colon itself."""
        name, version, rest = self.file.split("_", 2)
        return f"pool/{name}_{version.rpartition('%3a')[2]}_{rest}"

    @property
    def path(self) -> str:
        """Where it is in the bundle."""
        return f"{PACKAGES}/{self.pool_path}"


def prepare_script(repositories: Sequence[Repository]) -> str:
    """The builder's own package sources, and those of other repositories, in the scratch directory;
    with the keys of the latter as `keys/LABEL`."""
    lines = ["set -e", script("bundle/prepare.sh", SCRATCH), f"cd {SCRATCH}"]
    for source in repositories:
        named = [source.sources_path, *source.replaces]
        lines += [f"rm -f sources.list.d/{shlex.quote(path.rpartition('/')[2])}" for path in named]
        lines.append(
            f"/usr/lib/apt/apt-helper -qq download-file {shlex.quote(source.key_url)}"
            f" keys/{source.label} || {{ echo 'The key of {source.label} could not be fetched' >&2;"
            " exit 1; }"
        )
    return "\n".join(lines)


def sources_script(source: Repository) -> str:
    """Let apt use a repository, whose key comes on stdin."""
    text = source.sources.replace(source.key_path, f"{SCRATCH}/keys/{source.label}.gpg")
    file = f"{SCRATCH}/sources.list.d/{source.label}.sources"
    return (
        f"cat >{SCRATCH}/keys/{source.label}.gpg &&"
        f" printf %s {shlex.quote(text)} >{shlex.quote(file)}"
    )


def closure_script(names: Iterable[str]) -> str:
    """Download packages and all that they depend on, and print what these are.

    With everything that a freshly installed host has (priority required and important): a package
    may demand newer versions of those, and they of each other.
    """
    return script("bundle/closure.sh", SCRATCH, *names)


def archives_script() -> str:
    """Stream the package files that are named on stdin, one a line, as a tar archive."""
    return (
        'eval "$(apt-config shell archives Dir::Cache::archives/d)"'
        ' && tar --create --directory "$archives" --files-from -'
    )


def parse_closure(output: str) -> list[Deb]:
    """The packages that `closure_script` tells of. Raises BundleError if their index is missing."""
    listed, _, index = output.partition("\n\n")
    stanzas = {_key(stanza): stanza for stanza in index.split("\n\n") if stanza.strip()}
    debs = {}
    for found in map(_ENTRY.match, listed.splitlines()):
        if found is None:
            continue
        file = found["file"]
        name, version, architecture = file.removesuffix(".deb").split("_")
        stanza = stanzas.get((name, version.replace("%3a", ":"), architecture))
        sha256 = _field(stanza, "SHA256") if stanza else None
        if not stanza or not sha256:
            raise BundleError(f"apt on the builder does not describe {file}: run apt-get update")
        debs[file] = Deb(file, stanza.strip(), int(found["bytes"]), sha256)
    if not debs:
        raise BundleError("apt on the builder names no packages: look at its package sources")
    return sorted(debs.values(), key=lambda deb: deb.file)


def _key(stanza: str) -> tuple[str, ...]:
    return tuple(_field(stanza, name) or "" for name in ("Package", "Version", "Architecture"))


def _field(stanza: str, name: str) -> str | None:
    found = re.search(rf"^{name}: (.+)$", stanza, re.MULTILINE)
    return found[1].strip() if found else None


def packages_index(debs: Iterable[Deb]) -> str:
    """The Packages file of a flat repository."""
    return "\n".join(f"{_relocated(deb)}\n" for deb in debs)


def _relocated(deb: Deb) -> str:
    return re.sub(r"^Filename: .+$", lambda _: f"Filename: {deb.pool_path}", deb.stanza, flags=re.M)


def release_file(index: str, architecture: str, now: datetime) -> str:
    """The Release file that vouches for the index."""
    digest = hashlib.sha256(index.encode()).hexdigest()
    return (
        "Origin: llmhost\nLabel: llmhost bundle\n"
        f"Date: {now:%a, %d %b %Y %H:%M:%S} UTC\nArchitectures: {architecture}\n"
        f"SHA256:\n {digest} {len(index.encode())} Packages\n"
    )


# The repository's key lives for this one signature: what vouches for the bundle is its manifest's.
# The first part of what is printed is the key.
SIGN_SCRIPT = script("bundle/sign.sh")


def parse_signed(output: str) -> tuple[str, str]:
    """The repository's key and its InRelease file."""
    marker = "-----BEGIN PGP SIGNED MESSAGE-----"
    key, found, signed = output.partition(marker)
    if not found or "PUBLIC KEY BLOCK" not in key:
        raise BundleError("gpg on the builder did not sign the package repository")
    return key, found + signed


def apt_files() -> dict[str, str]:
    """Files that let apt on the host see the bundle's packages, and nothing else."""
    uri = f"{DIRECTORY}/{PACKAGES}"
    return {
        APT_CONF: (
            'Dir::Etc::sourcelist "/dev/null";\n'
            f'Dir::Etc::sourceparts "{SOURCES}";\n'
            f'Dir::State::lists "{LISTS}";\n'
            # apt's own user need not be able to read what root has brought.
            'APT::Sandbox::User "root";\n'
        ),
        f"{SOURCES}/bundle.sources": (
            f"Types: deb\nURIs: file:{uri}\nSuites: ./\nSigned-By: {uri}/{KEY}\n"
        ),
    }
