"""A plan reads the facts of a host together, and reports the same as if it read them one by one.

In processes of their own: pyinfra patches threads.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("own_machine")

_DEPLOY = """
from pyinfra import host
from pyinfra.api import FactBase
from llmhost.operations import files
from llmhost.operations.changes import explain
from llmhost.operations.declaration import declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.system.files import File

def count():
    before = host.connector.run_shell_command
    def counted(*args, **kwargs):
        with open("{place}/commands", "a") as log:
            print(host.name, file=log)
        return before(*args, **kwargs)
    host.connector.run_shell_command = counted

class Broken(FactBase):
    def command(self):
        return "{broken}"
    def process(self, output):
        raise ValueError(output[0])

@declared(prefetch=lambda: [ask(Broken)])
def broken():
    get_fact(Broken)
    yield from ()

count()
for number, name in host.loop(enumerate(["a", "b", "c", "a"])):
    files.present(
        File(f"{place}/{{name}}", "content", owner="{owner}", group="{group}"),
        name=f"{{number}} {{name}}",
    )
if "{broken}":
    broken(name="Broken")
"""

_PLAN = """
import json, sys
from gevent import monkey
monkey.patch_all()
from pathlib import Path
import typer
from llmhost.cli import plan, session
if sys.argv[3] == "alone":
    from llmhost.operations.fact_prefetch import Prefetch
    Prefetch.read = lambda self, host: ""
session.DEPLOY = Path(sys.argv[2])
try:
    with session.dry_run(sys.argv[1], []) as (state, messages):
        plans = [plan.host_plan(state, host, messages) for host in plan._limited(state)]
except typer.Exit as error:
    sys.exit(error.exit_code)
print(json.dumps([[p.host, p.status, [[s.operation, s.reasons] for s in p.steps], p.errors]
                  for p in plans]))
"""


def planned(place: Path, how: str, *hosts: str, broken: str = "") -> tuple[Any, int, str]:
    """What a plan reports, the number of its commands, and its error output."""
    owner = {"owner": place.owner(), "group": place.group()}
    (place / "deploy.py").write_text(_DEPLOY.format(place=place, broken=broken, **owner))
    clients = [{"name": "app", "sha256": "ab" * 32}]
    data = {"services": ["chroma"], "gateway_tls": "off", "api_clients": clients}
    (place / "site.py").write_text(f"hosts = ({[*hosts]!r}, {data!r})\n")
    (place / "commands").write_text("")
    command = [sys.executable, "-c", _PLAN, str(place / "site.py"), str(place / "deploy.py"), how]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ran.stderr, ran.stderr
    found = json.loads(ran.stdout) if ran.returncode == 0 else None
    return found, len((place / "commands").read_text().split()), ran.stderr


def test_facts_of_a_plan_are_read_in_one_command(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("drifted")
    [(host, status, steps, errors)], commands, _ = planned(tmp_path, "together", "@local")
    assert (host, status, errors, commands) == ("@local", "drift", [], 1)
    # Nothing is changed: the second operation on the same file finds the same.
    assert [operation for operation, _ in steps] == ["0 a", "1 b", "2 c", "3 a"]
    assert steps[0][1] == steps[3][1] != steps[1][1]


@pytest.mark.parametrize("broken", ["", "echo no >&2; exit 3"])
def test_a_plan_reports_the_same_as_with_facts_read_one_by_one(tmp_path: Path, broken: str) -> None:
    (tmp_path / "c").write_text("drifted")
    together, few, errors = planned(tmp_path, "together", "@local", broken=broken)
    alone, many, errors_alone = planned(tmp_path, "alone", "@local", broken=broken)
    assert together == alone and errors == errors_alone
    assert (few, many) == ((2, 5) if broken else (1, 4))
    assert together[0][1] == ("failed" if broken else "drift")


def test_an_operation_with_an_error_of_its_own_ends_the_plan_with_a_sentence(
    tmp_path: Path,
) -> None:
    found, _, errors = planned(tmp_path, "together", "@local", broken="echo nonsense")
    assert found is None
    assert "error: deploy.py failed: ValueError: nonsense\n" in errors
