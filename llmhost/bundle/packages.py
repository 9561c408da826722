"""Packages with all that they depend on, as a small repository of their own.

Pure: scripts for a connected machine of the same release, and the reading of what they print.
"""

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.parser import HeaderParser

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

# A stanza of deb822(5) has the form of a mail's header.
_PARSER = HeaderParser()


@dataclass(frozen=True)
class Deb:
    """A package file: its name as apt stores it, its fields in the index, what it must be."""

    file: str
    fields: tuple[tuple[str, str], ...]
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
    paragraphs = (_PARSER.parsestr(text) for text in index.split("\n\n") if text.strip())
    stanzas = {
        (each["Package"], each["Version"], each["Architecture"]): each for each in paragraphs
    }
    debs = {}
    for line in listed.splitlines():  # 'ADDRESS' FILE BYTES HASH
        words = line.split()
        if len(words) < 3 or not words[1].endswith(".deb"):
            continue
        file = words[1]
        name, version, architecture = file.removesuffix(".deb").split("_")
        stanza = stanzas.get((name, version.replace("%3a", ":"), architecture))
        if stanza is None or stanza["SHA256"] is None:
            raise BundleError(f"apt on the builder does not describe {file}: run apt-get update")
        debs[file] = Deb(file, tuple(stanza.items()), int(words[2]), stanza["SHA256"])
    if not debs:
        raise BundleError("apt on the builder names no packages: look at its package sources")
    return sorted(debs.values(), key=lambda deb: deb.file)


def packages_index(debs: Iterable[Deb]) -> str:
    """The Packages file of a flat repository."""
    return "\n".join(map(_stanza, debs))


def _stanza(deb: Deb) -> str:
    fields = {**dict(deb.fields), "Filename": deb.pool_path}
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


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
