"""Several hosts in one run: each fails for itself, and the run ends with who failed and why.

Four gateways on one LAN. The tests go on from each other, in the order of the file.
"""

import threading
import time
from collections.abc import Iterator

import pytest

from testbed import Lan, Machine
from testbed.fleet import Fleet, fleet

pytestmark = [pytest.mark.machines, pytest.mark.scale]
PROOF = "/etc/apt/apt.conf.d/zz-llmhost"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Lan.create("fleet") as lan, fleet(tmp_path_factory.mktemp("fleet"), lan, 4) as site:
        yield site


def machine(site: Fleet, number: int) -> Machine:
    return site.lan.machines[f"gate-0{number}"]


def drift(site: Fleet, *numbers: int) -> None:
    for number in numbers:
        machine(site, number).ssh(f"rm {PROOF}")


def is_there(site: Fleet, number: int) -> bool:
    return machine(site, number).ssh(f"test -e {PROOF}", check=False).returncode == 0


def make_unfit(machine: Machine) -> None:
    machine.ssh("cp /etc/os-release /root/; sed -i 's/^ID=.*/ID=arch/' /etc/os-release")


def make_fit(machine: Machine) -> None:
    machine.ssh("cp --remove-destination /root/os-release /etc/os-release")


def power_off_once_locked(machine: Machine) -> None:
    locked = "test -e /run/llmhost/deploy.lock && ! flock -n /run/llmhost/deploy.lock true"
    while machine.ssh(locked, check=False).returncode:
        time.sleep(0.2)
    time.sleep(2)
    machine.kill()


def test_hosts_fail_for_themselves_and_the_run_ends_with_who_and_why(site: Fleet) -> None:
    make_unfit(machine(site, 3))
    death = threading.Thread(target=power_off_once_locked, args=(machine(site, 4),))
    death.start()
    run = site.deploy()
    death.join()
    assert run.status == 1, run.said
    _, _, summary = run.said.rpartition("--> 2 of 4 hosts failed:")
    assert "gate-03: Preflight | Check that the host can become a gateway" in summary, run.said
    assert "arch" in summary and "gate-04" in summary and "gate-01" not in summary
    assert "--limit=gate-03 --limit=gate-04" in summary
    assert "Traceback" not in run.said
    for number in (1, 2):
        active = machine(site, number).ssh("systemctl is-active nginx ufw").stdout.split()
        assert active == ["active", "active"]
    assert not is_there(site, 3)


def test_those_that_failed_are_healed_host_by_host(site: Fleet) -> None:
    make_fit(machine(site, 3))
    machine(site, 4).start()
    run = site.deploy("--serial")
    assert run.status == 0, run.said
    assert "failed:" not in run.said
    again = site.deploy("--json")
    assert again.status == 0 and again.changed == {}, again.said


def test_only_hosts_within_the_limit_are_touched(site: Fleet) -> None:
    drift(site, 1, 2)
    run = site.deploy("--json", hosts=["gate-01"])
    assert run.changed == {"System | Configure apt and its automatic updates": ["gate-01"]}
    assert not is_there(site, 2)


def test_drift_of_one_host_is_corrected_there_alone(site: Fleet) -> None:
    run = site.deploy("--json")
    assert run.changed == {"System | Configure apt and its automatic updates": ["gate-02"]}


def test_too_many_failures_end_the_run_before_the_others_change(site: Fleet) -> None:
    drift(site, 2)
    make_unfit(machine(site, 3))
    run = site.deploy("--fail-percent", "20")
    assert run.status == 1 and "Over 20% of hosts failed" in run.said
    assert "gate-03: Preflight" in run.said.rpartition("failed:")[2]
    assert not is_there(site, 2)
    run = site.deploy("--fail-percent", "30")
    assert run.status == 1 and is_there(site, 2), run.said
    make_fit(machine(site, 3))


def test_failure_counts_also_where_no_host_waits_for_another(site: Fleet) -> None:
    drift(site, 2)
    make_unfit(machine(site, 3))
    run = site.deploy("--no-wait")
    assert run.status == 1 and is_there(site, 2), run.said
    assert "gate-03: Preflight" in run.said.rpartition("--> 1 of 4 hosts failed:")[2]
    make_fit(machine(site, 3))


def test_host_that_somebody_else_deploys_is_left_to_them(site: Fleet) -> None:
    drift(site, 2)
    machine(site, 1).ssh("systemd-run -q --unit=other flock /run/llmhost/deploy.lock sleep 300")
    run = site.deploy()
    machine(site, 1).ssh("systemctl stop other")
    assert run.status == 1 and is_there(site, 2)
    summary = run.said.rpartition("--> 1 of 4 hosts failed:")[2]
    assert "gate-01: Lock" in summary and "has been deploying to this host" in summary
    assert site.deploy("--json").changed == {}
