"""Duration of a run by number of hosts: machines on one LAN, each the gateway of a server.

They share this machine with the controller. That is the worst case: separate hosts would work in
parallel.
"""

import os
import statistics
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.provision.tools import program, timed
from testbed import Lan
from testbed.fleet import Fleet, Run, fleet


def seconds_of(site: Fleet, command: str, hosts: int) -> float:
    """Seconds of a command of llmhost for this number of hosts; it must succeed."""
    limits = (f"--limit={name}" for name in site.names[:hosts])
    return timed([program("llmhost"), command, str(site.inventory), *limits])[0]


def no_op(site: Fleet, hosts: int) -> Run:
    """A run that must succeed and change nothing."""
    run = site.deploy("--json", hosts=site.names[:hosts])
    if run.status:
        sys.exit(f"error: the rerun of {hosts} hosts failed:\n{run.said}")
    if run.changed:
        sys.exit(f"error: the rerun must change nothing, and changed {run.changed}")
    return run


def main(
    hosts: Annotated[int, typer.Option(help="Machines to make", min=1)] = 16,
    rounds: Annotated[int, typer.Option(help="Runs of each size; the median counts")] = 3,
    place: Annotated[Path, typer.Option(help="Directory of the LAN")] = Path(".scale"),
    keep: Annotated[bool, typer.Option(help="Keep the machines for another run")] = False,
) -> None:
    """Print seconds and memory of a first deploy and of reruns that change nothing."""
    place = place.resolve()
    place.mkdir(exist_ok=True, mode=0o700)
    state = place / "lan"
    lan = Lan.open(state) if state.exists() else Lan.create("scale", state=state, detached=True)
    try:
        with fleet(place, lan, hosts) as site:
            first = site.deploy()
            if first.status:
                sys.exit(f"error: the first run failed:\n{first.said}")
            sizes = sorted({1, max(1, hosts // 4), hosts})
            runs = {size: [no_op(site, size) for _ in range(rounds)] for size in sizes}
            others = {
                size: {
                    name: statistics.median(seconds_of(site, name, size) for _ in range(rounds))
                    for name in ("plan", "verify")
                }
                for size in sizes
            }
        _print(first, hosts, runs, others)
    finally:
        if not keep:
            lan.destroy()


def _print(
    first: Run,
    hosts: int,
    runs: dict[int, list[Run]],
    others: dict[int, dict[str, float]],
) -> None:
    title = f"Nothing to do, gateway hosts, {os.cpu_count()} processors for all"
    table = Table(title=title)
    columns = ("hosts", "rerun", "times one host", "seconds a host", "controller's peak")
    for column in (*columns, "plan", "verify"):
        table.add_column(column, justify="right")
    seconds = {size: statistics.median(run.seconds for run in of) for size, of in runs.items()}
    for size, of in runs.items():
        peak = max(run.peak_mib for run in of)
        ratio = seconds[size] / seconds[min(seconds)]
        each = seconds[size] / size
        table.add_row(
            *(str(size), f"{seconds[size]:.2f}", f"{ratio:.2f}", f"{each:.2f}", f"{peak:.0f} MiB"),
            *(f"{value:.2f}" for value in others[size].values()),
        )
    Console().print(table)
    print(f"The run before, of {hosts} hosts: {first.seconds:.1f} s, {first.peak_mib:.0f} MiB")


if __name__ == "__main__":
    typer.run(main)
