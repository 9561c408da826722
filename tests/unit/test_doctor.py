"""`llmhost doctor`: what it finds on this machine, in a site, and on the way to hosts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.authority import open_authority

LLMHOST = Path(sys.executable).with_name("llmhost")


class Controller:
    """A controller with a home, a PATH, and an ssh that prints what OpenSSH printed."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.programs = directory / "bin"
        self.site = directory / "site"
        for each in (self.home / ".ssh", self.programs, self.site / "inventory"):
            each.mkdir(parents=True)
        for name in ("sh", "id", "git", "ssh-keygen"):
            self.program(name, f'exec /usr/bin/{name} "$@"')
        self.ssh("0\nroot")
        (self.home / ".ssh/id_ed25519.pub").touch()

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def ssh(self, output: str, error: str = "", status: int = 0) -> None:
        """An OpenSSH client that prints this and no more."""
        self.program("ssh", f"cat <<'E'\n{output}\nE\necho '{error}' >&2; exit {status}")
        self.program("cat", 'exec /bin/cat "$@"')

    def inventory(self, **more: object) -> None:
        data: dict[str, object] = {"ssh_hostname": "192.0.2.7", "ssh_user": "ann"}
        data |= {"services": ["redis"]}
        data |= {"gateway_ca_directory": str(self.home / "ca")}
        data |= {"api_clients": [{"name": "app", "sha256": "cd" * 32}], **more}
        path = self.site / "inventory/site.py"
        path.write_text(f"llm_servers = [('server', {data!r})]\n")

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": str(self.programs), "HOME": str(self.home)}
        environment |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        return subprocess.run(
            [LLMHOST, "doctor", *arguments],
            cwd=self.site,
            env=environment,
            capture_output=True,
            text=True,
        )

    def findings(self, status: int) -> dict[str, dict[str, Any]]:
        ran = self.run("--json")
        assert ran.returncode == status, ran.stdout + ran.stderr
        report = json.loads(ran.stdout)
        assert report["schema"] == 1
        for each in report["findings"]:
            assert set(each) == {"id", "state", "what", "fix"}
        return {each["id"]: each for each in report["findings"]}


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def test_newcomer_without_anything_gets_the_commands(controller: Controller) -> None:
    for program in ("ssh", "git", "ssh-keygen"):
        (controller.programs / program).unlink()
    (controller.home / ".ssh/id_ed25519.pub").unlink()
    found = controller.findings(2)
    assert {name: (each["state"], each["fix"]) for name, each in found.items()} == {
        "controller.python": ("ok", ""),
        "controller.ssh": ("missing", "sudo apt-get install openssh-client"),
        "controller.ssh-keygen": ("advice", "sudo apt-get install openssh-client"),
        "controller.git": ("advice", "sudo apt-get install git"),
        "controller.ssh-key": ("advice", "ssh-keygen -t ed25519"),
        "controller.dependencies": ("ok", ""),
        "site.inventory": ("advice", "llmhost init my-site"),
    }


def test_site_that_lacks_nothing_exits_with_0(controller: Controller) -> None:
    controller.inventory()
    open_authority(controller.home / "ca", create=True)
    found = controller.findings(0)
    assert {each["state"] for each in found.values()} == {"ok"}
    printed = controller.run().stdout.splitlines()
    assert (
        len(printed) == len(found)
        and "ok      server: SSH login works, with root access" in printed
    )


def test_mistakes_of_the_inventory_are_findings(controller: Controller) -> None:
    controller.inventory(api_clients=[], gateway_port=22)
    found = controller.findings(2)
    assert "server:" in found["site.options"]["what"]
    assert found["host.server"]["state"] == "ok", "hosts are tried in spite of mistakes"
    controller.inventory(gateway_prt=22)
    assert "did you mean gateway_port?" in controller.findings(2)["site.options"]["what"]
    (controller.site / "inventory/site.py").write_text("llm_servers = [\n")
    ran = controller.run()
    assert ran.returncode == 2 and not ran.stderr
    assert "inventory/site.py cannot be read: line 1: '[' was never" in ran.stdout


def test_missing_secret_of_announcements_is_named(controller: Controller) -> None:
    place = controller.home / "hook"
    controller.inventory(announce_webhook=f"file:{place}")
    found = controller.findings(2)["site.announce"]
    assert found["what"].startswith(f"announce_webhook refers to the file {place}, which cannot")
    place.write_text("https://chat.example.com/secret")
    found = controller.findings(0)["site.announce"]
    assert (found["state"], found["what"]) == ("ok", "announce_webhook")


def test_key_of_the_authority_must_be_private(controller: Controller) -> None:
    controller.inventory()
    assert controller.findings(0)["site.authority"]["state"] == "advice"
    open_authority(controller.home / "ca", create=True)
    (controller.home / "ca/ca.key").chmod(0o644)
    found = controller.findings(2)["site.authority"]
    assert found["fix"] == f"chmod 600 {controller.home}/ca/ca.key"


# The errors are those of OpenSSH 9.2.
@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("ann@192.0.2.7: Permission denied (publickey,password).", "ssh-copy-id ann@192.0.2.7"),
        ("Host key verification failed.", "ssh ann@192.0.2.7"),
        ("ssh: Could not resolve hostname x: Name or service not known", "correct ssh_hostname"),
        ("ssh: connect to host 192.0.2.7 port 22: Connection timed out", "check its address"),
        (
            "ssh: connect to host 192.0.2.7 port 22: Connection refused",
            "correct ssh_port, or there: sudo",
        ),
        ("something else", "ssh ann@192.0.2.7"),
    ],
)
def test_host_that_refuses_ssh_is_named_with_the_fix(
    controller: Controller, error: str, fix: str
) -> None:
    controller.inventory()
    controller.ssh("", error, 255)
    found = controller.findings(2)["host.server"]
    assert found["state"] == "missing" and found["fix"].startswith(fix), found


def test_login_without_sudo_is_named_with_the_fix(controller: Controller) -> None:
    controller.inventory()
    controller.ssh("1000", "", 1)
    found = controller.findings(2)["host.server"]
    assert "cannot use sudo without a password" in found["what"] and "sudoers.d" in found["fix"]


def test_dependency_of_another_version_is_named(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from llmhost.cli import doctor_controller

    lock = tmp_path / "requirements.lock"
    lock.write_text("rich==0.1 \\\n    --hash=sha256:1\nnever-installed==1\nother==1 ; marker\n")
    monkeypatch.setattr(doctor_controller, "REQUIREMENTS", lock)
    [found] = [e for e in doctor_controller.controller_findings() if "dependencies" in e.id]
    assert found.state == "advice" and str(lock) in found.fix
    assert "2 dependencies" in found.what and "never-installed is not installed" in found.what
