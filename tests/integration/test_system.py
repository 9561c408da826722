"""The system component on a real host."""

from pathlib import Path

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.tasks.system import configure_system
from testbed import Machine
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

OPTIONS = {
    "system_timezone": "Asia/Seoul",
    "system_apt_lock_timeout_seconds": 77,
    "system_sysctl": {"net.ipv4.tcp_rmem": "4096 131072 6291456", "net.core.somaxconn": 8192},
}
OTHERS = """\
DPkg::Lock::Timeout "1";
Unattended-Upgrade::Automatic-Reboot "true";
Unattended-Upgrade::Origins-Pattern:: "origin=*";
"""
ZONE = "System | Set the time zone and keep the clock synchronized"
KERNEL = "System | Set the kernel parameters"
APT = "System | Configure apt and its automatic updates"
SSH = "System | Start sshd at boot"


def _configure(options: dict[str, object]) -> None:
    configure_system(settings=read_settings(options))


@pytest.fixture(scope="module")
def host(machine: Machine) -> Machine:
    """The machine with the system configured, next to settings of somebody else's."""
    machine.ssh("cat >/etc/apt/apt.conf.d/99mine", input=OTHERS)
    converge(machine, _configure, OPTIONS)
    return machine


def test_time_zone_is_set(host: Machine) -> None:
    assert host.ssh("date +%Z").stdout == "KST\n"


def test_apt_waits_for_others(host: Machine) -> None:
    shell = "eval $(apt-config shell seconds DPkg::Lock::Timeout); echo $seconds"
    assert host.ssh(shell).stdout == "77\n"


def test_updates_are_security_fixes_only(host: Machine) -> None:
    said = host.ssh("unattended-upgrade --dry-run --debug 2>&1 | grep '^Allowed origins'").stdout
    origins = said.partition("are: ")[2].split(", ")
    assert origins and all("security" in origin for origin in origins)
    assert 'Automatic-Reboot "false"' in host.ssh("apt-config dump").stdout
    assert host.ssh("systemctl is-enabled apt-daily-upgrade.timer").stdout == "enabled\n"


def test_own_kernel_parameters_are_set(host: Machine) -> None:
    assert host.ssh("cat /proc/sys/net/core/somaxconn").stdout == "8192\n"
    assert host.ssh("cat /proc/sys/net/ipv4/tcp_rmem").stdout.split()[2] == "6291456"


def test_container_leaves_its_hosts_kernel_alone(host: Machine) -> None:
    # The machine shares this very kernel.
    before = Path("/proc/sys/vm/max_map_count").read_text()
    assert host.ssh("cat /proc/sys/vm/max_map_count").stdout == before
    assert "vm.max_map_count" not in host.ssh("cat /etc/sysctl.d/60-llmhost.conf").stdout


def test_drift_is_corrected_and_nothing_else(host: Machine) -> None:
    host.ssh("ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime; systemctl disable ssh.service")
    host.ssh("echo 128 > /proc/sys/net/core/somaxconn; rm /etc/apt/apt.conf.d/zz-llmhost")
    assert converge(host, _configure, OPTIONS).changed == [APT, ZONE, KERNEL, SSH]
    assert host.ssh("systemctl is-enabled ssh.service").stdout == "enabled\n"
    assert host.ssh("cat /proc/sys/net/core/somaxconn").stdout == "8192\n"


def test_timezone_file_follows_where_there_is_one(host: Machine) -> None:
    host.ssh("echo Etc/UTC > /etc/timezone")
    try:
        assert deploy(host, _configure, OPTIONS, sudo=True).changed == [ZONE]
        assert host.ssh("cat /etc/timezone").stdout == "Asia/Seoul\n"
    finally:
        host.ssh("rm /etc/timezone")


def test_updates_can_be_switched_off(host: Machine) -> None:
    deploy(host, _configure, {**OPTIONS, "system_unattended_upgrades": False})
    shell = "eval $(apt-config shell often APT::Periodic::Unattended-Upgrade); echo $often"
    assert host.ssh(shell).stdout == "0\n"


def test_parameter_that_does_not_exist_is_refused(host: Machine) -> None:
    outcome = deploy(host, _configure, {"system_sysctl": {"net.ipv4.no_such_thing": 1}})
    assert not outcome.succeeded
    assert "this kernel has no parameter net.ipv4.no_such_thing" in outcome.output
