"""Packages and their dependencies, as a small repository of their own.

Pure: scripts for a connected machine of the same release, and parsers of their output.
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
"""Scratch directory on the builder with separate lists and sources: its own apt is not changed."""

KEY = "key.asc"
LISTS = f"{DIRECTORY}/lists"
SOURCES = f"{DIRECTORY}/sources.list.d"
APT_CONF = f"{DIRECTORY}/apt.conf"
"""On the host, while the deploy installs from the bundle. apt reads the file in the variable
APT_CONFIG before all others (apt.conf(5))."""

# A deb822(5) stanza has the format of mail headers.
_PARSER = HeaderParser()


@dataclass(frozen=True)
class Deb:
    """A package file: its name in apt's cache, its fields in the index, its size and digest."""

    file: str
    fields: tuple[tuple[str, str], ...]
    bytes: int
    sha256: str

    @property
    def pool_path(self) -> str:
        """Its path in the repository. The version's epoch is removed: apt escapes its colon in file
        names, while a URL would need the colon itself."""
        name, version, rest = self.file.split("_", 2)
        return f"pool/{name}_{version.rpartition('%3a')[2]}_{rest}"

    @property
    def path(self) -> str:
        """Its path in the bundle."""
        return f"{PACKAGES}/{self.pool_path}"


def prepare_script(repositories: Sequence[Repository]) -> str:
    """Collect the builder's package sources and those of other repositories in the scratch
    directory, with the keys of the latter as `keys/LABEL`."""
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
    """Let apt use a repository; reads its key from stdin."""
    text = source.sources.replace(source.key_path, f"{SCRATCH}/keys/{source.label}.gpg")
    file = f"{SCRATCH}/sources.list.d/{source.label}.sources"
    return (
        f"cat >{SCRATCH}/keys/{source.label}.gpg &&"
        f" printf %s {shlex.quote(text)} >{shlex.quote(file)}"
    )


def closure_script(names: Iterable[str]) -> str:
    """Download packages and their dependencies, and print their index entries.

    Includes everything that a freshly installed host has (priority required and important): a
    package may need newer versions of those, and they of each other.
    """
    return script("bundle/closure.sh", SCRATCH, *names)


def archives_script() -> str:
    """Stream the package files that stdin names, one per line, as a tar archive."""
    return (
        'eval "$(apt-config shell archives Dir::Cache::archives/d)"'
        ' && tar --create --directory "$archives" --files-from -'
    )


def parse_closure(output: str) -> list[Deb]:
    """Parse the output of `closure_script`. Raises BundleError if an index entry is missing."""
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
            raise BundleError(
                f"apt on the builder has no entry for {file}: run apt-get update there"
            )
        debs[file] = Deb(file, tuple(stanza.items()), int(words[2]), stanza["SHA256"])
    if not debs:
        raise BundleError("apt on the builder found no packages: check its package sources")
    return sorted(debs.values(), key=lambda deb: deb.file)


def packages_index(debs: Iterable[Deb]) -> str:
    """The Packages file of a flat repository."""
    return "\n".join(map(_stanza, debs))


def _stanza(deb: Deb) -> str:
    fields = {**dict(deb.fields), "Filename": deb.pool_path}
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def release_file(index: str, architecture: str, now: datetime) -> str:
    """The Release file, with the digest of the index."""
    digest = hashlib.sha256(index.encode()).hexdigest()
    return (
        "Origin: llmhost\nLabel: llmhost bundle\n"
        f"Date: {now:%a, %d %b %Y %H:%M:%S} UTC\nArchitectures: {architecture}\n"
        f"SHA256:\n {digest} {len(index.encode())} Packages\n"
    )


# The repository's key is for this one signature only; the manifest's signature protects the bundle.
# The key is the first part of the output.
SIGN_SCRIPT = script("bundle/sign.sh")


def parse_signed(output: str) -> tuple[str, str]:
    """The repository's key and its InRelease file."""
    marker = "-----BEGIN PGP SIGNED MESSAGE-----"
    key, found, signed = output.partition(marker)
    if not found or "PUBLIC KEY BLOCK" not in key:
        raise BundleError("gpg on the builder did not sign the package repository")
    return key, found + signed


def apt_files() -> dict[str, str]:
    """Files that restrict apt on the host to the bundle's packages."""
    uri = f"{DIRECTORY}/{PACKAGES}"
    return {
        APT_CONF: (
            'Dir::Etc::sourcelist "/dev/null";\n'
            f'Dir::Etc::sourceparts "{SOURCES}";\n'
            f'Dir::State::lists "{LISTS}";\n'
            # The bundle's files are root's; the user _apt may not be able to read them.
            'APT::Sandbox::User "root";\n'
        ),
        f"{SOURCES}/bundle.sources": (
            f"Types: deb\nURIs: file:{uri}\nSuites: ./\nSigned-By: {uri}/{KEY}\n"
        ),
    }
