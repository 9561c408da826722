"""Every engine from an inventory alone, on one machine: llama.cpp is real, Ollama and vLLM are
doubles of their commands and their HTTP."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.settings.reader import read_settings
from llmhost.settings.root import Settings
from llmhost.stack import service_images
from tasks.stack import run_stack
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.engines_site import Data, engines
from tests.integration.harness import converge, deploy
from tests.machines import Lan, Machine

pytestmark = pytest.mark.machines

ROOT = Path(__file__).parents[2]
RUN = "Stack | Run the declared services"
BAKE = "Stack | Bake the models into the services' images"


@dataclass(frozen=True)
class Site:
    """A machine on which all engines run."""

    docker: DockerSite
    data: Data

    @property
    def machine(self) -> Machine:
        return self.docker.machine

    def settings(self, **changes: object) -> Settings:
        return read_settings(self.data | changes)


@pytest.fixture(scope="module")
def site(lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with docker_site(lan, machine, directory) as docker:
        site = Site(docker, engines(docker, directory))
        assert BAKE in converge(machine, run_stack, site.settings()).changed
        yield site


def test_server_tests_of_all_engines_pass(site: Site, tmp_path: Path) -> None:
    data = {site.machine.name: site.data | {"ssh_config_file": str(site.machine.ssh_config)}}
    (tmp_path / "site.json").write_text(json.dumps(data))
    tests = [str(ROOT / "tests/server" / name) for name in ("services", "test_stack.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    command += ["--site", str(tmp_path / "site.json"), "--junitxml", str(tmp_path / "report.xml")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "is not declared" not in run.stdout


def test_another_prompt_moves_no_weights(site: Site) -> None:
    brain, *others = site.data["models"]
    changed = site.settings(models=[brain | {"system_prompt": "Other."}, *others])
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
    # Links, Modelfiles and manifests: a copy of the weights would be half a megabyte.
    assert int(baked[0].split()[0]) < 100_000, baked
    converge(site.machine, run_stack, site.settings())


def test_model_that_ollama_refuses_stops_the_build_with_its_word(site: Site) -> None:
    others = site.data["models"][1:]
    (hub,) = [model for model in others if model["name"] == "writer"]
    file = Path(hub["source"], "model-00001-of-00002.safetensors")
    pins = {"source": str(file), "sha256": hub["files"][2]["sha256"]}
    outcome = deploy(
        site.machine,
        run_stack,
        site.settings(models=[{"name": "brain", "service": "ollama", **pins}, *others]),
    )
    assert not outcome.succeeded
    assert "supplied file was not in GGUF format" in outcome.output
    converge(site.machine, run_stack, site.settings())
