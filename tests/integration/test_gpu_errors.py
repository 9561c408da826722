"""Xid errors are counted from the journal of the real journald.

A machine of the testbed has no kernel log of its own: a FIFO stands in for /dev/kmsg, and takes
records as the kernel writes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llmhost.resources import FILES
from testbed import Machine

pytestmark = pytest.mark.machines

DIRECTORY = "/run/llmhost-test-errors"
FELL_OFF = "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', GPU has fallen off the bus."
FAULT = "NVRM: Xid (PCI:0000:41:00): 31, pid=812, name=python3, Ch 00000008, MMU Fault"
# Reads twice, as the collector does; a record is written in between.
PROGRAM = f"""
import subprocess, sys
sys.path.insert(0, {DIRECTORY!r})
import collect

errors = collect.GpuErrors()
for record in sys.stdin:
    with open("/dev/kmsg", "w") as log:
        log.write(record)
    subprocess.run(["sleep", "0.5"])
    print(*[line for line in errors.lines() if line[0] != "#"], sep=", ")
"""


@contextmanager
def kernel_log(machine: Machine) -> Iterator[None]:
    machine.ssh(
        f"rm -f /dev/kmsg; mkfifo /dev/kmsg; mkdir -p {DIRECTORY};"
        " systemd-run -q --unit=holds-kmsg sh -c 'exec sleep 600 <>/dev/kmsg';"
        " systemctl restart systemd-journald"
    )
    try:
        yield
    finally:
        machine.ssh(
            f"systemctl stop holds-kmsg; rm -rf /dev/kmsg {DIRECTORY};"
            " systemctl restart systemd-journald"
        )


def test_errors_of_gpus_are_counted_once(machine: Machine) -> None:
    records = [
        f"4,100,1000000,-;{FELL_OFF}",
        "6,101,1000001,-;usb 1-1: new device",
        f"4,102,1000002,-;{FAULT}",
        f"4,103,1000003,-;{FAULT}",
    ]
    with kernel_log(machine):
        for name in ("monitoring/collect.py", "status/probe.py"):
            path = f"{DIRECTORY}/{name.partition('/')[2]}"
            machine.ssh(f"cat > {path}", input=(FILES / name).read_text())
        machine.ssh(f"cat > {DIRECTORY}/read.py", input=PROGRAM)
        said = machine.ssh(f"python3 -I {DIRECTORY}/read.py", input="\n".join(records) + "\n")
    first = 'llmhost_gpu_xid_total{pci="0000:01:00",xid="79"} 1'
    second = 'llmhost_gpu_xid_total{{pci="0000:41:00",xid="31"}} {}'
    assert said.stdout.splitlines() == [
        first,
        first,
        f"{first}, {second.format(1)}",
        f"{first}, {second.format(2)}",
    ]
