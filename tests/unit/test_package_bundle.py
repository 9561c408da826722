"""Packages of a bundle: the closure as apt tells it, and the repository made of it."""

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmhost.bundle.manifest import DIRECTORY, BundleError
from llmhost.bundle.packages import (
    APT_CONF,
    SCRATCH,
    SIGN_SCRIPT,
    apt_files,
    closure_script,
    packages_index,
    parse_closure,
    parse_signed,
    prepare_script,
    release_file,
    sources_script,
)
from llmhost.system.apt_repository import Repository

CLOSURE = """\
'http://mirror.example/debian/pool/main/n/nginx/nginx_1.26.3-3%2bdeb13u1_amd64.deb' \
nginx_1.26.3-3+deb13u1_amd64.deb 609516 MD5Sum:8e7e741807b1e1939df8f58323affdcb
'http://mirror.example/debian/pool/main/l/logrotate/logrotate_3.22.0-1_all.deb' \
logrotate_3.22.0-1_all.deb 100 SHA256:00
'http://mirror.example/debian/pool/main/f/foo/foo_2%3a1.0%7erc1_amd64.deb' \
foo_2%3a1.0~rc1_amd64.deb 7 SHA256:00

Package: nginx
Architecture: amd64
Version: 1.26.3-3+deb13u1
Depends: libc6 (>= 2.34),
 nginx-common (= 1.26.3-3+deb13u1)
Filename: pool/main/n/nginx/nginx_1.26.3-3+deb13u1_amd64.deb
Size: 609516
SHA256: aa11

Package: logrotate
Maintainer: Müller <mueller@example.com>
Architecture: all
Version: 3.22.0-1
Filename: pool/main/l/logrotate/logrotate_3.22.0-1_all.deb
SHA256: bb22

Package: foo
Architecture: amd64
Version: 2:1.0~rc1
Filename: pool/main/f/foo/foo_1.0~rc1_amd64.deb
SHA256: cc33

"""


