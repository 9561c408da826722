"""Proof that the GPU is used: from a completion to the container with a process on the GPU."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from llmhost.checks.conftest import (
    Containers,
    address_of,
    site_of,
    written_ssh_config,
)
from llmhost.checks.gateway_client import Door, door_of, operators_key
from llmhost.checks.gpu_proof import keep
from llmhost.checks.nvidia import Nvidia, look, note, require_gpu
from llmhost.checks.outside import Outside
from llmhost.settings import Settings

ROUTE = "/v1/completions"


@pytest.fixture
def nvidia(
    host: Any, settings: Settings, hardware: Nvidia, request: pytest.FixtureRequest
) -> Nvidia:
    """Read again for each test, because processes change."""
    require_gpu(hardware, settings)
    found = look(host, settings)
    note(request, found)
    return found


@pytest.fixture
def running(host: Any, settings: Settings) -> Containers:
    """The stack's containers by service, as `docker inspect` shows them."""
    ids = host.run(
        f"docker ps -q --filter label=com.docker.compose.project={settings.stack.project}"
    ).stdout.split()
    shown = json.loads(host.run("docker inspect " + " ".join(ids)).stdout) if ids else []
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in shown}


@pytest.fixture
def entrance(
    settings: Settings, door: Door, pytestconfig: pytest.Config, tmp_path: Path
) -> tuple[Settings, Door]:
    """The host that answers for this one's GPUs: of an engine group, the head."""
    if not settings.serves_a_head:
        return settings, door
    name = str(settings.engine_group.head)
    head = site_of(pytestconfig).get(name)
    if head is None:
        pytest.skip(f"not checked: {name} answers for this host's GPUs; verify both together")
    address = address_of(head, written_ssh_config(head, tmp_path))
    return head.settings, door_of(name, address, head.settings)


@pytest.fixture
def answering(
    settings: Settings,
    nvidia: Nvidia,
    outside: Outside,
    entrance: tuple[Settings, Door],
    stopped: Mapping[str, str],
    client_keys: list[str],
) -> list[str]:
    """Services on GPUs that have just answered a completion."""
    answers, door = entrance
    key = operators_key(answers, client_keys)
    services = [
        service.name
        for service in settings.catalogue
        if service.name in settings.gpu_requests
        and any(route.path == ROUTE for route in service.routes)
    ]
    if not services:
        pytest.skip("not checked: no service that answers completions asks for a GPU")
    services = [name for name in services if name not in stopped]
    if not services:
        pytest.skip("not checked: the services that answer completions were stopped by an operator")
    for service in services:
        _complete(answers, service, outside, door, key)
    return services


def granted(container: dict[str, Any], nvidia: Nvidia) -> set[str]:
    """UUIDs of a container's GPUs."""
    requests = container["HostConfig"].get("DeviceRequests") or []
    names = [
        device.partition("=")[2]
        for request in requests
        for device in request.get("DeviceIDs") or []
        if device.startswith("nvidia.com/gpu=")
    ]
    uuids = {str(gpu["index"]): gpu["uuid"] for gpu in nvidia.gpus}
    if "all" in names:
        return set(uuids.values())
    return {uuids.get(name, name) for name in names}


def holders_of(gpu: dict[str, Any], service: str, container: str) -> set[int]:
    """Processes of a container that hold memory of a GPU; without any, the test fails."""
    assert gpu["processes"] is not None, gpu["unavailable"]
    held = {
        each["pid"]: each["memory"] or 0
        for each in gpu["processes"]
        if each["container"] == container
    }
    place = f"GPU {gpu['index']}"
    assert held, f"{service} answered, and holds no memory of {place}: it ran on the CPU"
    # A CUDA context alone needs a few MiB (for a double: the resident memory of its process).
    assert sum(held.values()) > 0
    return {*held}


def assert_work(gpu: dict[str, Any], service: str, holders: set[int]) -> None:
    """Memory alone is no proof: an engine may reserve it on a GPU that computes nothing."""
    worked = [each for each in gpu["work"] if each["pid"] in holders and each["percent"]]
    assert worked, f"{service} answered, and its GPU {gpu['index']} did no work"


def test_every_service_has_exactly_the_gpus_it_requests(
    settings: Settings, nvidia: Nvidia, running: Containers, stopped: Mapping[str, str]
) -> None:
    uuids = {str(gpu["index"]): gpu["uuid"] for gpu in nvidia.gpus}
    for service in settings.services:
        if service in stopped:
            continue
        request, given = settings.gpu_requests.get(service), granted(running[service], nvidia)
        if request is None:
            assert given == set(), service
        elif nvidia.wsl:  # CDI on WSL gives access to all of them
            assert given == {*uuids.values()}, service
        elif isinstance(request.gpus, int):
            assert len(given) == request.gpus and given <= {*uuids.values()}, service
        else:
            assert given == {uuids.get(each, each) for each in request.gpus}, service


