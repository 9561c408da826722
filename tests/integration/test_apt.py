"""Packages under the real apt."""

import pytest

from llmhost.operations import apt
from tests.integration.harness import converge, deploy
from tests.machines import Machine

pytestmark = pytest.mark.machines


def _installed(*names: str) -> None:
    apt.packages(*names, name="Install packages")


def test_package_is_installed_once(machine: Machine) -> None:
    machine.ssh("apt-get -y -q purge figlet 2>/dev/null; rm -rf /var/lib/apt/lists/*")
    outcome = converge(machine, _installed, "figlet")
    assert outcome.changed == ["Install packages"]
    assert machine.ssh("figlet -v | head -n1").stdout.startswith("FIGlet")
