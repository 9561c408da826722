"""The strictest hardening on a machine with a kernel of its own."""

from collections.abc import Iterator

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.tasks.system import configure_system
from testbed import Lan, Machine
from tests.integration.harness import converge, deploy

pytestmark = [pytest.mark.machines, pytest.mark.vm]

OPTIONS = {"system_hardening": "cis", "system_unattended_upgrades": False}
AUDIT = "System | Audit changes to accounts and access"
KERNEL = "System | Set the kernel parameters"


def _configure(options: dict[str, object]) -> None:
    configure_system(settings=read_settings(options))


@pytest.fixture(scope="module")
def host() -> Iterator[Machine]:
    """A virtual machine: only there do audit and all of the kernel's parameters exist."""
    with Lan.create("audit") as lan:
        machine = lan.machine("strict", kind="vm")
        converge(machine, _configure, OPTIONS)
        yield machine


def test_change_of_an_account_is_recorded(host: Machine) -> None:
    host.ssh("useradd recorded")
    # auditd writes in intervals.
    found = host.ssh("sleep 2; ausearch --key llmhost-system --input-logs --raw | grep -c shadow")
    assert int(found.stdout) > 0


def test_rules_that_were_removed_from_the_kernel_are_drift(host: Machine) -> None:
    host.ssh("auditctl -D")
    assert deploy(host, _configure, OPTIONS, dry=True).changed == [AUDIT]
    assert converge(host, _configure, OPTIONS).changed == [AUDIT]
    assert "/etc/shadow" in host.ssh("auditctl -l").stdout


def test_kernel_is_hardened(host: Machine) -> None:
    names = "kernel/kptr_restrict fs/protected_regular kernel/sysrq net/core/bpf_jit_harden"
    assert host.ssh(f"cd /proc/sys && cat {names}").stdout.split() == ["2", "2", "0", "2"]


def test_unused_protocol_cannot_be_loaded(host: Machine) -> None:
    assert host.ssh("modprobe sctp", check=False).returncode != 0


def test_hardening_stays_after_a_reboot(host: Machine) -> None:
    host.reboot()
    assert "/etc/shadow" in host.ssh("auditctl -l").stdout
    planned = deploy(host, _configure, OPTIONS, dry=True)
    assert planned.succeeded and planned.changed == [], planned.output
