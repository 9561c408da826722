"""A double of a vendor's package repository: real apt, real signature, packages without content.

    repository = build_repository(directory, [DebDouble("docker-ce", "5:29.7.0-1")], suite="trixie")
    with serving(directory, lan.gateway) as url:
        …  # URIs: {url}, Suites: trixie, the key under {url}/gpg

What it shows is the code path to a vendor's packages (key, source, order, pin, hold). It shows
nothing of the vendor's software.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from testbed.process import run


@dataclass(frozen=True)
class DebDouble:
    """A package with a real name and version, and `files` (absolute path to text; those in a bin
    directory are executable, those below /etc are the operator's to edit) in place of the vendor's.

    `fields` are further lines of its control file, for example `{"Depends": "libc6"}`;
    `postinst` is the shell script that runs after it was unpacked.
    """

    name: str
    version: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    postinst: str = ""
    architecture: str = "all"


@dataclass(frozen=True)
class Repository:
    """A signed repository in `directory`, whose public key is at `key_path` below it."""

    directory: Path
    fingerprint: str
    key_path: Path


def build_repository(
    directory: Path,
    packages: Sequence[DebDouble],
    *,
    suite: str = "/",
    component: str = "stable",
    key_name: str = "gpg",
    release: Mapping[str, str] | None = None,
) -> Repository:
    """Write a repository of these packages, signed with a key made for it.

    `suite` "/" makes a flat one (NVIDIA's), a codename one with dists/ and a component (Docker's).
    `release` are fields of its Release file, by which unattended-upgrades knows a repository. A
    repository that is there already is replaced, key included.
    """
    if directory.exists():
        shutil.rmtree(directory)
    (directory / "pool").mkdir(parents=True)
    index = "\n".join(_build(package, directory) for package in packages)
    flat = suite == "/"
    top = directory if flat else directory / "dists" / suite
    architectures = _architectures(packages)
    places = [""] if flat else [f"{component}/binary-{name}/" for name in architectures]
    for place in places:
        (top / place).mkdir(parents=True, exist_ok=True)
        (top / place / "Packages").write_text(index)
        (top / place / "Packages.gz").write_bytes(gzip.compress(index.encode()))
    text = _release(top, places, suite, component, architectures, release or {})
    (top / "Release").write_text(text)
    fingerprint = _sign(top, directory / key_name)
    return Repository(directory, fingerprint, directory / key_name)


@contextmanager
def serving(directory: Path, address: str, port: int = 0) -> Iterator[str]:
    """Serve a directory over HTTP on one of the controller's addresses; port 0: a free one."""
    handler = partial(_Quiet, directory=str(directory))
    with ThreadingHTTPServer((address, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{address}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a test that fails shows what apt said."""


def _architectures(packages: Sequence[DebDouble]) -> list[str]:
    own = run(["dpkg", "--print-architecture"]).stdout.strip()
    return sorted({own, *(p.architecture for p in packages if p.architecture != "all")})


def _build(package: DebDouble, directory: Path) -> str:
    """Make the .deb; returns its stanza for the index."""
    control = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": package.architecture,
        "Maintainer": "llmhost tests <tests@llmhost.invalid>",
        "Description": "double of a package, for tests",
        **package.fields,
    }
    stanza = "".join(f"{key}: {value}\n" for key, value in control.items())
    # A colon (an epoch's) is left out of file names, as everywhere in Debian.
    version = package.version.partition(":")[2] or package.version
    deb = directory / "pool" / f"{package.name}_{version}_{package.architecture}.deb"
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")  # the scratch directory itself is 0700, the package's is not
        _lay_out(package, stanza, tree)
        run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(deb)])
    data = deb.read_bytes()
    place = deb.relative_to(directory)
    digest = hashlib.sha256(data).hexdigest()
    return f"{stanza}Filename: {place}\nSize: {len(data)}\nSHA256: {digest}\n"


def _lay_out(package: DebDouble, stanza: str, tree: Path) -> None:
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(stanza)
    if package.postinst:
        script = tree / "DEBIAN" / "postinst"
        script.write_text(f"#!/bin/sh\nset -e\n{package.postinst}\n")
        script.chmod(0o755)
    settings = [f"{path}\n" for path in package.files if path.startswith("/etc/")]
    (tree / "DEBIAN" / "conffiles").write_text("".join(settings))
    for path, text in package.files.items():
        file = tree / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(0o755 if file.parent.name in {"bin", "sbin"} else 0o644)


def _release(
    top: Path,
    places: Sequence[str],
    suite: str,
    component: str,
    architectures: Sequence[str],
    others: Mapping[str, str],
) -> str:
    """The Release file: hashes of the indexes."""
    fields = {
        "Origin": "llmhost tests",
        "Date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC"),
        "Architectures": " ".join(architectures),
    }
    if suite != "/":
        fields |= {"Suite": suite, "Codename": suite, "Components": component}
    fields |= others
    lines = [f"{key}: {value}" for key, value in fields.items()] + ["SHA256:"]
    for place in places:
        for file in (top / place / "Packages", top / place / "Packages.gz"):
            data = file.read_bytes()
            lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {file.relative_to(top)}")
    return "\n".join(lines) + "\n"


def _sign(top: Path, key: Path) -> str:
    """Sign Release with a new key, and put the public key at `key`; returns its fingerprint."""
    with tempfile.TemporaryDirectory() as home:
        env = {"GNUPGHOME": home}
        gpg = ["gpg", "--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"]
        gpg += ["--passphrase", ""]
        name = "llmhost tests <tests@llmhost.invalid>"
        run([*gpg, "--quick-generate-key", name, "ed25519", "sign", "never"], env=env)
        listed = run([*gpg, "--list-keys", "--with-colons"], env=env).stdout.splitlines()
        run([*gpg, "--armor", "--output", str(key), "--export"], env=env)
        release = str(top / "Release")
        run([*gpg, "--clearsign", "--output", str(top / "InRelease"), release], env=env)
        # The agent that gpg started would outlive its directory.
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, **env}, check=False)
    return next(line.split(":")[9] for line in listed if line.startswith("fpr"))
