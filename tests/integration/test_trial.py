"""`script/try`: the settings of a site's server, proven on a machine that is made for it."""

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from testbed.engine import root_archive
from testbed.registry import locked, records

ROOT = Path(__file__).parents[2]
CLIENT = {"name": "app", "sha256": digest(new_key())}


def try_inventory(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "testbed.try_inventory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


def inventory(place: Path, **settings: object) -> str:
    """A site whose server has an address that nobody answers at: a trial must not use it."""
    file = place / "site.py"
    file.write_text(f"hosts = [('llm-server', {{'ssh_hostname': '192.0.2.1', **{settings!r}}})]\n")
    return str(file)


def app(context: Path) -> dict[str, Any]:
    """A program that needs no image from a registry."""
    context.mkdir()
    archive = root_archive("box", ("busybox-static", "base-files", "base-passwd"), "trixie")
    with tarfile.open(archive) as tar:
        member = next(each for each in tar if each.name.endswith("/bin/busybox"))
        member.name = "busybox"
        tar.extract(member, context, filter="data")
    (context / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /busybox\nENTRYPOINT ["/busybox", "sleep", "30d"]\n'
    )
    health = ["/busybox", "true"]
    return {"name": "box", "context": str(context), "container_port": 8000, "health": health}


@pytest.mark.fresh
@pytest.mark.machines
def test_settings_that_hold_are_proven_and_leave_nothing_behind(tmp_path: Path) -> None:
    page = tmp_path / "verify.html"
    site = inventory(
        tmp_path, apps=[app(tmp_path / "box")], api_clients=[CLIENT], system_timezone="Asia/Seoul"
    )
    tried = try_inventory(site, "--container", "--html", str(page))
    assert tried.returncode == 0, tried.stdout + tried.stderr
    for step in ("Deploy again", "Reboot", "Verify"):
        assert f"--> {step}" in tried.stdout
    assert "The server is as declared" in page.read_text()
    with locked():
        assert "try" not in {record.name for record in records()}


def test_host_that_is_not_in_the_inventory_is_told_before_a_machine_is_made(
    tmp_path: Path,
) -> None:
    tried = try_inventory(inventory(tmp_path), "--host", "other")
    assert tried.returncode == 1
    assert "has no host other; it has: llm-server" in tried.stderr
