"""Kernel parameters compared with the running kernel."""

import subprocess
from pathlib import Path

import pytest

from llmhost.facts.sysctl import KernelParameters
from llmhost.system.sysctl import (
    KernelState,
    deviations,
    parse_state,
    proc_path,
    render,
    script,
    settable,
    unknown,
)

WANTED = {"net.core.somaxconn": "4096", "vm.max_map_count": "1048576"}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("vm.max_map_count", "/proc/sys/vm/max_map_count"),
        ("net.ipv4.conf.eth0/100.forwarding", "/proc/sys/net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "/proc/sys/net/ipv4/conf/eth0.100/forwarding"),
    ],
)
def test_parameter_has_a_file(name: str, path: str) -> None:
    assert proc_path(name) == path


def test_machine_sets_everything() -> None:
    assert settable(WANTED, KernelState()) == WANTED


def test_container_leaves_the_hosts_parameters_alone() -> None:
    state = KernelState(container="systemd-nspawn")
    assert settable(WANTED, state) == {"net.core.somaxconn": "4096"}


@pytest.mark.parametrize("kind", ["none", "wsl"])
def test_kernel_of_its_own_is_no_containers(kind: str) -> None:
    assert parse_state([f"container {kind}"]).container == ""


def test_read_only_parameter_is_left_alone() -> None:
    state = KernelState(read_only=frozenset({"vm.max_map_count"}))
    assert settable(WANTED, state) == {"net.core.somaxconn": "4096"}


def test_blanks_do_not_count_as_a_difference() -> None:
    state = parse_state(
        ["container none", "net.ipv4.tcp_rmem|w|/proc/sys/net/ipv4/tcp_rmem"],
        ["/proc/sys/net/ipv4/tcp_rmem:4096\t131072\t6291456"],
    )
    assert state.container == ""
    assert deviations({"net.ipv4.tcp_rmem": "4096 131072  6291456"}, state) == {}


def test_difference_is_told_with_both_values() -> None:
    state = parse_state(["container lxc", "vm.max_map_count|r|/proc/x"], ["/proc/x:65530"])
    assert deviations(WANTED, state) == {
        "vm.max_map_count": "vm.max_map_count is 65530, not 1048576"
    }
    assert unknown(WANTED, state) == ["net.core.somaxconn"]
    assert state.read_only == {"vm.max_map_count"} and state.container == "lxc"


def test_file_and_script_say_the_same() -> None:
    assert "vm.swappiness = 10\n" in render({"vm.swappiness": "10"})
    assert script({"vm.swappiness": "10"}) == "printf '%s\\n' 10 > /proc/sys/vm/swappiness"


def test_values_are_those_of_the_running_kernel() -> None:
    names = ["kernel.ostype", "net.ipv4.ip_local_port_range", "kernel.core_pattern", "kernel.no"]
    fact = KernelParameters()
    command = ["sh", "-c", fact.command(names, "/nonexistent")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    state, files = fact.process(ran.stdout.splitlines())
    running = {name: Path(proc_path(name)).read_text().split() for name in names[:3]}
    assert {name: value.split() for name, value in state.values.items()} == running
    assert running["kernel.ostype"] == ["Linux"] and files == {}
    assert "kernel.ostype" in state.read_only
