"""First deploy of several servers: each downloads for itself, or the first one for all.

The second way is a deploy of one server, a bundle made on it, and a deploy of the others from that
bundle, for which they are cut off from everything but the controller, and the registry ends. All
machines share this computer with the controller. Requires root.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.provision.tools import Server, program, site_data, timed
from testbed import Lan, Machine
from testbed.image_registry import ImageRegistry

CUT = "ip route del default; ip -6 route flush default; : >/etc/resolv.conf; true"
_MIB = 1 << 20


def received(machine: Machine) -> float:
    """MiB that a machine has received from anywhere, since its start."""
    text = machine.ssh("cat /sys/class/net/[!l]*/statistics/rx_bytes | sort -n | tail -1").stdout
    return int(text) / _MIB


def deploy(inventory: Path) -> float:
    """Seconds of a deploy of all hosts of an inventory."""
    return timed([program("pyinfra"), str(inventory), "deploy.py", "-y"])[0]


def declare(place: Path, name: str, machines: Sequence[Machine], data: dict[str, Any]) -> Path:
    """An inventory file with these machines."""
    hosts = [(each.name, {"ssh_config_file": str(each.ssh_config)}) for each in machines]
    path = place / f"{name}.py"
    path.write_text(f"servers = ({hosts!r}, {data!r})\n")
    return path


def started(lan: Lan, prefix: str, count: int) -> list[Machine]:
    machines = [lan.machine(f"{prefix}-{number:02}") for number in range(1, count + 1)]
    for machine in machines:
        machine.start()
    return machines


def ended(machines: Sequence[Machine]) -> None:
    for machine in machines:
        machine.destroy()


def from_a_bundle(
    place: Path, machines: list[Machine], data: dict[str, Any], registry: ImageRegistry
) -> list[float]:
    """Seconds of the first server, of the bundle, and of the others."""
    first, others = machines[0], machines[1:]
    whole = declare(place, "whole", machines, data)
    seconds = [deploy(declare(place, "one", [first], data))]
    Server(first.name, first.ssh_config).ssh("apt-get -qq install -y gnupg >/dev/null")
    bundle, keys = place / "site.bundle", place / "keys"
    create = [program("llmhost"), "bundle", "create", str(whole), "-o", str(bundle)]
    create += ["--builder", first.name, "--key", str(keys)]
    seconds.append(timed(create)[0])
    registry.stop()
    for machine in others:
        machine.ssh(CUT)
    apply = [program("llmhost"), "bundle", "apply", str(bundle), str(whole)]
    apply += ["--key", str(keys / "bundle.pub")]
    apply += [word for each in others for word in ("--limit", each.name)]
    seconds.append(timed(apply)[0])
    return seconds


def main(
    hosts: Annotated[int, typer.Option(help="Servers to make of each kind", min=2)] = 4,
) -> None:
    """Print seconds, and MiB that the servers received which download; the controller's part of
    that is small, except for models."""
    with tempfile.TemporaryDirectory() as directory, Lan.create("bundle") as lan:
        place = Path(directory)
        with ImageRegistry(lan.gateway, place / "registry") as registry:
            data = site_data(place, registry)
            machines = started(lan, "alone", hosts)
            apart = [deploy(declare(place, "apart", machines, data))]
            fetched = sum(received(each) for each in machines)
            ended(machines)
            machines = started(lan, "bundle", hosts)
            together = from_a_bundle(place, machines, data, registry)
            fetched_once = received(machines[0])
            size = (place / "site.bundle").stat().st_size / _MIB
            ended(machines)
    table = Table(title=f"First deploy of {hosts} servers, {os.cpu_count()} processors for all")
    for column in ("", "seconds", "MiB downloaded"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("each downloads", f"{apart[0]:.0f}", f"{fetched:.0f}")
    table.add_row("one downloads for all", f"{sum(together):.0f}", f"{fetched_once:.0f}")
    Console().print(table)
    print(
        "The second way: first server {:.0f} s, bundle {:.0f} s, the others {:.0f} s".format(
            *together
        )
    )
    print(f"The bundle has {size:.0f} MiB; the controller sends to each host what that host lacks.")


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("error: run it as root: it starts machines")
    typer.run(main)
