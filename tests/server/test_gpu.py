"""Proof that the GPU is used: from a completion to the container whose process holds GPU memory."""

import json
import os
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import pytest

from llmhost.settings.root import Settings
from tests.server.door import Door
from tests.server.nvidia import Nvidia, look, note, require_gpu

Outside = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def nvidia(host: Any, settings: Settings, request: pytest.FixtureRequest) -> Nvidia:
    """Read anew for each test: processes come and go."""
    found = look(host, settings)
    require_gpu(found, settings)
    note(request, found)
    return found


def containers(host: Any, settings: Settings) -> dict[str, dict[str, Any]]:
    """The stack's containers by service, as `docker inspect` shows them."""
    ids = host.run(
        f"docker ps -q --filter label=com.docker.compose.project={settings.stack.project}"
    ).stdout.split()
    shown = json.loads(host.run("docker inspect " + " ".join(ids)).stdout) if ids else []
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in shown}


def granted(container: dict[str, Any], nvidia: Nvidia) -> set[str]:
    """UUIDs of the GPUs that a container was given."""
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


def gpu_services(settings: Settings) -> dict[str, int]:
    """Index of its GPU for each service that asks for one."""
    options = settings.service_options.items()
    found = {name: of.gpu for name, of in options if of.gpu is not None}
    if not found:
        pytest.skip("not checked: no declared service asks for a GPU")
    return found


def test_every_service_has_exactly_the_gpus_it_was_given(
    host: Any, settings: Settings, nvidia: Nvidia
) -> None:
    running = containers(host, settings)
    for service, options in settings.service_options.items():
        wanted = set() if options.gpu is None else {nvidia.gpus[options.gpu]["uuid"]}
        if nvidia.wsl and wanted:
            wanted = {gpu["uuid"] for gpu in nvidia.gpus}  # CDI on WSL hands out all of them
        assert granted(running[service], nvidia) == wanted, service


def test_processes_on_the_gpus_belong_to_services_that_were_given_them(
    host: Any, settings: Settings, nvidia: Nvidia
) -> None:
    if nvidia.wsl:
        pytest.skip("not checked: NVML on WSL lists no processes")
    running = containers(host, settings)
    allowed = {each["Id"]: granted(each, nvidia) for each in running.values()}
    for gpu in nvidia.gpus:
        for process in gpu["processes"]:
            if process["container"] in allowed:
                assert gpu["uuid"] in allowed[process["container"]], process


def test_completion_is_computed_on_the_gpu_that_the_service_was_given(
    host: Any, settings: Settings, nvidia: Nvidia, outside: Outside, door: Door
) -> None:
    if not (key := os.environ.get("LLMHOST_API_KEY")):
        pytest.skip("not checked: LLMHOST_API_KEY is not set, so no completion can be asked for")
    if nvidia.wsl:
        pytest.skip("not checked: NVML on WSL lists no processes")
    services = gpu_services(settings)
    for service, index in services.items():
        _complete(settings, service, outside, door, key)
        container = containers(host, settings)[service]["Id"]
        (gpu,) = [each for each in look(host, settings).gpus if each["index"] == index]
        assert gpu["processes"] is not None, gpu["unavailable"]
        holders = [each for each in gpu["processes"] if each["container"] == container]
        assert holders, f"{service} answered, and holds no memory of GPU {index}: it ran on the CPU"
        # A CUDA context alone takes a few MiB (a double's process: its resident memory).
        assert sum(each["memory"] or 0 for each in holders) > 0


def _complete(settings: Settings, service: str, outside: Outside, door: Door, key: str) -> None:
    """A real completion through the gateway: it warms the model up, too."""
    (model, *_) = settings.models_of(service)
    body = {"model": model.name, "prompt": "One, two,", "max_tokens": 8}
    said = outside(
        *("curl", "-sS", "--fail-with-body", "-m", str(settings.gateway.read_timeout_seconds)),
        *("-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"),
        *("-d", json.dumps(body), *door.curl, f"{door.url}/v1/completions"),
        timeout=settings.gateway.read_timeout_seconds + 10,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert json.loads(said.stdout)["choices"]
