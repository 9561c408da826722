"""Every profile from its name alone, on one machine, one profile after the other: deployed, linted,
asked through the gateway, deployed again, and made anew without a network.

What can not be had is doubled: testbed/stand_ins.py tells what. The machine has no GPU.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.gateway.routes import exposed_routes
from llmhost.inventory.profiles import PROFILES
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from testbed import Client, Lan, Machine
from testbed.image_registry import ImageRegistry
from testbed.profiles import profile_data
from tests.integration.harness import passed_components

pytestmark = [pytest.mark.machines, pytest.mark.profiles]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """The machine on its LAN, with a registry beside it and a client that may change documents."""

    machine: Machine
    client: Client
    registry: ImageRegistry
    directory: Path
    key: str


@dataclass(frozen=True)
class Site:
    """A profile that is deployed."""

    place: Place
    profile: str
    data: dict[str, Any]
    inventory: Path

    @property
    def settings(self) -> Settings:
        return read_settings(self.data)

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)

    def deploy(self) -> list[str]:
        """Names of the operations that changed something."""
        ran = self.run("pyinfra", str(self.inventory), "deploy.py", "-y", "--json")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        operations = json.loads(ran.stdout)["results"]["operations"]
        assert len(operations) > 10, "the report must tell of the whole deploy"
        return [operation["name"] for operation in operations if operation["success"]]

    def ask(self, url: str, body: Any = None, *more: str, method: str = "") -> Any:
        """The answer to a request of the client; it has to be a good one."""
        curl = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "120", *more]
        curl += ["--request", method] if method else []
        if body is not None:
            curl += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
        answer = self.place.client.run([*curl, url], timeout=150, check=False)
        assert answer.returncode == 0, f"{url}: {answer.stdout}{answer.stderr}"
        return json.loads(answer.stdout) if answer.stdout else None

    def through_gateway(self, service: str, path: str, body: Any = None, method: str = "") -> Any:
        """The same with a key, by the address under which the gateway offers a service's path."""
        places = {
            route.service: route.path
            for route in exposed_routes(self.settings)
            if route.upstream_path == path and route.service in (service, "")
        }
        at = places.get(service) or places[""]
        url = self.settings.gateway.url(self.place.machine.address) + at
        key = f"Authorization: Bearer {self.place.key}"
        return self.ask(url, body, "--header", key, method=method)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("profiles")
    with Lan.create("profiles") as lan:
        machine, client = lan.machine("server"), lan.client("client")
        with ImageRegistry(lan.gateway, directory / "registry") as registry:
            yield Place(machine, client, registry, directory, new_key())


@pytest.fixture(scope="module", params=PROFILES)
def site(request: pytest.FixtureRequest, place: Place) -> Site:
    """The profile in place of the one before it."""
    directory = place.directory / request.param
    directory.mkdir()
    data = {
        "ssh_config_file": str(place.machine.ssh_config),
        "preflight_min_memory_gib": 1.0,
        "preflight_min_free_disk_gib": 3.0,
        "docker_insecure_registries": [place.registry.name],
        "gateway_tls": "off",
        "api_clients": [{"name": "test", "sha256": digest(place.key), "scope": "admin"}],
        **({"search_api_ui_port": 3001} if request.param == "search" else {}),
        **profile_data(request.param, place.registry, directory),
    }
    inventory = directory / "inventory.py"
    inventory.write_text(f"servers = [({place.machine.name!r}, {data!r})]\n")
    site = Site(place, request.param, data, inventory)
    assert "Stack | Run the declared services" in site.deploy()
    return site


def test_compose_finds_nothing_wrong_with_the_project(site: Site) -> None:
    file = site.settings.stack.compose_file
    said = site.place.machine.ssh(f"docker compose --file {file} config --quiet")
    assert (said.stdout, said.stderr) == ("", "")


def test_every_service_of_the_profile_is_healthy(site: Site) -> None:
    shown = site.place.machine.ssh("docker ps --format '{{.Names}} {{.Status}}'").stdout
    healthy = {line.split()[0] for line in shown.splitlines() if "(healthy)" in line}
    assert healthy == {f"llmhost-{service}-1" for service in site.settings.services}


def test_every_service_that_people_ask_answers_from_outside(site: Site) -> None:
    asked = {
        service: REQUESTS[service] for service in site.settings.services if service in REQUESTS
    }
    for ask in asked.values():
        ask(site)
    # The others have no port: those that were asked stand on them.
    assert {*site.settings.services} - {*asked} <= {"chroma", "qdrant", "redis"}


def test_rerun_changes_nothing(site: Site) -> None:
    assert site.deploy() == []