def test_no_gpu_is_shared_unless_its_services_allow_it(
    settings: Settings, nvidia: Nvidia, running: Containers
) -> None:
    if nvidia.wsl:
        pytest.skip("not checked: CDI on WSL gives every service access to every GPU")
    for gpu in nvidia.gpus:
        users = [name for name in running if gpu["uuid"] in granted(running[name], nvidia)]
        alone = [name for name in users if not settings.gpu_requests[name].shared]
        assert len(users) < 2 or not alone, f"GPU {gpu['index']}: {', '.join(users)}"


def test_containers_may_open_the_devices_of_their_gpus(
    host: Any, nvidia: Nvidia, running: Containers
) -> None:
    device = "/dev/dxg" if nvidia.wsl else "/dev/nvidiactl"
    if host.run(f"test -c {device} && (: <{device})").rc != 0:
        pytest.skip(f"not checked: this server has no {device} that opens")
    for service, container in running.items():
        if granted(container, nvidia):
            # The cgroup decides which devices can be opened, not the image.
            group = host.check_output(f"sed -n s/^0:://p /proc/{container['State']['Pid']}/cgroup")
            join = f"echo $$ >/sys/fs/cgroup{group}/cgroup.procs"
            opened = host.run(f"sh -c '{join} && : <{device}'")
            assert opened.rc == 0, f"{service}: {opened.stderr}"


def test_processes_on_the_gpus_belong_to_their_services(
    nvidia: Nvidia, running: Containers
) -> None:
    if nvidia.wsl:
        pytest.skip("not checked: NVML on WSL lists no processes")
    allowed = {each["Id"]: granted(each, nvidia) for each in running.values()}
    for gpu in nvidia.gpus:
        assert gpu["processes"] is not None, gpu["unavailable"]
        for process in gpu["processes"]:
            if process["container"] in allowed:
                assert gpu["uuid"] in allowed[process["container"]], process


def test_completion_is_computed_on_the_gpus_of_its_service(
    host: Any,
    settings: Settings,
    nvidia: Nvidia,
    answering: list[str],
    running: Containers,
    evidence: Path | None,
) -> None:
    if nvidia.wsl:
        pytest.skip("not checked: NVML on WSL lists no processes")
    now, unknown = look(host, settings), set[str]()
    for service in answering:
        container = running[service]
        for gpu in now.gpus:
            if gpu["uuid"] in granted(container, now):
                holders = holders_of(gpu, service, container["Id"])
                if gpu["work"] is None:
                    unknown.add(f"GPU {gpu['index']} ({gpu['unavailable']['work']})")
                else:
                    assert_work(gpu, service, holders)
    if evidence:
        keep(evidence, host, now, answering, datetime.now(UTC))
    if unknown:
        told = ", ".join(sorted(unknown))
        pytest.skip(f"not checked: services hold memory; NVML does not report work of {told}")


def test_engine_reports_that_it_computes_on_the_gpu(
    host: Any, answering: list[str], running: Containers
) -> None:
    """In addition to NVML, because each alone has been wrong
    (https://github.com/ollama/ollama/issues/8623)."""
    asked = 0
    for service in answering:
        module = import_module(f"llmhost.checks.services.test_{service}")
        if ask := getattr(module, "computes_on_gpu", None):
            on_gpu, said = ask(host, running[service])
            assert on_gpu, f"{service} runs on the CPU: {said}"
            asked += 1
    if asked < len(answering):
        pytest.skip(f"not checked: {asked} of {len(answering)} engines report where they compute")


def _complete(settings: Settings, service: str, outside: Outside, door: Door, key: str) -> None:
    """A real completion through the gateway, which also loads the model."""
    (model, *_) = settings.models_of(service)
    # NVML samples a few times a second, and an answer of a few tokens could fall in between.
    tokens = min(256, model.context_tokens // 2)
    body = {"model": model.name, "prompt": "One, two,", "max_tokens": tokens}
    # The first service is at "/", the others are below "/NAME".
    place = "" if service == settings.services[0] else f"/{service}"
    said = outside(
        *("curl", "-sS", "--fail-with-body", "-m", str(settings.gateway.read_timeout_seconds)),
        *("-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"),
        *("-d", json.dumps(body), *door.curl, f"{door.url}{place}{ROUTE}"),
        timeout=settings.gateway.read_timeout_seconds + 10,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert json.loads(said.stdout)["choices"]
