"""Files, directories and absences on a real host."""

from collections.abc import Iterator, Sequence

import pytest

from llmhost.operations import files
from llmhost.system.files import Absent, Directory, Entry, File
from testbed import Machine
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

TOP = "/srv/llmhost-files"
SECRET = "correct horse battery staple"
TREE = [
    Directory(TOP, mode="0750", group="operator"),
    File(f"{TOP}/plain.conf", "one line\n"),
    File(f"{TOP}/deep/er/secret", SECRET, mode="0600", owner="operator", group="operator"),
    File(f"{TOP}/name with 'quotes'", b"\x00\xff"),
    Absent(f"{TOP}/old.conf"),
]


@pytest.fixture
def host(machine: Machine) -> Iterator[Machine]:
    machine.ssh(f"rm -rf {TOP}")
    yield machine
    machine.ssh(f"rm -rf {TOP}")


def _present(entries: Sequence[Entry]) -> None:
    files.present(*entries, name="Put the files")


def _stat(machine: Machine, path: str) -> str:
    return machine.ssh(f'stat -c "%F %a %U:%G" "{path}"').stdout.strip()


def test_tree_is_made_as_declared(host: Machine) -> None:
    host.ssh(f"mkdir {TOP}; touch {TOP}/old.conf")
    assert converge(host, _present, TREE).changed == ["Put the files"]
    assert _stat(host, TOP) == "directory 750 root:operator"
    assert _stat(host, f"{TOP}/plain.conf") == "regular file 644 root:root"
    assert _stat(host, f"{TOP}/deep/er/secret") == "regular file 600 operator:operator"
    assert host.ssh(f"cat {TOP}/deep/er/secret").stdout == SECRET
    assert host.ssh(f"od -An -tx1 \"{TOP}/name with 'quotes'\"").stdout.split() == ["00", "ff"]
    assert "old.conf" not in host.ssh(f"ls -A {TOP}").stdout


@pytest.mark.parametrize(
    "drift",
    [
        f"echo more >> {TOP}/plain.conf",
        f"chmod 666 {TOP}/plain.conf",
        f"chown operator {TOP}/plain.conf",
        f"ln -sfn /etc/passwd {TOP}/plain.conf",
        f"chmod 755 {TOP}",
        f"touch {TOP}/old.conf",
        f"ln -s /nonexistent {TOP}/old.conf",
    ],
)
def test_drift_is_corrected(host: Machine, drift: str) -> None:
    deploy(host, _present, TREE)
    host.ssh(drift)
    assert deploy(host, _present, TREE).changed == ["Put the files"]
    assert deploy(host, _present, TREE).changed == []
    assert host.ssh("grep -c ^root: /etc/passwd").stdout == "1\n"


def test_dry_run_touches_nothing_and_secrets_are_not_shown(host: Machine) -> None:
    planned = deploy(host, _present, TREE, dry=True)
    assert planned.changed == ["Put the files"]
    assert host.ssh(f"ls {TOP}", check=False).returncode != 0
    done = deploy(host, _present, TREE, sudo=True)
    assert done.succeeded and SECRET not in planned.output + done.output