def test_server_tests_agree(site: Site, tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text(json.dumps({site.place.machine.name: site.data}))
    outside = " ".join(site.place.client.command([]))
    tests = ["llmhost/checks/services", "llmhost/checks/test_stack.py"]
    options = ["--site", str(tmp_path / "site.json"), "--outside", outside]
    options += ["--records", str(tmp_path / "records")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, *options]
    environment = os.environ | {"LLMHOST_API_KEY": site.place.key}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {"stack", *site.settings.services} <= passed_components(tmp_path / "records")


def test_all_of_it_comes_up_and_answers_without_a_network(site: Site) -> None:
    verified = site.run("llmhost", "verify", str(site.inventory), "--offline")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "no container tried to connect out" in verified.stdout
    assert site.deploy() == []


def ask_ollama(site: Site) -> None:
    generates, embeds = _by_task(site, "ollama", "generate"), _by_task(site, "ollama", "embed")
    for name in generates:
        said = site.through_gateway("ollama", "/api/generate", _prompt(name) | {"stream": False})
        assert said["model"] == name and said["response"]
    for name in embeds:
        body = {"model": name, "input": "One, two, three."}
        assert site.through_gateway("ollama", "/api/embed", body)["embeddings"]


def ask_vllm(site: Site) -> None:
    (name,) = _by_task(site, "vllm", "generate")
    assert site.through_gateway("vllm", "/v1/completions", _prompt(name))["choices"]


def ask_embeddings(site: Site) -> None:
    (name,) = _by_task(site, "embeddings", "embed")
    body = {"model": name, "input": ["one", "two"]}
    assert len(site.through_gateway("embeddings", "/v1/embeddings", body)["data"]) == 2
    for name in _by_task(site, "embeddings", "rerank"):
        body = {"model": name, "query": "one", "documents": ["one", "two"]}
        assert len(site.through_gateway("embeddings", "/v1/rerank", body)["results"]) == 2


def ask_docling(site: Site) -> None:
    content = base64.b64encode(b"# Title\n\nA sentence.\n").decode()
    source = {"kind": "file", "filename": "check.md", "base64_string": content}
    said = site.through_gateway("docling", "/v1/convert/source", {"sources": [source]})
    assert "A sentence." in said["document"]["md_content"]


def ask_search_api(site: Site) -> None:
    """By Qdrant, Redis and the embedding model, or it finds nothing."""
    documents = [{"id": "cat", "text": "a cat sleeps"}, {"id": "gpu", "text": "memory of a card"}]
    added = {"documents": documents}
    site.through_gateway("search_api", "/v1/documents", added, method="PUT")
    said = site.through_gateway("search_api", "/v1/search", {"query": "sleeping cat"})
    assert said["results"][0]["id"] == "cat"
    page = f"http://{site.place.machine.address}:{site.settings.uis['search_api'].ui_port}"
    curl = ["curl", "--silent", "--show-error", "--max-time", "20"]
    assert "<title>Search</title>" in site.place.client.run([*curl, f"{page}/"]).stdout
    for path in ("/v1/search", "/v1/collections", "/metrics"):
        refused = site.place.client.run([*curl, "--data", '{"query": "cat"}', f"{page}{path}"])
        assert json.loads(refused.stdout)["error"]["code"] == "key_missing"
    kept = "docker exec llmhost-redis-1 redis-cli --scan --pattern 'search:documents:*'"
    assert site.place.machine.ssh(kept).stdout.strip()


def ask_open_webui(site: Site) -> None:
    """As a browser does it: log in, see the engine's model, talk to it."""
    options = site.settings.options("open_webui").model_dump()
    base = f"http://{site.place.machine.address}:{options['ui_port']}"
    password = Path(options["admin_password"].removeprefix("file:")).read_text()
    login = {"email": options["admin_email"], "password": password}
    user = site.ask(f"{base}/api/v1/auths/signin", login)
    assert user["role"] == "admin"
    token = ("--header", f"Authorization: Bearer {user['token']}")
    (name,) = _by_task(site, "vllm", "generate")
    models = site.ask(f"{base}/api/models", None, *token)
    assert name in [model["id"] for model in models["data"]]
    messages = [{"role": "user", "content": "Say anything."}]
    body = {"model": name, "messages": messages, "stream": False}
    assert site.ask(f"{base}/api/chat/completions", body, *token)["choices"]


def ask_backend(site: Site) -> None:
    said = site.through_gateway("backend", "/ask")
    assert set(said) == {"ollama", "docling", "chroma"}


def _prompt(model: str) -> dict[str, Any]:
    return {"model": model, "prompt": "One, two,", "max_tokens": 4}


def _by_task(site: Site, service: str, task: str) -> list[str]:
    return [model.name for model in site.settings.models_of(service) if model.task == task]


REQUESTS: dict[str, Callable[[Site], None]] = {
    "ollama": ask_ollama,
    "vllm": ask_vllm,
    "embeddings": ask_embeddings,
    "docling": ask_docling,
    "search_api": ask_search_api,
    "open_webui": ask_open_webui,
    "backend": ask_backend,
}
