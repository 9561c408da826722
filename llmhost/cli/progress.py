"""Progress on a terminal, and nowhere else: which host, which component, how long."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from pyinfra.api import Host, State
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from llmhost.operations.run_state import host_run, title
from llmhost.verify.report import Check, Extent, LeftOut, Record, Started, parse

_ROWS = 16
"""Most hosts to show at once."""


@contextmanager
def comparing(state: State) -> Iterator[None]:
    """In this context, a terminal shows how far pyinfra is with each host."""
    console = Console(stderr=True)  # standard output is for the plan, which may be JSON
    if not console.is_terminal:
        yield
        return
    begun = time.monotonic()

    def shown() -> Table:
        return comparison(state, time.monotonic() - begun)

    with Live(get_renderable=shown, console=console, refresh_per_second=5, transient=True):
        yield


def comparison(state: State, seconds: float) -> Table:
    """A row for each host: the component that is compared, the number of operations, the time."""
    hosts = sorted(filter(state.is_host_in_limit, state.inventory), key=lambda host: host.name)
    table = Table.grid(padding=(0, 2))
    for host in hosts[:_ROWS]:
        compared = host_run(host).compared
        count = f"{compared} of {len(host.op_hash_order)} compared" if compared else ""
        table.add_row(escape(host.name), escape(_stage(state, host)), count, f"{seconds:.0f} s")
    if len(hosts) > _ROWS:
        table.add_row(f"and {len(hosts) - _ROWS} more")
    return table


def _stage(state: State, host: Host) -> str:
    if host in state.failed_hosts:
        return "failed"
    if not (operation := host_run(host).comparing):
        return "reading facts" if host.connected else "connecting"
    return title(state, operation).partition(" | ")[0]


def run_checks(command: Sequence[str], records: Path) -> int:
    """Run the server tests and return their exit status.

    A terminal shows the current check, and pytest's output when it is done.
    """
    console = Console()
    # Other plugins and PYTEST_ADDOPTS would change what is checked and printed.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if not console.is_terminal or INTERACTIVE & set(command):
        return subprocess.run(command, env=environment, check=False).returncode
    environment["COLUMNS"] = str(console.width)
    with TemporaryFile() as output:
        process = subprocess.Popen(
            [*command, "--color=yes"], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _follow(lambda: process.poll() is None, records, console)
        finally:
            process.wait()
            output.seek(0)
            sys.stdout.write(output.read().decode(errors="replace"))
    return process.returncode


INTERACTIVE = {"-s", "--capture=no", "--pdb", "--trace"}
"""pytest options that need the terminal for themselves."""


def _follow(running: Callable[[], bool], records: Path, console: Console) -> None:
    columns = (
        *(SpinnerColumn(), TextColumn("[bold]{task.fields[host]}")),
        *(TextColumn("{task.fields[component]}"), BarColumn(24), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("[red]{task.fields[failed]}")),
        TextColumn("[dim]{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        shown = _Shown(progress)
        with records.open(encoding="utf-8") as lines:
            pending = ""
            while running():
                pending += lines.read()
                *whole, pending = pending.split("\n")
                for each in whole:
                    shown.take(parse(each))
                time.sleep(0.1)


class _Shown:
    """The progress line, updated from records."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._failed = progress, 0
        self._all, self._left_out = 0, 0
        self._task = progress.add_task("", total=None, host="", component="", failed="")

    def take(self, record: Record) -> None:
        update = self._progress.update
        if isinstance(record, Extent | LeftOut):
            self._left_out += isinstance(record, LeftOut)
            self._all = record.checks if isinstance(record, Extent) else self._all
            update(self._task, total=self._all - self._left_out)
        elif isinstance(record, Started):
            host, component = escape(record.host), escape(record.component)
            sentence = escape(record.sentence)
            update(self._task, description=sentence, host=host, component=component)
        elif isinstance(record, Check):
            self._failed += record.outcome == "failed"
            update(self._task, advance=1, failed=f"{self._failed} failed" if self._failed else "")
