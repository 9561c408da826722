"""The facts that operations declare are those that they read: all operations, in real deploys.

In a process of its own: pyinfra's command line patches threads.
"""

import json
import os
import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

from llmhost.checks.catalogue import entries
from llmhost.checks.corrections import CORRECTED_BY, NOT_CORRECTED, correction
from llmhost.checks.test_system import UNITS

ROOT = Path(__file__).parents[2]

# Hosts of every role, none of them real. deploy.py declares their operations; then each body is run
# until it has asked what it declares. Only this machine's identity and its clock are real; the
# clock is not declared.
_PROGRAM = """
import json, os, subprocess, sys, time
from gevent import monkey
monkey.patch_all()
from importlib import import_module
from dataclasses import asdict, is_dataclass
from inspect import getclosurevars
from pathlib import Path
from pkgutil import iter_modules
import pyinfra
from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.operation import add_op
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra_cli.util import load_deploy_file
import llmhost.operations
from llmhost.docker.packages import docker_repository
from llmhost.gateway.authority import open_authority
from llmhost.gateway.keys import digest
from llmhost.history.rollback import places_of
from llmhost.operations import apt, lock, nginx, rollback, services
from llmhost.operations.fact_prefetch import Question
from llmhost.operations.run_state import host_run, title
from llmhost.operations.inventory import site_host
from llmhost.gateway import tree
from llmhost.stack.project import compose_project
from llmhost.facts.system import HostIdentityFact, HostTime
from llmhost.resources import DEPLOY, FILES
from llmhost.system.host_identity import parse_identity

place = Path(sys.argv[1])
open_authority(place / "ca", create=True)
CLIENTS = [{"name": "app", "sha256": digest(os.environ["SITE_KEY"])}]
MODEL = {"name": "m", "source": "https://x.example/m.gguf", "sha256": "1" * 64}
EVERY = {"fake_delay": 0, "fake_delay_jitter": 0}
LLM = {"api_clients": CLIENTS, "gateway_ca_directory": str(place / "ca"), "gateway_tls": "ca"}
NETWORK = {"network_hostname": "own", "network_addresses": ["192.0.2.9/24"],
           "network_dns": ["192.0.2.1"], "network_gateways": ["192.0.2.1"]}
GATEWAY = {**LLM, "gateway_upstreams": [{"name": "llm-1", "address": "192.0.2.10"}],
           "gateway_upstream_services": ["llamacpp"], "gateway_upstream_key": "env:SITE_KEY",
           "gateway_upstream_name": "servers.example",
           "gateway_names": ["llm.example"],
           "gateway_metrics_port": 9145,
           "monitoring_enabled": True, "monitoring_server": True,
           "monitoring_key": "env:MONITORING_KEY"}
GPU = {**LLM, "services": ["llamacpp"], "models": [MODEL], "llamacpp_gpu": 1}
APP = {"app_server_api_key": "env:SITE_KEY", "app_server_llm_name": "llm.example",
       "app_server_llm_address": "192.0.2.1",
       "gateway_ca_directory": str(place / "ca")}
hosts = {
    "llm_servers": [("@fake/gpu", {**GPU, "ssh_hostname": "192.0.2.10"}),
                    ("@fake/cpu", {**LLM, **NETWORK, "services": ["chroma"],
                                   "backup_repository": "/srv/backup",
                                   "backup_schedule": "daily",
                                   "backup_password": "env:MONITORING_KEY",
                                   "healing_enabled": False,
                                   "monitoring_enabled": False})],
    "gateways": [("@fake/gate", GATEWAY)],
    "app_servers": [("@fake/app", APP)],
}
everyone = [host for group in hosts.values() for host in group]
inventory = Inventory((everyone, {}), **{name: ([n for n, _ in group], {})
                                         for name, group in hosts.items()})
state, config = State(check_for_changes=False), Config()
pyinfra.is_cli = True
state.cwd = os.getcwd()


class AskedAll(BaseException):
    pass


IDENTITY = parse_identity(subprocess.run(
    ["sh", str(FILES / "system/identity.sh"), "/nonexistent", "/"], capture_output=True, text=True
).stdout.splitlines())
declared, asked = [], []


def get_fact(host, fact, **arguments):
    if fact is HostTime:
        return time.time()
    asked.append(shown(Question(fact, arguments)))
    if asked[-1] not in declared or len(asked) == len(declared):
        raise AskedAll
    return IDENTITY if fact is HostIdentityFact else fact().default()


def shown(question):
    return [question.fact.__name__, str(sorted(plain(question.arguments).items()))]


def plain(value):
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [*map(plain, value)] if isinstance(value, list) else value


def ask_all(host, operation):
    with ctx_host.use(host):
        try:
            next(state.ops[host][operation].command_generator(), None)
        except AskedAll:
            pass


with ctx_state.use(state), ctx_config.use(config), ctx_inventory.use(inventory):
    state.init(inventory, config)
    state.set_stage(StateStage.Connect)
    connect_all(state)
    state.set_stage(StateStage.Prepare)
    load_deploy_file(state, str(DEPLOY))
    pyinfra.is_cli = False
    [gate] = [host for host in inventory if host.name == "@fake/gate"]
    settings = site_host(gate).settings
    places = tree.NginxPaths()
    add_op(state, nginx.drain, ("llm-1",), *tree.configuration(settings, places), host=gate,
           name="Drain", undo=False, directory=places.own,
           status_port=settings.gateway.status_port, tls=tree.tls(settings),
           pool=tree.pool(settings))
    kept = {"places": places_of(settings), "uploads": "/uploads"}
    add_op(state, rollback.returned, 1, host=gate, name="Return", **kept)
    add_op(state, rollback.pruned, [], host=gate, name="Prune", **kept)
    project = compose_project(settings)
    for operation in (services.stopped, services.started, services.restarted):
        add_op(state, operation, project, "redis", host=gate, name="Change a service")
    source = docker_repository("https://x.example", "A" * 40, None, "debian", "trixie")
    add_op(state, apt.repository, source, host=gate, name="Repository")
    state.set_stage(StateStage.Execute)
    state.is_executing = True
    lock._acquire = lambda host, directory: []
    Host.get_fact = get_fact
    found = []
    for host in inventory:
        questions = host_run(host).prefetch.questions
        for operation in host.op_hash_order:
            body = getclosurevars(state.ops[host][operation].command_generator).nonlocals["func"]
            name = f"{body.__module__.rpartition('.')[2]}.{body.__name__}"
            declared, asked = [shown(question) for question in questions[operation]], []
            ask_all(host, operation)
            found.append([host.name, title(state, operation), name, declared, asked])

modules = [import_module(f"llmhost.operations.{each.name}")
           for each in iter_modules(llmhost.operations.__path__)]
operations = sorted({
    f"{module.__name__.rpartition('.')[2]}.{name}"
    for module in modules for name, value in vars(module).items()
    if hasattr(value, "_inner") and value.__module__ == module.__name__
})
print(json.dumps([found, operations]))
"""

