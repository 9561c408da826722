"""What runs, compared with what is declared."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmhost.docker.compose import (
    ComposePlan,
    Container,
    Limits,
    Project,
    ProjectNetwork,
    ProjectState,
    StandIn,
    apply_script,
    interruptions,
    plan,
    updated,
)
from llmhost.docker.confinement import Confinement
from llmhost.docker.image import ImageState
from llmhost.facts.compose import ComposeProject
from llmhost.operations import compose as operation
from llmhost.resources import script
from llmhost.system.files import Absent, PathState

PROJECT = Project(
    name="llmhost",
    directory="/opt/llmhost",
    root="name: llmhost\n",
    services={"engine": "services: {}\n"},
    images={"engine": "llmhost/engine:1"},
    start_timeout_seconds=60,
)
NOTHING = replace(PROJECT, services={}, images={})
NETWORKS = {"llmhost_default": "n1"}
RUNNING = Container(
    "llmhost-engine-1", "engine", "c0", "sha256:1", "running", "healthy", networks=NETWORKS
)
LIMITED = replace(PROJECT, limits={"engine": Limits(memory=1 << 30)})


def _paths(project: Project = PROJECT) -> dict[str, PathState]:
    directories = (project.directory, f"{project.directory}/services")
    states = {path: PathState("directory", "root", "root", "0755", 0.0) for path in directories}
    files = {
        file.path: PathState("file", "root", "root", "0644", 0.0, file.sha256)
        for file in project.files
    }
    return states | files


CONVERGED = ProjectState(
    paths=_paths(),
    configs={"engine": "c0"},
    containers=(RUNNING,),
    images={"llmhost/engine:1": ImageState("sha256:1", "")},
    network=ProjectNetwork("n1", made_by_compose=True),
)


def _with(*containers: Container) -> ProjectState:
    return replace(CONVERGED, containers=containers)


def test_converged_project_needs_nothing() -> None:
    assert plan(PROJECT, CONVERGED).reasons == ()


def test_service_without_health_check_needs_only_to_run() -> None:
    assert plan(PROJECT, _with(replace(RUNNING, health=""))).reasons == ()


DIFFERENCES = {
    "service engine is not running": _with(),
    "service engine runs 2 times": _with(RUNNING, replace(RUNNING, name="llmhost-engine-2")),
    "service engine is exited": _with(replace(RUNNING, state="exited", health="")),
    "service engine is restarting": _with(replace(RUNNING, state="restarting")),
    "service engine is starting": _with(replace(RUNNING, health="starting")),
    "service engine is unhealthy": _with(replace(RUNNING, health="unhealthy")),
    "service engine runs with another configuration": _with(replace(RUNNING, config="c1")),
    "service engine runs an image other than llmhost/engine:1": _with(
        replace(RUNNING, image="sha256:2")
    ),
    "service engine can no longer open its GPUs, as happens after a reload of systemd: "
    "its container is recreated": _with(replace(RUNNING, cut_off=True)),
    "container llmhost-old-1 is not declared": _with(
        RUNNING, replace(RUNNING, name="llmhost-old-1", service="old")
    ),
    "container llmhost-engine-2 was not created by Compose": _with(
        RUNNING, replace(RUNNING, name="llmhost-engine-2", service="")
    ),
    "the container of engine is called mine, not llmhost-engine-1": _with(
        replace(RUNNING, name="mine")
    ),
    "service engine is not on the network llmhost_default": _with(
        replace(RUNNING, networks={"llmhost_default": "n0", "mine": "n1"})
    ),
    "service engine has a setting that was changed manually: a is on": replace(
        CONVERGED, settings={"llmhost-engine-1": ["a is on"]}
    ),
    "network llmhost_default was not created by Compose": replace(
        CONVERGED, network=ProjectNetwork("n1", made_by_compose=False)
    ),
    "the bridge of network llmhost_default is called br-0, not a generated one": replace(
        CONVERGED, network=ProjectNetwork("n1", made_by_compose=True, bridge="br-0")
    ),
    "/opt/llmhost/services/engine.yaml is missing": replace(
        CONVERGED,
        paths={path: state for path, state in _paths().items() if not path.endswith("engine.yaml")},
    ),
    "/opt/llmhost/services/old.yaml must not exist": replace(
        CONVERGED,
        paths=_paths() | {"/opt/llmhost/services/old.yaml": _paths()["/opt/llmhost/compose.yaml"]},
    ),
}


@pytest.mark.parametrize("reason", DIFFERENCES)
def test_difference_is_told(reason: str) -> None:
    assert plan(PROJECT, DIFFERENCES[reason]).reasons == (reason,)


STAND_IN = StandIn(8081, 8080, "/etc/nginx", "true", gpu_bytes={"GPU-1": 7})
REPLACEABLE = replace(PROJECT, stand_ins={"engine": STAND_IN})
CHANGED = replace(CONVERGED, configs={"engine": "c1"})


def test_changed_service_is_replaced_beside_the_running_one() -> None:
    todo = plan(REPLACEABLE, CHANGED)
    assert todo.beside == ("engine",)
    assert interruptions(REPLACEABLE, CHANGED, todo) == [
        "a second container answers for service engine until its new one is healthy,"
        " if there is memory for both"
    ]
    text = apply_script(REPLACEABLE, todo)
    assert text.index("docker/beside.sh ") < text.index("docker/up.sh ") and "GPU-1=7" in text
    assert "docker/beside.sh" not in apply_script(PROJECT, plan(PROJECT, CHANGED))


@pytest.mark.parametrize(
    "found",
    [
        _with(replace(RUNNING, health="unhealthy")),
        _with(replace(RUNNING, config="old", health="starting")),
        _with(replace(RUNNING, config="old", cut_off=True)),
        _with(RUNNING, replace(RUNNING, name="llmhost-engine-2", config="old")),
        _with(replace(RUNNING, config="old", state="exited", health="")),
        replace(CHANGED, network=ProjectNetwork("n1", made_by_compose=False)),
        replace(CHANGED, stopped={"engine": "stopped"}),
    ],
)
def test_service_that_does_not_answer_is_replaced_at_once(found: ProjectState) -> None:
    assert plan(REPLACEABLE, found).beside == ()


def test_reason_of_an_interruption_is_announced() -> None:
    project = replace(PROJECT, alone={"engine": "two containers cannot share its data"})
    (sentence,) = interruptions(project, CHANGED, plan(project, CHANGED))
    assert sentence.endswith("is healthy: two containers cannot share its data")


def test_second_container_of_an_interrupted_deploy_is_removed() -> None:
    left = Container("llmhost-engine-beside", "", "c0", "sha256:1", "running", "healthy")
    todo = plan(PROJECT, _with(RUNNING, left))
    assert todo.reasons == ("container llmhost-engine-beside was left by an interrupted deploy",)
    assert "docker rm --force llmhost-engine-beside" in apply_script(PROJECT, todo)


@pytest.mark.parametrize(
    ("found", "interrupted"),
    [
        (CONVERGED, False),
        (_with(), False),
        (_with(replace(RUNNING, state="exited", health="")), False),
        (_with(replace(RUNNING, config="c1")), True),
        (_with(replace(RUNNING, image="sha256:2")), True),
        (_with(replace(RUNNING, name="mine")), True),
        (replace(CONVERGED, paths=_paths(replace(PROJECT, services={"engine": "old"}))), True),
        (replace(CONVERGED, paths=_paths(replace(PROJECT, root="old"))), False),
    ],
)
def test_interruption_of_a_running_service_is_announced(
    found: ProjectState, interrupted: bool
) -> None:
    sentence = "service engine is interrupted until its new container is healthy"
    announced = interruptions(PROJECT, found, plan(PROJECT, found))
    assert announced == ([sentence] if interrupted else [])


UNREAD = replace(CONVERGED, failed={"llmhost-engine-1": "HTTP Error 401: Unauthorized"})


def test_settings_that_cannot_be_read_are_an_error_and_not_nothing_to_do() -> None:
    found = plan(PROJECT, UNREAD)
    assert found.reasons == ()
    assert found.unknown == (
        "the settings of service engine could not be read: HTTP Error 401: Unauthorized",
    )
    # A new container is read by the next run.
    assert plan(PROJECT, replace(UNREAD, configs={"engine": "c1"})).unknown == ()
    starting = replace(UNREAD, containers=(replace(RUNNING, health="starting"),))
    assert plan(PROJECT, starting).unknown == ()


def test_operation_fails_after_its_other_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(UNREAD, containers=(*UNREAD.containers, replace(RUNNING, name="x", service="")))
    monkeypatch.setattr(operation, "get_fact", lambda *_, **__: found)
    monkeypatch.setattr(operation, "explain", lambda _: None)
    monkeypatch.setattr(operation, "refuse", lambda sentences: f"refused: {sentences[0]}")
    applied, end = operation.project._inner(PROJECT)  # type: ignore[attr-defined]
    assert "docker rm --force x" in str(applied)
    assert end == f"refused: {plan(PROJECT, UNREAD).unknown[0]}"


@pytest.mark.parametrize(("failed", "changes"), [(["one"], True), (["six"], False), ([], True)])
def test_engine_group_is_not_changed_without_a_member(
    failed: list[str], changes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine that runs would be replaced by one that waits for the member."""
    state = SimpleNamespace(failed_hosts=[SimpleNamespace(name=name) for name in failed])
    monkeypatch.setattr(operation, "host", SimpleNamespace(state=state))
    monkeypatch.setattr(operation, "get_fact", lambda *_, **__: _with())
    monkeypatch.setattr(operation, "explain", lambda _: None)
    monkeypatch.setattr(operation, "refuse", lambda sentences: f"refused: {sentences[0]}")
    [command] = operation.project._inner(PROJECT, together=["two", "six"])  # type: ignore[attr-defined]
    if changes:
        assert "docker compose" in str(command)
    else:
        assert command.startswith("refused: the services stay as they are: six failed before")
    monkeypatch.setattr(operation, "get_fact", lambda *_, **__: CONVERGED)
    assert not [*operation.project._inner(PROJECT, together=["two", "six"])]  # type: ignore[attr-defined]


