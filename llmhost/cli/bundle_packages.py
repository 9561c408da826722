"""A bundle's package repository, filled from the package sources of a builder."""

import base64
import tarfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import typer

from llmhost.bundle.manifest import KEYS, PACKAGES, BundleError, Part, Release
from llmhost.bundle.packages import (
    KEY,
    SCRATCH,
    SIGN_SCRIPT,
    Deb,
    archives_script,
    closure_script,
    packages_index,
    parse_closure,
    parse_signed,
    prepare_script,
    release_file,
    sources_script,
)
from llmhost.bundle.parts import Parts
from llmhost.cli.remote import Remote
from llmhost.host_packages import host_repositories
from llmhost.inventory.site import SiteHost
from llmhost.system.apt_repository import Repository
from llmhost.system.openpgp import UnreadableKey, dearmored, fingerprint
from llmhost.units import gib


def gather_packages(
    targets: Sequence[SiteHost],
    names: Sequence[str],
    remote: Remote,
    release: Release,
    codename: str,
    parts: Parts,
) -> Iterator[Part]:
    """The named packages with all dependencies, their index, and the keys of repositories.

    Raises BundleError and RemoteError with a sentence.
    """
    repositories = _repositories(targets, release, codename)
    remote.run(prepare_script(repositories))
    for source in repositories:
        key = _trusted_key(source, remote)
        remote.run(sources_script(source), key)
        yield parts.keep(f"{KEYS}/{source.label}.gpg", key)
    typer.echo(f"resolving {len(names)} packages and their dependencies with apt on {remote.name}")
    debs = parse_closure(remote.run(closure_script(names)))
    _fetch(debs, remote, parts)
    for deb in debs:
        yield parts.finished(deb.path) or _damaged(deb, remote)
    yield from _index(packages_index(debs), release.architecture, remote, parts)


def _repositories(targets: Sequence[SiteHost], release: Release, codename: str) -> list[Repository]:
    found = (
        source
        for target in targets
        for source in host_repositories(
            target,
            release.distribution,
            release.version,
            codename,
            release.architecture,
        )
    )
    return list({source.label: source for source in found}.values())


def _trusted_key(source: Repository, remote: Remote) -> bytes:
    """A repository's key, as the builder fetched it. Raises BundleError if it is not the pinned
    one."""
    fetched = base64.b64decode(remote.run(f"base64 -w0 {SCRATCH}/keys/{source.label}"))
    try:
        key = dearmored(fetched)
        found = fingerprint(key)
    except UnreadableKey as error:
        raise BundleError(f"the key at {source.key_url} cannot be used: {error}") from None
    if found != source.fingerprint:
        raise BundleError(
            f"the key at {source.key_url} has the fingerprint {found}, not {source.fingerprint}"
        )
    return key


def _fetch(debs: Sequence[Deb], remote: Remote, parts: Parts) -> None:
    """Copy the packages that are still missing from the builder, in one stream."""
    missing = {deb.file: deb for deb in debs if not parts.finished(deb.path)}
    if not missing:
        return
    total = sum(deb.bytes for deb in missing.values())
    typer.echo(f"fetching {len(missing)} packages from {remote.name}: {gib(total)}")
    stream = parts.directory / "packages.part"
    with stream.open("wb") as file:
        remote.save(archives_script(), file, "\n".join(missing).encode())
    with tarfile.open(stream) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content and member.name in missing:
                deb = missing[member.name]
                part = parts.keep(deb.path, content.read())
                if (part.bytes, part.sha256) != (deb.bytes, deb.sha256):
                    _damaged(deb, remote)
    stream.unlink()


def _damaged(deb: Deb, remote: Remote) -> Part:
    raise BundleError(
        f"{deb.file} on {remote.name} does not match its repository's index: run apt-get clean"
        " there, then rerun the command"
    )


def _index(index: str, architecture: str, remote: Remote, parts: Parts) -> Iterator[Part]:
    """The index and its signature; an earlier one is reused if it lists the same packages."""
    paths = [f"{PACKAGES}/{name}" for name in ("Packages", "InRelease", KEY)]
    earlier = [parts.finished(path) for path in paths]
    before = parts.directory / paths[0]
    if all(earlier) and before.read_bytes() == index.encode():
        yield from (part for part in earlier if part)
        return
    release = release_file(index, architecture, datetime.now(UTC))
    key, signed = parse_signed(remote.run(SIGN_SCRIPT, release.encode()))
    for path, text in zip(paths, (index, signed, key), strict=True):
        yield parts.keep(path, text.encode())
