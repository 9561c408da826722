"""What llmhost/operations/pyinfra_patches.py replaces in pyinfra gives the same results as before.

In a process of its own: the replacements stay, and pyinfra's command line patches threads.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Runs a deploy without a host, in which operations lie at several depths and in a loop; prints the
# places that pyinfra gives them, the arguments they get, and what the host's data is.
_PROGRAM = """
import json, sys
from gevent import monkey
monkey.patch_all()
import pyinfra
if "quick" in sys.argv:
    from llmhost.operations import pyinfra_patches
from pyinfra import host
from pyinfra.api import Config, Inventory, State
from pyinfra.api.arguments import all_global_arguments
from pyinfra.api.connect import connect_all
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_inventory, ctx_state
from pyinfra_cli.util import load_deploy_file

pyinfra.is_cli = True
inventory = Inventory(
    ([("@local", {"a": 1, "_env": {"K": "host"}})], {"d": 4, "_timeout": 7}),
    groups=(["@local"], {"a": 2, "b": 3}),
    override_data={"c": "told"},
)
state, config = State(check_for_changes=False), Config()
with ctx_state.use(state), ctx_config.use(config), ctx_inventory.use(inventory):
    state.init(inventory, config)
    state.set_stage(StateStage.Connect)
    connect_all(state)
    state.set_stage(StateStage.Prepare)
    [each] = inventory
    if "quick" in sys.argv:
        pyinfra_patches.settle(each)
        pyinfra_patches.settle(each)
    load_deploy_file(state, sys.argv[1])
    found = {
        "order": [[key, list(state.op_meta[key].op_order)] for key in state.get_op_order()],
        "arguments": [str(sorted(state.ops[each][key].global_arguments.items(), key=str))
                      for key in each.op_hash_order],
        "data": each.data.dict(),
        "missing": each.data.get("nothing", "default"),
        "types": str(all_global_arguments()),
    }
print(json.dumps(found))
"""

_DEPLOY = """
from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import server

@deploy("Component", data_defaults={"of_the_deploy": "default"})
def component(commands):
    for command in host.loop(commands):
        server.shell(name="Loop", commands=command, _sudo=host.data.get("sudo", False))
    assert host.data.of_the_deploy == "default"

server.shell(name="First", commands="true")
host.data.sudo = True
component(["one", "two"])
for each in range(2): server.shell(name="Same place", commands="true")
"""


def _deployed(place: Path, *options: str) -> dict[str, object]:
    deploy = place / "deploy.py"
    deploy.write_text(_DEPLOY)
    command = [sys.executable, "-c", _PROGRAM, str(deploy), *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_operations_have_the_same_places_and_arguments(tmp_path: Path) -> None:
    before, after = _deployed(tmp_path), _deployed(tmp_path, "quick")
    assert before == after
    order = before["order"]
    assert isinstance(order, list) and len({key for key, _ in order}) == 5
    own, known = {"_env": {"K": "host"}, "_timeout": 7}, {"a": 1, "b": 3, "c": "told", "d": 4}
    assert before["data"] == {**own, **known, "sudo": True}