DOCKER = """#!/bin/sh
case $1 in
inspect) echo "$RUNS" ;;
exec) shift 2; exec "$@" ;;
esac
"""


@pytest.mark.parametrize(
    ("runs", "program", "settings", "failed"),
    [
        ("true", "print('a is on'); print('b is off')", ["a is on", "b is off"], ""),
        ("true", "import sys; print('a warning', file=sys.stderr)", [], ""),
        ("true", "raise SystemExit('HTTP Error 401')", [], "HTTP Error 401"),
        ("true", "import os; print('half', flush=True); os._exit(9)", [], "exit status 9"),
        ("false", "raise SystemExit('not running')", [], ""),
    ],
)
def test_program_in_a_container_is_read_or_its_failure_is(
    tmp_path: Path, runs: str, program: str, settings: list[str], failed: str
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    output = subprocess.run(
        ["sh", "-c", script("docker/question.sh", "c1", program)],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUNS": runs},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    state = ComposeProject().process(output.splitlines())
    assert state.settings == ({"c1": settings} if settings else {})
    assert state.failed == ({"c1": failed} if failed else {})


def test_only_containers_that_compose_would_leave_alone_are_removed_first() -> None:
    assert plan(PROJECT, _with(RUNNING, RUNNING)).remake == ("engine",)
    assert plan(PROJECT, _with(replace(RUNNING, cut_off=True))).remake == ("engine",)
    changed = replace(CONVERGED, settings={"llmhost-engine-1": ["a is on"]})
    assert plan(PROJECT, changed).remake == ("engine",)
    sick = replace(RUNNING, health="unhealthy")
    assert plan(PROJECT, _with(sick)).remake == ("engine",)
    assert plan(PROJECT, _with(replace(RUNNING, state="exited"))).remake == ()


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Limits(memory=1 << 30), ""),
        (Limits(memory=0, pids=0), ""),  # what a kernel can not keep
        (Limits(memory=1 << 20), "memory"),
        (Limits(restart="no"), "restart policy"),
        (Limits(pids=-1, cpus=("500000000",)), "processes, processors"),
    ],
)
def test_limits_changed_by_docker_update_are_told(found: Limits, told: str) -> None:
    todo = plan(LIMITED, _with(replace(RUNNING, limits=found)))
    sentence = f"service engine has undeclared limits: {told}"
    assert todo.reasons == ((sentence,) if told else ())
    assert todo.remake == (("engine",) if told else ())


