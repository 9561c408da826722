"""The stack of a provisioned server: its containers, their confinement and their weights."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.checks.command_log import guard
from llmhost.checks.conftest import Containers
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def services(settings: Settings, stopped: Mapping[str, str]) -> list[str]:
    """The services that should run: those that no operator stopped."""
    return [name for name in settings.services if name not in stopped]


@pytest.fixture(scope="module")
def containers(all_containers: Containers, stopped: Mapping[str, str]) -> Containers:
    """The containers of all other services than those that an operator stopped."""
    return {name: each for name, each in all_containers.items() if name not in stopped}


@pytest.fixture(scope="module")
def processes(host: Any, containers: Containers) -> dict[str, dict[str, str]]:
    """/proc/PID/status of the first process of each service."""
    statuses = {
        service: host.check_output(f"cat /proc/{each['State']['Pid']}/status")
        for service, each in containers.items()
    }
    return {
        service: dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))
        for service, text in statuses.items()
    }


def test_exactly_the_declared_services_run(containers: Containers, services: list[str]) -> None:
    assert sorted(containers) == sorted(services)


def test_service_that_an_operator_stopped_does_not_run(
    all_containers: Containers, stopped: Mapping[str, str]
) -> None:
    if not stopped:
        does_not_apply("no service was stopped with llmhost stop")
    states = {name: each["State"]["Status"] for name, each in all_containers.items()}
    assert {name: states.get(name, "exited") for name in stopped} == dict.fromkeys(
        stopped, "exited"
    )


def test_every_service_is_healthy(containers: Containers, stopped: Mapping[str, str]) -> None:
    states = {service: each["State"] for service, each in containers.items()}
    assert {state["Status"] for state in states.values()} <= {"running"}
    health = {service: state["Health"]["Status"] for service, state in states.items()}
    assert set(health.values()) <= {"healthy"}, health
    if told := [f"the service {name} was {how}" for name, how in stopped.items()]:
        pytest.skip(f"not checked: {'; '.join(told)}")


def test_services_come_back_after_a_reboot(host: Any, containers: Containers) -> None:
    policies = {each["HostConfig"]["RestartPolicy"]["Name"] for each in containers.values()}
    assert policies <= {"unless-stopped"}
    assert host.service("docker").is_enabled


def test_no_process_is_root_or_can_become_root(processes: Mapping[str, dict[str, str]]) -> None:
    for service, status in processes.items():
        assert "0" not in status["Uid"].split(), service
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, service
        assert status["NoNewPrivs"] == "1", service
        assert status["Seccomp"] == "2", service


def test_containers_reach_only_what_is_declared(containers: Containers, settings: Settings) -> None:
    for service, each in containers.items():
        network = (
            "host" if service in settings.group_services else f"{settings.stack.project}_default"
        )
        assert {*each["NetworkSettings"]["Networks"]} == {network}
        host = each["HostConfig"]
        assert not host["Privileged"] and host["PidMode"] == "", service
        for key in ("CapAdd", "Devices", "DeviceCgroupRules", "VolumesFrom", "GroupAdd"):
            assert not host[key], (service, key)
        kinds = {mount["Type"] for mount in each["Mounts"]}
        assert kinds <= {"volume", "tmpfs"}, service  # nothing of the host


def test_root_file_systems_are_read_only(host: Any, containers: Containers) -> None:
    for service, each in containers.items():
        mounts = host.check_output(f"cat /proc/{each['State']['Pid']}/mounts").splitlines()
        (root,) = [line.split() for line in mounts if line.split()[1] == "/"]
        assert "ro" in root[3].split(","), service


def test_services_have_limits_in_proportion_to_the_server(
    host: Any, containers: Containers, settings: Settings
) -> None:
    controllers = host.check_output("cat /sys/fs/cgroup/cgroup.controllers").split()
    kib = int(host.check_output("sed -n 's/^MemTotal: *//p' /proc/meminfo").split()[0])
    threads = int(host.check_output("nproc --all"))
    for service, each in containers.items():
        limits = each["HostConfig"]
        if "pids" in controllers:
            assert (limits["PidsLimit"] or 0) >= max(512, 32 * threads), service
        if settings.system.hardening == "off":
            continue
        if "cpu" in controllers:
            assert limits["CpuShares"] == 512, service
        declared = settings.options(service).memory_limit
        if "memory" in controllers and (declared or kib > 3 * 2**20):
            assert limits["Memory"] > 0, service
            assert declared or limits["Memory"] < kib * 1024, service


def test_ports_are_published_on_the_loopback_only(
    host: Any, containers: Containers, settings: Settings, services: list[str]
) -> None:
    published = {
        service: {
            (binding["HostIp"], int(binding["HostPort"]))
            for bindings in each["NetworkSettings"]["Ports"].values()
            for binding in bindings or ()
        }
        for service, each in containers.items()
    }
    ports = {name: settings.options(name).port for name in services}
    # The engine of a group is on the host's network, where Docker publishes nothing.
    assert published == {
        name: {("127.0.0.1", port)} if port and name not in settings.group_services else set()
        for name, port in ports.items()
    }
    listening = host.check_output("ss -Hltn").splitlines()
    for port in filter(None, ports.values()):
        places = {line.split()[3] for line in listening if line.split()[3].endswith(f":{port}")}
        assert places <= {f"127.0.0.1:{port}"}


def test_logs_are_capped(containers: Containers, settings: Settings) -> None:
    cap = {
        "max-size": f"{settings.docker.log_max_size_mib}m",
        "max-file": str(settings.docker.log_max_files),
    }
    for service, each in containers.items():
        log = each["HostConfig"]["LogConfig"]
        assert log["Type"] == "local" and cap.items() <= log["Config"].items(), service


def test_declared_weights_are_in_the_running_container(
    host: Any, containers: Containers, settings: Settings
) -> None:
    for model in settings.models:
        if not (container := containers.get(model.service)):
            continue  # stopped, or reported by another check
        for path, sha256 in settings.baked(model).items():
            file = f"/proc/{container['State']['Pid']}/root{path}"
            assert host.check_output(f"sha256sum {file}").split()[0] == sha256, model.name


def test_no_volume_hides_what_is_baked(containers: Containers, settings: Settings) -> None:
    mounted = {
        (service, mount["Destination"])
        for service, each in containers.items()
        for mount in each["Mounts"]
    }
    for model in settings.models:
        assert not any(
            service == model.service and model.path.startswith(f"{place.rstrip('/')}/")
            for service, place in mounted
        )


def test_weights_are_not_stored_twice(host: Any, settings: Settings) -> None:
    assert not host.file(settings.stack.uploads).exists


def test_images_were_built_here(host: Any, containers: Containers) -> None:
    images = {service: each["Image"] for service, each in containers.items()}
    if not images:
        return
    shown = json.loads(host.check_output(f"docker image inspect {' '.join(images.values())}"))
    for service, image in zip(images, shown, strict=True):
        assert any(re.fullmatch(f"llmhost/{service}:[0-9a-f]{{16}}", t) for t in image["RepoTags"])


def test_compose_files_name_who_manages_them(host: Any, settings: Settings) -> None:
    if not settings.services:
        does_not_apply("no service is declared")
    names = [f"services/{name}.yaml" for name in settings.services]
    private = {
        f"services/{name}.yaml"
        for name in settings.services
        if settings.options(name).secret_variables or name in settings.group_services
    }
    for name in ["compose.yaml", *names]:
        file = f"{settings.stack.directory}/{name}"
        assert host.file(file).content_string.startswith("# Managed by llmhost")
        assert guard(host, file) == ("root:root 0600" if name in private else "root:root 0644"), (
            name
        )
