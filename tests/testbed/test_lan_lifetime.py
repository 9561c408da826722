"""Nothing of a LAN is left behind, however its owner ends; a detached one outlives its maker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from testbed import Lan, collect_garbage
from testbed.process import ProcessId, run, wait_until
from testbed.registry import records

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(os.geteuid() != 0, reason="test machines need root"),
]

REPOSITORY = Path(__file__).parents[2]

CHILD = """
import os, sys, time
from pathlib import Path
from testbed import Lan
with Lan.create("child") as lan:
    machine = lan.machine("machine")
    lan.client().run(["true"])
    machine.ssh("true")
    print(lan._record.index, lan._record.state, flush=True)
    {last}
"""


def start(program: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def announced(child: subprocess.Popen[str]) -> tuple[int, str]:
    """Index and state directory of the LAN that the child has made."""
    assert child.stdout and child.stderr
    line = child.stdout.readline() or pytest.fail(child.stderr.read())
    index, state = line.split()
    return int(index), state


def traces(index: int, state: str) -> list[str]:
    """Everything on this controller that bears the mark of the LAN with this index."""
    mark = f"lh{index}"
    found = list(map(str, Path("/sys/class/net").glob(mark)))
    found += map(str, Path("/sys/class/net").glob(f"{mark}p*"))
    found += map(str, Path("/run/netns").glob(f"{mark}-*"))
    for program in ("iptables-save", "ip6tables-save"):
        found += [line for line in run([program]).stdout.splitlines() if f"LAN {mark}" in line]
    found += map(str, Path("/run/systemd/nspawn").glob(f"*/{mark}-*"))
    found += map(str, Path("/sys/fs/cgroup").glob(f"**/llmhost-lans-{mark}-*"))
    found += [str(path) for path in Path("/run/llmhost-lans").glob(str(index))]
    found += [record.name for record in records() if record.index == index]
    found += [state] if Path(state).exists() else []
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [line for line in mounts if state in line or f"/run/netns/{mark}-" in line]
    processes = run(["ps", "-eo", "pid,args"]).stdout.splitlines()
    found += [line for line in processes if state in line]
    return found + [line for line in processes if f"/run/llmhost-lans/{index}/" in line]


@pytest.mark.parametrize(
    ("last", "number"),
    [
        ("pass", None),
        ("raise RuntimeError", None),
        ("time.sleep(60)", signal.SIGINT),
        ("time.sleep(60)", signal.SIGTERM),
        ("machine.ssh('sleep 60')", signal.SIGTERM),
    ],
)
def test_nothing_is_left_however_the_owner_ends(last: str, number: signal.Signals | None) -> None:
    child = start(CHILD.format(last=last))
    lan = announced(child)
    if number:
        assert len(traces(*lan)) > 10, "there is something to leave behind"
        child.send_signal(number)
    child.communicate(timeout=30)
    assert traces(*lan) == []


def test_what_a_killed_owner_left_is_collected() -> None:
    child = start(CHILD.format(last="time.sleep(60)"))
    lan = announced(child)
    child.kill()
    child.communicate()
    assert len(traces(*lan)) > 10
    assert "child" in collect_garbage()
    assert traces(*lan) == []


def test_detached_lan_outlives_its_maker(tmp_path: Path) -> None:
    state = tmp_path / "lan"
    maker = start(f"""
        from pathlib import Path
        from testbed import Lan
        lan = Lan.create("detached", state=Path({str(state)!r}), detached=True)
        lan.machine("machine").ssh("touch /root/kept")
        lan.client("client")
    """)
    assert maker.wait(120) == 0, maker.stderr
    collect_garbage()
    lan = Lan.open(state)
    index = lan._record.index
    try:
        assert lan.machines["machine"].is_running
        assert lan.machines["machine"].ssh("ls /root").stdout == "kept\n"
        address = lan.machines["machine"].address
        lan.clients["client"].run(["ssh-keyscan", "-T", "5", address])
        reboot_controller(lan)
        again = Lan.open(state)
        assert not again.machines["machine"].is_running
        again.machines["machine"].start()
        assert again.machines["machine"].ssh("ls /root").stdout == "kept\n"
    finally:
        Lan.open(state).destroy()
    assert traces(index, str(state)) == []


def reboot_controller(lan: Lan) -> None:
    """Leave of a LAN what a reboot of the controller would: its disks, and its record."""
    record = lan._record
    for name, host in record.hosts.items():
        if process := host.process:
            lan.machines[name].kill()
            host.process = ProcessId(process.pid, process.started, "another boot")
        for command in record.network.unplug(host.number):
            run(command, check=False)
    record.save()
    record.network.down()


def test_lans_of_several_owners_do_not_collide() -> None:
    program = """
        from testbed import Lan
        with Lan.create("several") as lan:
            print(lan.subnet, flush=True)
            input()
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    subnets = [child.stdout.readline() for child in children if child.stdout]
    for child in children:
        child.communicate("\n", timeout=30)
    assert len(set(subnets)) == 4
    assert all(child.returncode == 0 for child in children)


def test_interrupted_build_leaves_no_half_root_file_system(tmp_path: Path) -> None:
    program = "from testbed.rootfs import root_file_system as r; r('trixie')"
    child = start(program, LLMHOST_CACHE=str(tmp_path))
    assert wait_until(lambda: any(tmp_path.glob("rootfs-*.draft/var/lib/dpkg/info/*")), 60)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".draft"]
    processes = run(["ps", "-eo", "args"]).stdout
    assert str(tmp_path) not in processes
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
