"""What deploy.py declares for a host of each role."""

from itertools import groupby
from pathlib import Path
from typing import Any

import pyinfra
import pytest
from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

from llmhost.gateway.keys import digest
from llmhost.operations.run_state import run_of
from llmhost.resources import DEPLOY

KEY = "llmhost-" + "5" * 64
CLIENT = {"name": "test", "sha256": digest(KEY)}
IMAGE = "registry.example/llama:1@sha256:" + "0" * 64
MODEL = {
    "name": "tiny",
    "source": "https://models.example/tiny.gguf",
    "sha256": "cd" * 32,
    "context_tokens": 512,
}
HOSTS: dict[str, dict[str, Any]] = {
    "llm": {
        "ssh_hostname": "192.0.2.10",
        "services": ["llamacpp"],
        "llamacpp_image": IMAGE,
        "models": [MODEL],
        "api_clients": [CLIENT],
    },
    "door": {
        "ssh_hostname": "192.0.2.11",
        "gateway_upstreams": [{"name": "llm", "address": "192.0.2.10"}],
        "gateway_upstream_services": ["llamacpp"],
        "gateway_upstream_key": "env:LLMHOST_TEST_KEY",
        "gateway_upstream_name": "llm",
        "gateway_names": ["llm-server"],
        "api_clients": [CLIENT],
    },
    "app": {"app_server_api_key": "env:LLMHOST_TEST_KEY", "app_server_firewall": True},
}


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> State:
    """Evaluated as by `pyinfra -y`, which asks no host anything before it executes."""
    monkeypatch.setenv("LLMHOST_TEST_KEY", KEY)
    monkeypatch.setattr(pyinfra, "is_cli", True)
    servers = [(name, HOSTS[name]) for name in ("llm", "door")]
    inventory = Inventory(  # type: ignore[no-untyped-call]
        ([*servers, ("app", HOSTS["app"])], {}),
        llm_servers=(["llm"], {}),
        gateways=(["door"], {}),
        app_servers=(["app"], {}),
    )
    state, config = State(check_for_changes=False), Config()  # type: ignore[no-untyped-call]
    state.cwd = str(Path.cwd())
    run_of(state).summary = False  # this process does not end with it
    with ctx_state.use(state), ctx_config.use(config), ctx_inventory.use(inventory):
        state.init(inventory, config)
        config.lock_current_state()
        state.set_stage(StateStage.Prepare)
        code = compile(DEPLOY.read_text(), str(DEPLOY), "exec")
        for host in inventory:
            # Not by pyinfra_cli, whose import patches sockets and threads of this whole process.
            with ctx_host.use(host):
                exec(code, {"__name__": "deploy"})
    return state


def components(state: State, host: Host) -> list[str]:
    """Labels of a host's operations, in order; an operation of two names counts as two."""
    names = [" and ".join(state.get_op_meta(each).names) for each in host.op_hash_order]
    return [label for label, _ in groupby(name.partition(" | ")[0] for name in names)]


def test_each_role_has_its_components_in_order(state: State) -> None:
    found = {host.name: components(state, host) for host in state.inventory}
    assert found == {
        "llm": [
            *("Lock", "Preflight", "System", "Network", "Egress", "Docker", "Firewall", "Gateway"),
            *("NVIDIA driver", "Container toolkit", "Stack", "Healing", "Backup", "Receipt"),
        ],
        "door": ["Lock", "Preflight", "System", "Network", "Firewall", "Gateway", "Receipt"],
        "app": ["Lock", "Preflight", "Network", "Firewall", "Application server"],
    }


def test_operations_of_different_tasks_are_never_one(state: State) -> None:
    shared = {
        operation: names
        for host in state.inventory
        for operation in host.op_hash_order
        if len(names := state.get_op_meta(operation).names) > 1
    }
    assert not shared


def test_operations_of_all_hosts_can_be_put_in_order(state: State) -> None:
    order = state.get_op_order()  # type: ignore[no-untyped-call]
    for host in state.inventory:
        assert [each for each in order if each in host.op_hash_order] == host.op_hash_order
