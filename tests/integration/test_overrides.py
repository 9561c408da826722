"""Overrides of units under the real systemd and dpkg: whose they are, and what becomes of them."""

from collections.abc import Iterator

import pytest

from llmhost.operations import systemd
from testbed import Machine
from tests.integration.harness import converge

pytestmark = pytest.mark.machines

NAME = "llmhost-overridden.service"
PACKAGED = f"/usr/lib/systemd/system/{NAME}"
UNIT = """\
[Service]
EnvironmentFile=-/etc/default/llmhost-overridden
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
EVERYWHERE = (
    f"/etc/systemd/system.control/{NAME}.d/50.conf",
    f"/etc/systemd/system/{NAME}.d/mine.conf",
    f"/run/systemd/system/{NAME}.d/mine.conf",
    f"/usr/local/lib/systemd/system/{NAME}.d/mine.conf",
)
DROP_IN = "[Service]\nNice=5\n"


def _without(known: list[str]) -> None:
    systemd.without_overrides(NAME, known=known, then="restart", name="Remove overrides")
    systemd.without_overrides("ssh.service", correct=False, name="Report overrides of sshd")


@pytest.fixture
def host(machine: Machine) -> Iterator[Machine]:
    """The machine with a unit of a package, which runs."""
    _write(machine, PACKAGED, UNIT)
    machine.ssh(f"systemctl daemon-reload; systemctl start {NAME}")
    yield machine
    machine.ssh(f"systemctl stop {NAME}; dpkg -P llmhost-double; rm -rf {PACKAGED}", check=False)
    machine.ssh(
        f"rm -rf /etc/systemd/system*/{NAME}* /run/systemd/system/{NAME}* /root/overrides"
        " /etc/systemd/system/ssh.service.d /run/systemd/system/service.d/llmhost-shared.conf"
        " /usr/local/lib/systemd /var/lib/llmhost/overrides /etc/default/llmhost-overridden;"
        " systemctl daemon-reload"
    )


def _write(machine: Machine, path: str, content: str) -> None:
    machine.ssh(f"mkdir -p $(dirname {path}); cat >{path}", input=content)


def _nice(machine: Machine) -> str:
    pid = machine.ssh(f"systemctl show -P MainPID {NAME}").stdout.strip()
    return machine.ssh(f"ps -o ni= -p {pid}").stdout.strip()


def test_overrides_are_removed_and_the_unit_runs_as_packaged(host: Machine) -> None:
    hiding, variables = f"/etc/systemd/system/{NAME}", "/etc/default/llmhost-overridden"
    for path in EVERYWHERE:
        _write(host, path, DROP_IN)
    _write(host, hiding, UNIT.replace("[Install]", "OOMScoreAdjust=1\n[Install]"))
    _write(host, variables, "# Options\nOPTIONS=-x\nHTTPS_PROXY=http://proxy.example\n")
    host.ssh(f"systemctl daemon-reload; systemctl restart {NAME}")
    assert _nice(host) == "5"
    outcome = converge(host, _without, [])
    assert all(f"{path} changes {NAME}: it sets Nice" in outcome.output for path in EVERYWHERE)
    assert f"{hiding} hides the packaged {NAME}" in outcome.output
    assert f"{variables} sets OPTIONS for {NAME}" in outcome.output
    assert _nice(host) == "0"
    assert host.ssh(f"systemctl show -P FragmentPath {NAME}").stdout.strip() == PACKAGED
    kept = host.ssh(f"cat {variables}").stdout.splitlines()
    assert kept == ["# Options", "# OPTIONS=-x", "HTTPS_PROXY=http://proxy.example"]
    for path in (*EVERYWHERE, hiding):
        host.ssh(f"test ! -e {path} && test -s /var/lib/llmhost/overrides{path}")


def test_overrides_of_packages_and_sshd_and_accepted_ones_stay(host: Machine) -> None:
    directory = f"/etc/systemd/system/{NAME}.d"
    accepted, proxy, packaged = f"{directory}/a.conf", f"{directory}/b.conf", f"{directory}/c.conf"
    shared = "/run/systemd/system/service.d/llmhost-shared.conf"
    sshd = "/etc/systemd/system/ssh.service.d/llmhost.conf"
    _install_package_with(host, packaged)
    for path in (accepted, shared, sshd):
        _write(host, path, DROP_IN)
    _write(host, proxy, "[Service]\nEnvironment=HTTPS_PROXY=http://proxy.example:3128\n")
    host.ssh("systemctl daemon-reload")
    outcome = converge(host, _without, [accepted])
    assert outcome.changed == []
    for path, unit in ((shared, NAME), (sshd, "ssh.service")):
        assert f"{path} changes {unit}: it sets Nice; llmhost leaves it alone" in outcome.output
    assert not any(path in outcome.output for path in (accepted, proxy, packaged))
    host.ssh(f"ls {accepted} {proxy} {packaged} {shared} {sshd}")


def _install_package_with(machine: Machine, path: str) -> None:
    """A package that is real to dpkg, with one drop-in."""
    root, fields = "/root/overrides", "Package: llmhost-double\nVersion: 1\nArchitecture: all\n"
    _write(machine, f"{root}{path}", DROP_IN)
    _write(machine, f"{root}/DEBIAN/control", f"{fields}Maintainer: nobody\nDescription: x\n")
    machine.ssh(f"dpkg-deb -b {root} /root/o.deb && dpkg -i /root/o.deb")