def test_closure_is_read_as_apt_prints_it() -> None:
    found = {deb.file: (deb.bytes, deb.sha256) for deb in parse_closure(CLOSURE)}
    assert found == {
        "foo_2%3a1.0~rc1_amd64.deb": (7, "cc33"),
        "logrotate_3.22.0-1_all.deb": (100, "bb22"),
        "nginx_1.26.3-3+deb13u1_amd64.deb": (609516, "aa11"),
    }


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("", "apt on the builder found no packages"),
        (CLOSURE.replace("Version: 3.22.0-1", "Version: 3.21"), "has no entry for logrotate_"),
        (CLOSURE.replace("SHA256: bb22\n", ""), "has no entry for logrotate_3.22.0-1_all.deb"),
    ],
)
def test_closure_that_is_not_described_is_refused(output: str, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        parse_closure(output)


def test_index_says_where_packages_are_in_the_bundle() -> None:
    debs = parse_closure(CLOSURE)
    index = packages_index(debs)
    stanzas = index.split("\n\n")
    assert len(stanzas) == 3 and all(stanza.startswith("Package: ") for stanza in stanzas)
    # A percent sign would be taken for an escape in an address.
    assert "Filename: pool/foo_1.0~rc1_amd64.deb\n" in index and "%" not in index
    assert "Filename: pool/nginx_1.26.3-3+deb13u1_amd64.deb\n" in index
    assert "Depends: libc6 (>= 2.34),\n nginx-common (= 1.26.3-3+deb13u1)\n" in index
    assert "Maintainer: Müller <mueller@example.com>\n" in index
    assert {f"Filename: {deb.path.removeprefix('packages/')}" for deb in debs} == {
        line for line in index.splitlines() if line.startswith("Filename: ")
    }


def test_release_file_vouches_for_the_index() -> None:
    index = packages_index(parse_closure(CLOSURE))
    text = release_file(index, "amd64", datetime(2026, 11, 21, 12, tzinfo=UTC))
    assert "Date: Sat, 21 Nov 2026 12:00:00 UTC\n" in text
    digest = hashlib.sha256(index.encode()).hexdigest()
    assert f" {digest} {len(index.encode())} Packages\n" in text


def test_release_file_is_signed_with_the_key_that_goes_with_it(tmp_path: Path) -> None:
    text = release_file("Package: a\n", "amd64", datetime.now(UTC))
    ran = subprocess.run(["sh", "-c", SIGN_SCRIPT], input=text, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    key, signed = parse_signed(ran.stdout)
    (tmp_path / "key.asc").write_text(key)
    (tmp_path / "InRelease").write_text(signed)
    home = {"GNUPGHOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    dearmor = ["gpg", "--batch", "--dearmor", "-o", str(tmp_path / "key.gpg")]
    subprocess.run([*dearmor, str(tmp_path / "key.asc")], env=home, check=True)
    check = ["gpgv", "--keyring", str(tmp_path / "key.gpg"), str(tmp_path / "InRelease")]
    assert subprocess.run(check, env=home, capture_output=True).returncode == 0
    (tmp_path / "InRelease").write_text(signed.replace("amd64", "arm64"))
    assert subprocess.run(check, env=home, capture_output=True).returncode != 0


@pytest.mark.parametrize("output", ["", "gpg: failed", "-----BEGIN PGP SIGNED MESSAGE-----\n"])
def test_missing_signature_is_noticed(output: str) -> None:
    with pytest.raises(BundleError, match="did not sign the package repository"):
        parse_signed(output)


REPOSITORY = Repository(
    label="docker",
    uri="https://mirror.example/debian",
    suite="trixie",
    components=("stable",),
    fingerprint="AB" * 20,
    key_url="https://mirror.example/gpg?a=1&b=2",
    replaces=("/etc/apt/sources.list.d/docker-old.list",),
)


def test_scripts_for_the_builder_are_posix_shell() -> None:
    for script in (
        prepare_script([REPOSITORY]),
        sources_script(REPOSITORY),
        closure_script(["nginx", "docker-ce=5:29.10.0-1~debian.13~trixie"]),
        SIGN_SCRIPT,
    ):
        checked = subprocess.run(["dash", "-n"], input=script, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


def test_other_repositories_are_for_the_bundle_alone(tmp_path: Path) -> None:
    script = sources_script(REPOSITORY).replace(SCRATCH, str(tmp_path))
    for part in ("keys", "sources.list.d"):
        (tmp_path / part).mkdir()
    subprocess.run(["sh", "-c", script], input=b"key", check=True)
    assert (tmp_path / "keys/docker.gpg").read_bytes() == b"key"
    text = (tmp_path / "sources.list.d/docker.sources").read_text()
    assert f"Signed-By: {tmp_path}/keys/docker.gpg\n" in text
    assert "URIs: https://mirror.example/debian\n" in text
    prepared = prepare_script([REPOSITORY])
    assert "'https://mirror.example/gpg?a=1&b=2'" in prepared
    assert "rm -f sources.list.d/docker-old.list" in prepared


def test_apt_sees_the_bundle_and_nothing_else(tmp_path: Path) -> None:
    for path, text in apt_files().items():
        file = tmp_path / path.removeprefix(f"{DIRECTORY}/")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.replace(DIRECTORY, str(tmp_path)))
    (tmp_path / "lists/partial").mkdir(parents=True)
    environment = {"APT_CONFIG": str(tmp_path / "apt.conf"), "PATH": "/usr/bin:/bin"}
    assert f"{DIRECTORY}/apt.conf" == APT_CONF
    listed = subprocess.run(
        ["apt-get", "update", "--print-uris"],
        env=environment,
        capture_output=True,
        text=True,
    )
    addresses = [line.split("'")[1] for line in listed.stdout.splitlines()]
    assert addresses, listed.stderr
    assert all(each.startswith(f"file:{tmp_path}/packages/./") for each in addresses), addresses