def test_what_stands_in_composes_way_is_removed_first() -> None:
    stray = replace(RUNNING, service="")
    foreign = ProjectNetwork("n1", made_by_compose=False)
    lines = apply_script(PROJECT, plan(PROJECT, _with(stray))).splitlines()
    assert lines.index("docker rm --force llmhost-engine-1") < len(lines) - 1
    todo = plan(PROJECT, replace(CONVERGED, network=foreign))
    script = apply_script(PROJECT, todo)
    assert script.index(" rm --stop") < script.index("network rm llmhost_default")
    assert script.index("network rm") < script.index(" up ")


def test_network_with_another_bridge_is_replaced_with_all_containers_on_it() -> None:
    limited = replace(PROJECT, bridge="br-llmhost")
    stopped = replace(
        _with(replace(RUNNING, state="exited", health="")), stopped={"engine": "stopped"}
    )
    for found in (CONVERGED, stopped):
        todo = plan(limited, found)
        assert (todo.remake, todo.stray_network) == (("engine",), "llmhost_default")
        sentence = "the bridge of network llmhost_default has a generated name"
        assert todo.reasons == (f"{sentence}, not br-llmhost",)


@pytest.mark.parametrize(
    ("images", "services", "expected"),
    [
        ({"llmhost/engine:1": ImageState("sha256:1", "")}, ["engine"], []),
        ({"llmhost/engine:1": ImageState("sha256:2", "")}, ["engine"], ["engine"]),
        ({"llmhost/engine:1": ImageState("sha256:2", "")}, [], []),
        ({}, ["engine"], ["engine"]),  # in a dry run, before it is built
    ],
)
def test_service_whose_image_changes_is_known_before(
    images: dict[str, ImageState], services: list[str], expected: list[str]
) -> None:
    assert updated(PROJECT, replace(CONVERGED, images=images), services) == expected
    assert updated(PROJECT, replace(CONVERGED, images=images, containers=()), services) == []


