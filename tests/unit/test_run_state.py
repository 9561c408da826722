"""Two runs in one process know nothing of each other, and neither do the hosts of one run.

In a process of its own: pyinfra's connectors patch threads.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# The same 64 hosts in two States, none of them real. In the first everything differs from what is
# declared, and each second host is refused; in the second nothing differs.
_PROGRAM = """
import json
from gevent import monkey
monkey.patch_all()
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from llmhost.operations import hostname, inventory, sysctl
from llmhost.operations.changes import reasons
from llmhost.operations.run_state import host_run
from llmhost.operations.summary import _failure, summarise

NAMES = [f"@fake/host-{number}" for number in range(64)]
SITE = {"gateway_tls": "off", "api_clients": [{"name": "app", "sha256": "ab" * 32}]}


def state(service):
    made = State(Inventory((NAMES, {**SITE, "services": [service]})), Config())
    made.set_stage(StateStage.Connect)
    connect_all(made)
    made.set_stage(StateStage.Prepare)
    summarise(made)
    for host in made.inventory:
        # This kernel has one parameter.
        known = ["container none", "kernel.x|w|/x", "values", "/x:1", "file"]
        host.connector.data = {
            "fake_delay": 0, "fake_delay_jitter": 0,
            "fake_responses": {"systemd-detect-virt": known},
        }
    return made


def add(state, refused):
    for host in state.inventory:
        own = host.name.rpartition("-")[2]
        wanted = {"no.such": own} if refused and int(own) % 2 else {"kernel.x": "1"}
        add_op(state, hostname.present, f"name-{own}", host=host, name="Name")
        add_op(state, sysctl.parameters, wanted, path=f"/{own}", host=host, name="Parameters")


def known(state):
    found = {}
    for host in state.inventory:
        of_each = [reasons(host, operation) for operation in host.op_hash_order]
        asked = host_run(host).prefetch.questions.values()
        found[host.name] = {
            "services": sorted(inventory.site_host(host).settings.services),
            "changes": [sentence for one in of_each for sentence in one.changes],
            "refusals": [sentence for one in of_each for sentence in one.refusals],
            "failure": [*_failure(state, host).why] if host in state.failed_hosts else [],
            "asked": [each.arguments.get("path") for questions in asked for each in questions],
        }
    return found


first, second = state("chroma"), state("qdrant")
before = known(second)
add(first, refused=True)
run_ops(first)
between = known(second)
add(second, refused=False)
run_ops(second)
print(json.dumps([known(first), before, between, known(second)]))
"""


def record(number: int, service: str, *, refused: bool) -> dict[str, Any]:
    """What a run must know of a host: its own settings, reasons and facts."""
    strange = (
        ["this kernel has no parameter no.such: remove it from system_sysctl"] if refused else []
    )
    return {
        "services": [service],
        "changes": [
            f"the hostname at boot is empty, but name-{number} is declared",
            f"the hostname now is empty, but name-{number} is declared",
            *([] if refused else [f"/{number} is missing"]),
        ],
        "refusals": strange,
        "failure": strange,
        "asked": [None, f"/{number}"],
    }


def test_nothing_leaks_from_one_run_or_host_to_another() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    first, before, between, second = json.loads(ran.stdout.splitlines()[-1])
    for number in range(64):
        name = f"@fake/host-{number}"
        assert first[name] == record(number, "chroma", refused=number % 2 == 1)
        assert second[name] == record(number, "qdrant", refused=False)
    assert before == between and len(before) == 64
    for known in before.values():
        assert known.pop("services") == ["qdrant"] and not any(known.values())
    assert ran.stderr.count("hosts failed:") == 1 and "32 of 64 hosts failed:" in ran.stderr
