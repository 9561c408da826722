"""How long the commands take on the demo machine when there is nothing to do, and the limits.

Requires a running demo (script/demo). All commands run once per round, one after the other; the
results are medians. Exit status 1 if a limit is exceeded.
"""

import statistics
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.provision.__main__ import DEMO, plan, pyinfra, verify
from benchmarks.provision.tools import program, timed

PASS = "python -c pass"
LIMITS = {
    PASS: None,
    "llmhost --help": 0.3,
    "llmhost key new": 0.3,
    "llmhost key list INVENTORY": 0.6,
    "pyinfra INVENTORY deploy.py -y": 1.3,
    "llmhost plan": 1.7,
    "llmhost verify": 5.0,
    "script/demo": 10.0,
}
"""Seconds on the machine of docs/scale.md. The first two commands may also take 5 times
`python -c pass`."""
TIMES_PASS = 5


def main(rounds: Annotated[int, typer.Option(help="Runs of each; the median counts")] = 3) -> None:
    """Print the table of medians and limits."""
    if not (DEMO / "ssh_config").exists():
        sys.exit("error: there is no demo machine; start it with script/demo")
    runs = [one_round() for _ in range(rounds)]
    medians = {name: statistics.median(run[name] for run in runs) for name in LIMITS}
    table = Table("command", "seconds", "limit", "", title=f"Median of {rounds}")
    exceeded = False
    for name, limit in LIMITS.items():
        if limit is not None and limit < 0.5:
            limit = max(limit, TIMES_PASS * medians[PASS])
        over = limit is not None and medians[name] > limit
        exceeded |= over
        shown = "" if limit is None else f"{limit:.2f}"
        table.add_row(name, f"{medians[name]:.2f}", shown, "exceeded" if over else "")
    Console().print(table)
    sys.exit(int(exceeded))


def one_round() -> dict[str, float]:
    """Seconds of each command."""
    llmhost = program("llmhost")
    return {
        PASS: timed([sys.executable, "-c", "pass"])[0],
        "llmhost --help": timed([llmhost, "--help"])[0],
        "llmhost key new": timed([llmhost, "key", "new", "bench"])[0],
        "llmhost key list INVENTORY": timed([llmhost, "key", "list", "inventory/demo.py"])[0],
        "pyinfra INVENTORY deploy.py -y": pyinfra(),
        "llmhost plan": plan(),
        "llmhost verify": verify(),
        "script/demo": timed(["script/demo"])[0],
    }


if __name__ == "__main__":
    typer.run(main)
