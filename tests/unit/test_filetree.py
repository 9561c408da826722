"""Files compared with a host, and the commands that make them so."""

import base64
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from llmhost.facts.files import parse_states
from llmhost.system import files as core
from llmhost.system.files import (
    Absent,
    Directory,
    Entry,
    File,
    PathState,
    apply_script,
    archive,
    candidate_path,
    differences,
)

CONF = File("/etc/app.conf", "one\n", mode="0640", group="adm")


def state(**changes: str) -> PathState:
    values = {"kind": "file", "owner": "root", "group": "adm", "mode": "0640"}
    values |= {"sha256": CONF.sha256} | changes
    return PathState(modified=1.0, **values)


def test_file_as_declared_differs_in_nothing() -> None:
    assert differences([CONF], {CONF.path: state()}) == {}


@pytest.mark.parametrize(
    ("entry", "found", "reason"),
    [
        (CONF, None, "/etc/app.conf is missing"),
        (CONF, state(sha256="0"), "/etc/app.conf has other content"),
        (CONF, state(mode="0666"), "/etc/app.conf has mode 0666"),
        (CONF, state(owner="bob"), "/etc/app.conf belongs to bob:adm"),
        (CONF, state(kind="link"), "/etc/app.conf is a link, not a file"),
        (Directory("/srv"), state(kind="file"), "/srv is a file, not a directory"),
        (Directory("/srv", group="adm", mode="0640"), state(kind="directory"), ""),
        (Absent("/etc/old"), state(), "/etc/old must not exist"),
        (Absent("/etc/old"), None, ""),
    ],
)
def test_difference_is_told_in_words(entry: Entry, found: PathState | None, reason: str) -> None:
    states = {entry.path: found} if found else {}
    assert differences([entry], states) == ({entry: reason} if reason else {})


def test_archive_carries_content_owner_and_mode() -> None:
    packed = base64.b64decode(archive({"/etc/.new": CONF}))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        member = tar.getmember("etc/.new")
        content = tar.extractfile(member)
        assert content and content.read() == b"one\n"
    assert (member.mode, member.uname, member.gname) == (0o640, "root", "adm")


def test_content_never_stands_in_the_script() -> None:
    secret = File("/etc/key", "very-secret-value")
    assert "very-secret-value" not in apply_script([secret])


def test_script_makes_what_was_declared(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    user, group = tmp_path.owner(), tmp_path.group()
    new = File(f"{tmp_path}/deep/new file.conf", "text\n", "0600", user, group)
    entries: list[Entry] = [new, Absent(str(old)), Directory(f"{tmp_path}/d", "0700", user, group)]
    contents = archive({candidate_path(new.path): new})
    subprocess.run(["sh", "-c", apply_script(entries)], input=contents, text=True, check=True)
    written = Path(new.path)
    assert written.read_text() == "text\n"
    assert written.stat().st_mode & 0o7777 == 0o600
    assert not old.exists()
    assert [path.name for path in written.parent.iterdir()] == ["new file.conf"]


def test_states_are_read_from_stat_and_sha256sum() -> None:
    lines = [
        "regular file|root|root|644|1700000000.5|/etc/a|b",
        "directory|bob|adm|750|1.0|/srv",
        f"{CONF.sha256}  /etc/a|b",
    ]
    states = parse_states(lines)
    assert states["/etc/a|b"] == PathState(
        "file", "root", "root", "0644", 1700000000.5, CONF.sha256
    )
    assert states["/srv"].kind == "directory"


@pytest.mark.parametrize(
    ("path", "loaded"),
    [
        ("units/docker.service.d/50-own.conf", True),
        ("units/own.timer", True),
        ("units/docker.service.d", False),  # a directory alone
        ("elsewhere/own.conf", False),
    ],
)
def test_systemd_loads_files_of_units_and_nothing_else(
    tmp_path: Path, path: str, loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "UNITS", f"{tmp_path}/units/")
    user, group = tmp_path.owner(), tmp_path.group()
    entry: Entry = File(f"{tmp_path}/{path}", "text\n", "0644", user, group)
    if path.endswith(".d"):
        entry = Directory(entry.path, "0755", user, group)
    removed = Absent(entry.path)
    assert reloads(tmp_path, entry) == (["daemon-reload"] if loaded else [])
    if isinstance(entry, File):
        assert reloads(tmp_path, removed) == (["daemon-reload"] if loaded else [])


def reloads(place: Path, entry: Entry) -> list[str]:
    """What systemctl is asked when the entry is written, which must be there by then."""
    asked = place / "asked"
    asked.write_text("")
    there = "!" if isinstance(entry, Absent) else ""
    double = place / "systemctl"
    double.write_text(f"#!/bin/sh\n[ {there} -e {entry.path} ] && echo $* >>{asked}\n")
    double.chmod(0o755)
    contents = archive({candidate_path(entry.path): entry} if isinstance(entry, File) else {})
    environment = {"PATH": f"{place}:{os.environ['PATH']}"}
    command = ["sh", "-c", apply_script([entry])]
    subprocess.run(command, input=contents, text=True, check=True, env=environment)
    return asked.read_text().splitlines()
