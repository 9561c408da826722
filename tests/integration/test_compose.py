"""Compose projects under the real Docker: what runs is what is declared, whatever befell it."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import testinfra

from llmhost.checks.starting import wait_for_services
from llmhost.docker.compose import Project
from llmhost.inventory.reader import read_settings
from llmhost.operations import compose
from llmhost.stack.project import compose_project, service_images
from llmhost.tasks.stack import run_stack
from testbed import Lan, Machine
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

NAME = "llmhost-llamacpp-1"
BAKE = "Stack | Bake the models into the services' images"
RUN = "Stack | Run the declared services"
FILE = "/opt/llmhost/services/llamacpp.yaml"
UP = "docker compose -f /opt/llmhost/compose.yaml up -d --quiet-pull"


@pytest.fixture(scope="module")
def site(
    lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerSite]:
    with docker_site(lan, machine, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(autouse=True)
def _running(site: DockerSite) -> None:
    """Every test begins with the stack as it is declared; the operation itself sees to that."""
    outcome = deploy(site.machine, run_stack, site.settings())
    assert outcome.succeeded, outcome.output


def _container(site: DockerSite) -> dict[str, Any]:
    inspected = site.machine.ssh(f"docker inspect {NAME}").stdout
    return dict(json.loads(inspected)[0])


def _answers(site: DockerSite) -> bool:
    body = json.dumps({"prompt": "hello", "max_tokens": 4, "stream": True})
    ask = "curl -sS -N http://127.0.0.1:8081/v1/completions -d @-"
    return site.machine.ssh(ask, input=body).stdout.rstrip().endswith("data: [DONE]")


def test_service_runs_confined_and_streams(site: DockerSite) -> None:
    assert converge(site.machine, run_stack, site.settings()).changed == []
    container = _container(site)
    assert container["State"]["Health"]["Status"] == "healthy"
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-file": "3", "max-size": "50m"}}
    assert {b["HostIp"] for ports in host["PortBindings"].values() for b in ports} == {"127.0.0.1"}
    assert container["Config"]["User"] == "10001:10001"
    assert _answers(site)


DISTURBANCES = {
    "stopped": f"docker stop -t 1 {NAME}",
    "killed": f"docker kill {NAME}",
    "removed": f"docker rm -f {NAME}",
    "paused": f"docker pause {NAME}",
    "changed by hand": f"sed -i 's/pids_limit: 512/pids_limit: 99/' {FILE} && {UP}",
    "changed by hand, file restored": (
        f"cp {FILE} /root/kept && sed -i 's/ALL/NET_RAW/' {FILE} && {UP} && mv /root/kept {FILE}"
    ),
    "a file changed": f"echo '# mine' >>{FILE}",
    "a file made readable for its owner only": f"chmod 0600 {FILE}",
    "a file removed": f"rm {FILE}",
    "a foreign file": "echo 'services: {}' >/opt/llmhost/services/foreign.yaml",
    "a foreign service": (
        "printf 'services: {foreign: {extends: {file: /opt/llmhost/services/llamacpp.yaml,"
        " service: llamacpp}, container_name: foreign, ports: !override []}}' >/root/more.yaml;"
        " docker compose -p llmhost -f /root/more.yaml up -d"
    ),
    "two of it": (
        f"sed -i '/127.0.0.1:8081/d; /ports:/d; /container_name:/d' {FILE}"
        f" && {UP} --scale llamacpp=2"
    ),
    "network taken away": (
        f"docker rm -f {NAME}; docker network rm llmhost_default; {UP} && docker stop -t 1 {NAME}"
    ),
}


@pytest.mark.drift
@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_disturbance_is_planned_and_healed(site: DockerSite, disturbance: str) -> None:
    site.machine.ssh(DISTURBANCES[disturbance])
    assert deploy(site.machine, run_stack, site.settings(), dry=True).changed == [RUN]
    assert converge(site.machine, run_stack, site.settings()).changed == [RUN]
    running = site.machine.ssh("docker ps -a --format '{{.Names}} {{.Status}}'").stdout.splitlines()
    assert len(running) == 1 and running[0].startswith(NAME) and "(healthy)" in running[0]
    assert _answers(site)


def test_container_of_another_image_is_replaced(site: DockerSite) -> None:
    (image,) = service_images(site.settings())
    # The same inputs in its label, but another image: made from it, by hand.
    site.machine.ssh(
        f"echo 'FROM {image.reference}\nENV A=B' | docker build -qt {image.reference} -"
    )
    site.machine.ssh(f"{UP} --wait && docker inspect {NAME} | grep A=B")
    site.machine.ssh(f"docker rmi -f {image.reference}")
    assert deploy(site.machine, run_stack, site.settings(), dry=True).changed == [BAKE]
    assert deploy(site.machine, run_stack, site.settings()).changed == [BAKE, RUN]
    assert "A=B" not in _container(site)["Config"]["Env"]
    assert deploy(site.machine, run_stack, site.settings()).changed == []


def test_unhealthy_service_is_made_anew(site: DockerSite) -> None:
    project = compose_project(site.settings(llamacpp_load_timeout_seconds=10))
    impatient = project.services["llamacpp"].replace("/health", "/nothing").replace("30s", "1s")
    broken = replace(project, services={"llamacpp": impatient.replace("10s", "1s")})
    outcome = deploy(site.machine, run_project, broken)
    assert not outcome.succeeded
    again = deploy(site.machine, run_project, broken)
    assert "is unhealthy" in again.output and not again.succeeded
    converge(site.machine, run_stack, site.settings())


def run_project(project: Project) -> None:
    compose.project(project, name="Run")


def test_failing_service_is_reported_with_its_last_words(site: DockerSite) -> None:
    broken = site.settings(llamacpp_extra_arguments=["--no-such-option"])
    outcome = deploy(site.machine, run_stack, broken)
    assert not outcome.succeeded
    assert f"{NAME} did not become healthy; its log ends with:" in outcome.output
    assert "invalid argument: --no-such-option" in outcome.output
    converge(site.machine, run_stack, site.settings())


def test_invalid_file_leaves_the_old_service_running(site: DockerSite) -> None:
    project = compose_project(site.settings())
    before = _container(site)["Id"]
    invalid = replace(project, services={"llamacpp": "services: {llamacpp: {prots: []}}\n"})
    assert not deploy(site.machine, run_project, invalid).succeeded
    assert _container(site)["Id"] == before and _answers(site)
    assert deploy(site.machine, run_stack, site.settings(), dry=True).changed == []


def test_changed_option_is_applied(site: DockerSite) -> None:
    converge(site.machine, run_stack, site.settings(llamacpp_memory_limit="3g", llamacpp_threads=1))
    arguments = _container(site)["Args"]
    assert arguments[arguments.index("--threads") + 1] == "1"


def test_removed_services_go_and_their_volumes_stay(site: DockerSite) -> None:
    label = "--label com.docker.compose.project=llmhost"
    site.machine.ssh(f"docker volume create {label} llmhost_data")
    converge(site.machine, run_stack, read_settings({}))
    assert site.machine.ssh("docker ps -aq; find /opt/llmhost -type f").stdout == ""
    assert (
        "llmhost_data"
        in site.machine.ssh("docker volume ls -q; docker volume rm llmhost_data").stdout
    )


PROCESS = f"docker inspect --format '{{{{.State.Pid}}}}' {NAME}"


def _waits(site: DockerSite, start: str) -> tuple[list[str], str]:
    """Start the engine again, but let it answer after three seconds only: what `llmhost verify`
    says in the meantime, and the health that its checks then see."""
    told: list[str] = []
    late = "setsid -f sh -c 'sleep 3; kill -CONT $1' - $pid >/dev/null 2>&1"
    site.machine.ssh(f"{start}; pid=$({PROCESS}); kill -STOP $pid; {late}")
    place = f"ssh://{site.machine.name}"
    host = testinfra.get_host(place, ssh_config=str(site.machine.ssh_config))
    wait_for_services(host, site.settings().stack, told.append)
    health = f"docker inspect --format '{{{{.State.Health.Status}}}}' {NAME}"
    return told, site.machine.ssh(health).stdout.strip()


def test_checks_wait_for_a_service_that_starts(site: DockerSite) -> None:
    told, health = _waits(site, f"docker restart {NAME}")
    assert {*told} == {"waiting for the start of llamacpp"} and health == "healthy"


def test_checks_do_not_wait_for_a_service_that_failed(site: DockerSite) -> None:
    again = f"now=$({PROCESS}); [ $now -gt 0 ] && [ $now != $old ]"
    crash = f"old=$({PROCESS}); kill -9 $old; until {again}; do sleep 0.1; done"
    told, health = _waits(site, crash)
    assert (told, health) == ([], "starting")


def test_service_comes_back_after_a_reboot(site: DockerSite) -> None:
    site.machine.reboot()
    health = f"docker inspect --format '{{{{.State.Health.Status}}}}' {NAME}"
    wait = f'until [ "$({health})" = healthy ]; do sleep 0.2; done'
    site.machine.ssh(f"timeout 60 sh -c {shlex.quote(wait)}")
    assert deploy(site.machine, run_stack, site.settings(), dry=True).changed == []
    assert _answers(site)