def test_image_that_is_still_to_be_built_is_no_difference() -> None:
    assert plan(PROJECT, replace(CONVERGED, images={})).reasons == ()


def test_project_without_services_leaves_no_file() -> None:
    todo = plan(NOTHING, CONVERGED)
    assert {entry.path for entry in todo.entries if isinstance(entry, Absent)} == {
        "/opt/llmhost/compose.yaml",
        "/opt/llmhost/services/engine.yaml",
    }
    assert "container llmhost-engine-1 is not declared" in todo.reasons
    assert "down --remove-orphans" in apply_script(NOTHING, todo)
    assert "volume" not in apply_script(NOTHING, todo)


def test_bare_host_without_services_needs_nothing() -> None:
    assert plan(NOTHING, ProjectState({}, {}, (), {})) == ComposePlan((), (), ())


@pytest.mark.parametrize("project", [PROJECT, NOTHING])
def test_scripts_are_posix_shell(project: Project) -> None:
    script = apply_script(project, plan(project, _with(replace(RUNNING, health="unhealthy"))))
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_fact_is_posix_shell() -> None:
    images, questions = ["llmhost/engine:1"], {"a": "print('it''s')"}
    script = ComposeProject().command("llmhost", "/opt/llmhost", images, ["a", "b"], questions)
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_new_files_are_checked_before_they_replace_the_old() -> None:
    lines = apply_script(PROJECT, plan(PROJECT, _with())).splitlines()
    (check,) = [number for number, line in enumerate(lines) if "config --quiet" in line]
    assert min(number for number, line in enumerate(lines) if line.startswith("mv ")) > check
    assert min(number for number, line in enumerate(lines) if " up " in line) > check


def test_fact_tells_files_configurations_containers_and_images_apart() -> None:
    output = [
        "regular file|root|root|644|1.5|/opt/llmhost/compose.yaml",
        f"{'ab' * 32}  /opt/llmhost/compose.yaml",
        "config engine c0",
        "network n1 llmhost_default llmhost default bridge=br-llmhost",
        "container|/llmhost-engine-1|engine|c0|sha256:1|running|healthy|llmhost_default=n1 "
        '|unless-stopped|512|0|0,0,0,|[{"CapAdd":["A|B"]},[],"7"]|',
        "container|/llmhost-chat-1|chat|c1|sha256:1|running|healthy||no|<nil>|1024|0,0,0,0-3"
        '|[{},[],""]|cut',
        "setting|llmhost-chat-1|a is b|c",
        "setting|llmhost-chat-1|d is on",
        "image|sha256:1|12ab|llmhost/engine:1 llmhost/engine:also ",
    ]
    state = ComposeProject().process(output)
    path = PathState("file", "root", "root", "0644", 1.5, "ab" * 32)
    assert state.paths == {"/opt/llmhost/compose.yaml": path}
    assert state.configs == {"engine": "c0"}
    confinement = Confinement({"CapAdd": ["A|B"]}, [], frozenset(["llmhost_default"]), "7")
    assert state.containers[0] == replace(RUNNING, confinement=confinement)
    assert [each.cut_off for each in state.containers] == [False, True]
    assert state.containers[1].limits == Limits("no", 0, 1024, ("0-3",))
    assert state.network == ProjectNetwork("n1", made_by_compose=True, bridge="br-llmhost")
    assert state.settings == {"llmhost-chat-1": ["a is b|c", "d is on"]}
    assert state.images["llmhost/engine:also"] == ImageState("sha256:1", "12ab")
