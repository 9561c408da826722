"""Runs deploy code under the real pyinfra, over SSH, against a machine."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmhost.verify.report import Check, parse
from testbed import Machine

_DEPLOY = """\
import pickle
from pathlib import Path

from pyinfra import state

from llmhost.operations.summary import summarise

summarise(state)
pickle.loads(Path("function.pickle").read_bytes())()
"""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `changed` names the operations that changed something (or, in a dry run,
    would), `output` is everything that was said."""

    succeeded: bool
    changed: list[str]
    output: str


_LONGEST_SECONDS = 600
"""More than a deploy takes here, and less than pytest waits: it shows what the machine did."""


def deploy(
    machine: Machine,
    function: Callable[..., Any],
    *args: object,
    dry: bool = False,
    sudo: bool = False,
    login: Mapping[str, object] | None = None,
) -> Outcome:
    """Run `function(*args)`, which calls operations, as a deploy on one machine.

    The function has to be importable: one of a module, not of a test. With `sudo` the login is an
    ordinary user's; `login` is data of pyinfra for another one. Operations are recognised in
    `changed` by the name that they were given.
    """
    data: dict[str, object] = {"ssh_config_file": str(machine.ssh_config)}
    if sudo:
        data |= {"ssh_user": "operator", "_sudo": True}
    data |= login or {}
    with tempfile.TemporaryDirectory(prefix="llmhost-deploy-") as directory:
        place = Path(directory)
        (place / "deploy.py").write_text(_DEPLOY)
        (place / "function.pickle").write_bytes(pickle.dumps(partial(function, *args)))
        (place / "inventory.py").write_text(f"hosts = [({machine.name!r}, {data!r})]\n")
        return _pyinfra(place, machine, dry=dry)


def _pyinfra(place: Path, machine: Machine, *, dry: bool) -> Outcome:
    program = Path(sys.executable).with_name("pyinfra")
    with subprocess.Popen(
        [program, "inventory.py", "deploy.py", "--json", "--dry" if dry else "-y"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            printed, errors = run.communicate(timeout=_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            there = machine.ssh("ps -eo etimes,stat,args --forest", timeout=60).stdout
            run.kill()
            said = "".join(run.communicate())
            raise AssertionError(f"the deploy does not end:\n{said}\n{there}") from None
        except BaseException:
            run.kill()
            raise
    said = errors + printed
    # A mistake in a test must not look like the refusal that the test expects.
    assert "An exception occurred in" not in said, said
    if run.returncode:  # pyinfra prints no JSON then
        return Outcome(False, [], said)
    return Outcome(True, _changed(json.loads(printed), machine.name, dry=dry), said)


def _changed(report: dict[str, Any], machine: str, *, dry: bool) -> list[str]:
    if dry:
        gates = ("hosts_with_change", "hosts_with_conditional_change")
        return [op["name"] for op in report["plan"] if any(machine in op[gate] for gate in gates)]
    return [op["name"] for op in report["results"]["operations"] if machine in op["success"]]


def converge(machine: Machine, function: Callable[..., Any], *args: object) -> Outcome:
    """Deploy, and require what every one of our operations promises: it succeeds, and then
    neither a second run nor a dry run finds anything to do. Returns the first run's outcome."""
    first = deploy(machine, function, *args)
    assert first.succeeded, first.output
    again = deploy(machine, function, *args)
    assert again.succeeded and again.changed == [], again.output
    planned = deploy(machine, function, *args, dry=True)
    assert planned.succeeded and planned.changed == [], planned.output
    return first


def passed_components(records: Path) -> set[str]:
    """Components with a check that passed, from the records of the server tests."""
    found = map(parse, records.read_text().splitlines())
    return {
        each.component for each in found if isinstance(each, Check) and each.outcome == "passed"
    }
