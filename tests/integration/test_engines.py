"""Every engine from an inventory alone, on one machine: llama.cpp is real, Ollama and vLLM are
doubles of their commands and their HTTP."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import new_key
from llmhost.gateway.routes import exposed_routes
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from llmhost.stack.project import service_images
from llmhost.tasks.gateway import configure_gateway
from llmhost.tasks.stack import run_stack
from testbed import Lan, Machine
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.engines_site import Data, engines
from tests.integration.harness import converge, deploy, passed_components

pytestmark = pytest.mark.machines

ROOT = Path(__file__).parents[2]
RUN = "Stack | Run the declared services"
PARTS: tuple[Callable[..., Any], ...] = (configure_gateway, run_stack)
BAKE = "Stack | Bake the models into the services' images"


def provision(settings: Settings) -> None:
    for part in PARTS:
        part(settings)


@dataclass(frozen=True)
class Site:
    """A machine on which all engines run."""

    docker: DockerSite
    data: Data
    key: str

    @property
    def machine(self) -> Machine:
        return self.docker.machine

    def settings(self, **changes: object) -> Settings:
        return read_settings(self.data | changes)


@pytest.fixture(scope="module")
def site(lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    key = new_key()
    with docker_site(lan, machine, directory) as docker:
        site = Site(docker, engines(docker, directory, key), key)
        assert BAKE in converge(machine, provision, site.settings()).changed
        yield site


def test_server_tests_of_all_engines_pass(site: Site, tmp_path: Path) -> None:
    data = {site.machine.name: site.data | {"ssh_config_file": str(site.machine.ssh_config)}}
    (tmp_path / "site.json").write_text(json.dumps(data))
    tests = [str(ROOT / "llmhost/checks" / name) for name in ("services", "test_stack.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    command += ["--site", str(tmp_path / "site.json")]
    command += ["--records", str(tmp_path / "records")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert {"stack", *site.settings().services} <= passed_components(tmp_path / "records")


def test_every_service_answers_its_request_through_the_gateway(site: Site) -> None:
    settings = site.settings()
    exposed = exposed_routes(settings)
    routes = {(route.service, route.upstream_path): route.path for route in exposed}
    for service in settings.catalogue:
        request = service.request(settings.models_of(service.name))
        assert request is not None
        # By its model at the address for all, and below `/NAME` for all but the first.
        paths = [routes["", request.path], routes.get((service.name, request.path))]
        for path in filter(None, paths):
            url = f"http://127.0.0.1:{settings.gateway.port}{path}"
            ask = f"curl -sS --fail-with-body -H 'Authorization: Bearer {site.key}' -d @- {url}"
            head = "-H 'Content-Type: application/json'"
            answer = site.machine.ssh(f"{ask} {head}", input=json.dumps(request.body)).stdout
            assert {"choices", "data", "results"} & json.loads(answer).keys(), path


def test_another_prompt_moves_no_weights(site: Site) -> None:
    models = [
        {**model, "system_prompt": "Other."} if model["name"] == "brain" else model
        for model in site.data["models"]
    ]
    changed = site.settings(models=models)
    before = {image.service: image for image in service_images(site.settings())}
    weights = before["ollama"].models[0].reference
    made = f"docker image inspect --format '{{{{.Created}}}} {{{{.Id}}}}' {weights}"
    kept = site.machine.ssh(made).stdout
    outcome = deploy(site.machine, run_stack, changed)
    assert outcome.changed == [BAKE, RUN], outcome.output
    assert site.machine.ssh(made).stdout == kept
    (image,) = [each for each in service_images(changed) if each.service == "ollama"]
    layers = "docker image history --no-trunc --human=false --format '{{.Size}} {{.CreatedBy}}' "
    baked = [
        line
        for line in site.machine.ssh(layers + image.reference).stdout.splitlines()
        if "/llmhost/bake" in line
    ]
    # Links, manifests and texts: at most a fiftieth of the weights.
    (brain,) = [model for model in models if model["name"] == "brain"]
    weights_bytes = Path(brain["source"]).stat().st_size
    assert int(baked[0].split()[0]) <= 0.02 * weights_bytes, baked


def test_file_that_is_no_gguf_stops_the_build_with_a_reason(site: Site) -> None:
    (hub,) = [model for model in site.data["models"] if model["name"] == "writer"]
    file = next(each for each in hub["files"] if each["path"].endswith(".safetensors"))
    brain = {"name": "brain", "service": "ollama", "sha256": file["sha256"]}
    brain["source"] = str(Path(hub["source"], file["path"]))
    others = [model for model in site.data["models"] if model.get("service") != "ollama"]
    outcome = deploy(site.machine, run_stack, site.settings(models=[brain, *others]))
    assert not outcome.succeeded
    assert "is not in GGUF format" in outcome.output
