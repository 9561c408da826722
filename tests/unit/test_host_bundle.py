"""A bundle's parts on their way to a host."""

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from llmhost.bundle.host import (
    CHECK_SCRIPT,
    LOOK_SCRIPT,
    UNPACK_SCRIPT,
    append_script,
    checksums,
    finish_script,
    keys_script,
    parse_check,
    parse_look,
    stream,
)
from llmhost.bundle.manifest import DIRECTORY, Part, Release
from llmhost.docker.image import ServiceImage
from llmhost.docker.image_scripts import load_script
from llmhost.facts.images import Images
from llmhost.system.files import File

CONTENT = b"0123456789" * 1000
PART = Part("images/a.tar", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def run(script: str, place: Path, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """A script for a host, with another directory in place of the bundle's."""
    local = script.replace(DIRECTORY, str(place))
    return subprocess.run(["dash", "-c", local], input=given, capture_output=True)


def test_bare_host_is_looked_at(tmp_path: Path) -> None:
    state = parse_look(run(LOOK_SCRIPT, tmp_path / "not/there").stdout.decode())
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True)
    assert state.release.architecture == architecture.stdout.strip()
    assert state.release.distribution in Path("/etc/os-release").read_text()
    assert state.free > 0 and state.files == {}


def test_files_of_an_interrupted_run_are_found(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.tar.part").write_bytes(CONTENT[:77])
    state = parse_look(run(LOOK_SCRIPT, tmp_path).stdout.decode())
    assert state.files == {"images/a.tar.part": 77}


def test_look_is_read_as_printed() -> None:
    state = parse_look("release|ubuntu|24.04|arm64\nfree|2048\nfile|5|packages/pool/a_1_all.deb\n")
    assert state.release == Release("ubuntu", "24.04", "arm64")
    assert (state.free, state.files) == (2 * 2**20, {"packages/pool/a_1_all.deb": 5})


def test_stream_arrives_as_files_and_damage_is_named(tmp_path: Path) -> None:
    files = {
        "packages/Packages": b"x" * 513,
        "packages/pool/a+b_1_all.deb": b"",
        "keys/k.gpg": b"k",
    }
    parts = [Part(p, len(d), hashlib.sha256(d).hexdigest()) for p, d in files.items()]
    pieces = stream((path, len(data), [data]) for path, data in files.items())
    assert run(UNPACK_SCRIPT, tmp_path, b"".join(pieces)).returncode == 0
    assert {path: (tmp_path / path).read_bytes() for path in files} == files
    assert parse_check(run(CHECK_SCRIPT, tmp_path, checksums(parts)).stdout.decode()) == set()
    (tmp_path / "keys/k.gpg").write_bytes(b"K")
    (tmp_path / "packages/Packages").unlink()
    checked = run(CHECK_SCRIPT, tmp_path, checksums(parts)).stdout.decode()
    assert parse_check(checked) == {"keys/k.gpg", "packages/Packages"}


def test_damage_is_found_whatever_the_language_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSH passes the controller's on, and Debian's sshd takes it over."""
    (tmp_path / "bin").mkdir()
    german = tmp_path / "bin/sha256sum"
    german.write_text(
        '#!/bin/sh\n[ "$LC_ALL" = C ] && exec /usr/bin/sha256sum "$@"\n'
        "/usr/bin/sha256sum \"$@\" | sed 's/: FAILED/: FEHLSCHLAG/'\nexit 1\n"
    )
    german.chmod(0o755)
    monkeypatch.setenv("PATH", f"{german.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    (tmp_path / "a.deb").write_bytes(b"damaged")
    part = Part("a.deb", 7, hashlib.sha256(b"correct").hexdigest())
    checked = run(CHECK_SCRIPT, tmp_path, checksums([part])).stdout.decode()
    assert parse_check(checked) == {"a.deb"}


def test_check_that_cannot_run_fails_instead_of_finding_no_damage(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    whole = checksums([PART])
    broken = CHECK_SCRIPT.replace("sha256sum", "no-such-program")
    assert run(CHECK_SCRIPT, tmp_path / "there", whole).returncode == 0
    assert run(broken, tmp_path / "there", whole).returncode != 0
    assert run(CHECK_SCRIPT, tmp_path / "gone", whole).returncode != 0


def test_empty_stream_is_an_archive() -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream([])))) as tar:
        assert tar.getnames() == []


@pytest.mark.parametrize("arrived", [0, 4096, len(CONTENT)])
def test_interrupted_upload_goes_on_where_it_ended(tmp_path: Path, arrived: int) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.tar.part").write_bytes(CONTENT[:arrived])
    run(append_script(PART, keep=arrived > 0), tmp_path, CONTENT[arrived:])
    assert run(finish_script(PART), tmp_path).returncode == 0
    assert (tmp_path / "images/a.tar").read_bytes() == CONTENT
    assert not (tmp_path / "images/a.tar.part").exists()


def test_part_that_arrived_damaged_is_not_kept(tmp_path: Path) -> None:
    run(append_script(PART, keep=False), tmp_path, CONTENT[:-1] + b"!")
    finished = run(finish_script(PART), tmp_path)
    assert finished.returncode == 1
    assert b"was damaged in transfer: rerun llmhost bundle apply" in finished.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_keys_go_where_the_deploy_looks_for_them() -> None:
    key = Part("keys/docker.gpg", 1, "00")
    assert keys_script([PART]) == ""
    assert keys_script([PART, key]) == (
        f"install -D -m 0644 {DIRECTORY}/keys/docker.gpg /etc/apt/keyrings/docker.gpg || exit 1"
    )


IMAGE = ServiceImage("redis", "", (), (File("Dockerfile", "FROM scratch\n"),))


def test_waiting_archives_are_told_from_uploads() -> None:
    output = ["", "image|sha256:1|ab|llmhost/a:1 ", "upload|0123.part", "archive|redis-0123.tar"]
    store = Images().process(output)
    assert (store.uploads, store.archives) == (("0123.part",), ("redis-0123.tar",))
    assert [*store.images] == ["llmhost/a:1"]


@pytest.mark.parametrize(("label", "status"), [(IMAGE.inputs, 0), ("other", 1)])
def test_image_is_loaded_only_if_it_is_the_wanted_one(
    tmp_path: Path, label: str, status: int
) -> None:
    archive = tmp_path / IMAGE.archive
    archive.write_text("archive")
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$1" = load ] && [ -s "$4" ] || echo {label}\n')
    docker.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["dash", "-c", load_script(IMAGE, str(tmp_path))]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == status
    assert archive.exists() == bool(status)
    if status:
        assert f"does not contain the image {IMAGE.reference}: rerun" in ran.stderr