_NO_FACTS = {"lock.locked"}

Found = tuple[list[list[Any]], list[str]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Of each operation of each host: names, what it declares and asks; and all operations."""
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path_factory.mktemp("site"))]
    environment = os.environ | {"SITE_KEY": "llmhost-" + "a" * 64, "MONITORING_KEY": "m" * 40}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    asked, operations = json.loads(ran.stdout.splitlines()[-1])
    return asked, operations


def test_operations_ask_what_they_declare(found: Found) -> None:
    operations, _ = found
    for host, title, operation, declared, asked in operations:
        assert declared == asked, (host, title)
        assert declared or operation in _NO_FACTS, (host, title)
    several = {(host, title) for host, title, _, declared, _ in operations if len(declared) > 1}
    assert {host for host, _ in several} == {"@fake/gpu", "@fake/cpu", "@fake/gate"}


def test_every_operation_is_among_them(found: Found) -> None:
    asked, operations = found
    assert sorted({operation for _, _, operation, _, _ in asked}) == operations
    assert len(operations) > 20


def test_every_check_has_an_operation_that_corrects_it_or_a_reason(found: Found) -> None:
    """What `verify` checks and a deploy could correct, `plan` finds."""
    asked, _ = found
    titles = ((title.partition(" | ")[0], operation) for _, title, operation, _, _ in asked)
    operations = {f"{component}: {operation}" for component, operation in titles}
    checks = {each.id for each in entries()}
    assert {correction(check) for check in checks if check not in NOT_CORRECTED} <= operations
    rows = [*NOT_CORRECTED, *(check for row in CORRECTED_BY.values() for check in row)]
    assert set(rows) <= checks and len(set(rows)) == len(rows)


def test_overrides_are_compared_of_every_unit_whose_state_is(found: Found) -> None:
    """What a unit runs is decided by its overrides; `verify` looks at all but sshd's, which a
    deploy only reports."""
    asked, _ = found
    facts = [
        (name, dict(literal_eval(text))) for _, _, _, facts, _ in asked for name, text in facts
    ]
    states = [state for name, each in facts if name == "Units" for state in each["questions"]]
    units = {unit for each in states for unit in (each["unit"], *each["others"])}
    units |= {unit for name, each in facts if name == "EnabledUnits" for unit in each["units"]}
    named = {unit if "." in unit else f"{unit}.service" for unit in units}
    compared = {unit for name, each in facts if name == "UnitOverrides" for unit in each["units"]}
    assert {"docker.service", "llmhost-heal.timer"} <= named <= compared
    sshd, cis = {"ssh.service", "ssh.socket"}, {"auditd.service"}
    assert {*UNITS} == compared - sshd | cis
