"""Services that need no GPU, and a site's own app, under the real Docker.

Redis and Chroma are the real servers; Qdrant, docling and the embedding model are doubles. The
tests go through the file in order, on one machine.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from llmhost.sbom.host import read_command
from llmhost.settings import Settings
from llmhost.stack.project import compose_project
from llmhost.tasks.healing import heal_containers
from llmhost.tasks.stack import run_stack
from testbed import Lan, Machine
from testbed.stores import push_stores
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.harness import converge, deploy
from tests.integration.test_compose import run_project

pytestmark = pytest.mark.machines
ROOT = Path(__file__).parents[2]

NOTES = """\
import http.server, os, pathlib, signal, sys, urllib.request
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
volume = pathlib.Path("/srv/notes")
class Notes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            well = not pathlib.Path("/tmp/sick").exists()
            self.send_response(200 if well else 503)
            self.end_headers()
            return
        (volume / "note").touch()
        said = [os.environ["TOKEN"], os.environ["PLAIN"], *sorted(os.listdir(volume))]
        said.append(urllib.request.urlopen("http://qdrant:6333/readyz").status)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(" ".join(map(str, said)).encode())
http.server.HTTPServer(("", 8000), Notes).serve_forever()
"""
MODEL = "maker/small-ONNX"
HEALTH = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"


@dataclass(frozen=True)
class Site:
    """The machine, and what is declared for it."""

    docker: DockerSite
    data: dict[str, Any]

    @property
    def machine(self) -> Machine:
        return self.docker.machine

    @property
    def settings(self) -> Settings:
        return read_settings(self.data)

    def ask(self, method: str, url: str, body: Any = None) -> tuple[int, str]:
        """Status and answer of a request from the machine itself."""
        curl = f"curl -sS -i -X {method} -H 'Content-Type: application/json' --data @- {url}"
        sent = json.dumps(body) if body is not None else ""
        head, _, answer = (
            self.machine.ssh(curl, input=sent).stdout.replace("\r", "").partition("\n\n")
        )
        return int(head.split()[1]), answer

    def within(self, service: str, command: str) -> str:
        return self.machine.ssh(f"docker exec llmhost-{service}-1 {command}").stdout.strip()


@pytest.fixture(scope="module")
def site(lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with docker_site(lan, machine, directory) as docker, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMHOST_TEST_TOKEN", "pa$$word # {x}")
        yield Site(docker, _inventory(push_stores(docker.registry), directory))
        docker.forget_images()
        machine.ssh("docker volume ls -q | grep ^llmhost_ | xargs -r docker volume rm")


def _inventory(image: str, directory: Path) -> dict[str, Any]:
    services = ("redis", "chroma", "qdrant", "docling", "search_api")
    return {
        "services": [*services],
        **{f"{service}_image": image for service in services},
        "redis_persistent": True,
        "chroma_port": 8001,
        # What a machine inside a machine allows.
        "chroma_open_files": 4096,
        "qdrant_open_files": 4096,
        "search_api_embeddings_url": "http://embeddings-double:8080/v1",
        "apps": [
            {
                "name": "embeddings-double",
                "context": str(_context(directory / "embeddings", image, "embeddings.py 8080")),
                "container_port": 8080,
                "health": ["python3", "-c", HEALTH.replace("8000", "8080")],
            },
            {
                "name": "notes",
                "context": str(_context(directory / "notes", image, "notes.py", NOTES)),
                "container_port": 8000,
                "port": 8002,
                "health": ["python3", "-c", HEALTH],
                "environment": {"PLAIN": "a $b"},
                "secrets": {"TOKEN": "env:LLMHOST_TEST_TOKEN"},
                "volumes": {"data": "/srv/notes"},
                "needs": ["qdrant"],
                "build_args": {"HF_EMBEDDING_MODEL_ID": MODEL},
            },
        ],
        "models": [
            {"name": "embedder", "service": "notes", "task": "embed"}
            | _repository(directory / MODEL)
        ],
        "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    }


def _repository(place: Path) -> dict[str, Any]:
    """A directory as of a repository with an ONNX file."""
    (place / "onnx").mkdir(parents=True)
    texts = {"config.json": "{}", "onnx/model_quantized.onnx": "weights"}
    for path, text in texts.items():
        (place / path).write_text(text)
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    files = [{"path": path, "sha256": digest} for path, digest in digests.items()]
    return {"source": str(place), "files": files}


def _context(directory: Path, image: str, command: str, program: str = "") -> Path:
    directory.mkdir()
    lines = [
        f"FROM {image}",
        "ARG HF_EMBEDDING_MODEL_ID",
        "RUN echo $HF_EMBEDDING_MODEL_ID >/argument",
    ]
    lines += ["USER 10001:10001", "WORKDIR /srv/notes", "WORKDIR /usr/lib/doubles"]
    if program:
        (directory / "notes.py").write_text(program)
        lines.append("COPY notes.py .")
    words = json.dumps(["python3", "-u", *command.split()])
    (directory / "Dockerfile").write_text("\n".join([*lines, f"ENTRYPOINT {words}", ""]))
    return directory


def test_all_come_up_healthy_and_a_rerun_changes_nothing(site: Site) -> None:
    converge(site.machine, run_stack, site.settings)
    listed = site.machine.ssh("docker ps --format '{{.Names}} {{.Status}}'").stdout.splitlines()
    assert len(listed) == 7 and all("(healthy)" in line for line in listed)


def test_models_of_an_app_are_in_its_image_where_libraries_look(site: Site) -> None:
    cache, file = "/opt/hf-cache", "onnx/model_quantized.onnx"
    revision = site.within("notes", f"cat {cache}/hub/models--maker--small-ONNX/refs/main")
    places = [f"{MODEL}/{file}", f"transformers/{MODEL}/{file}"]
    places.append(f"hub/models--maker--small-ONNX/snapshots/{revision}/{file}")
    places.append(f"models--maker--small-ONNX/snapshots/{revision}/{file}")
    paths = " ".join(f"{cache}/{place}" for place in places)
    assert site.within("notes", f"cat {paths}") == "weights" * len(places)
    assert site.within("notes", "printenv HF_HOME HF_HUB_OFFLINE").split() == [cache, "1"]
    assert site.within("notes", "cat /argument") == MODEL
    assert site.within("notes", "id -u") == "10001"


def packages(site: Site, service: str) -> set[tuple[str, str, str]]:
    """What `llmhost sbom` reads of a container."""
    command = read_command(SiteHost("server", site.settings))
    found = json.loads(site.machine.ssh(command).stdout)
    assert found["errors"] == {}
    (container,) = [each for each in found["containers"] if each["service"] == service]
    return {(each["kind"], each["name"], each["version"]) for each in container["packages"]}


def test_sbom_has_the_packages_that_a_container_itself_lists(site: Site) -> None:
    program = (
        "import importlib.metadata as m;"
        "print(*{f'{d.name}={d.version}' for d in m.distributions()}, sep='\\n')"
    )
    listed = site.within("search_api", f"python3 -c {shlex.quote(program)}").splitlines()
    found = packages(site, "search_api")
    python = {f"{name}={version}" for kind, name, version in found if kind == "pypi"}
    assert {*listed} <= python and "fastapi" in {each.partition("=")[0] for each in listed}
    # Of a container that does not run, an export is read.
    running = packages(site, "redis")
    site.machine.ssh("docker stop llmhost-redis-1")
    try:
        assert packages(site, "redis") == running != set()
    finally:
        site.machine.ssh("docker start llmhost-redis-1")
        healthy = "docker inspect -f '{{.State.Health.Status}}' llmhost-redis-1 | grep -qx healthy"
        site.machine.ssh(f'timeout 60 sh -c "until {healthy}; do sleep 1; done"')


def test_image_with_musl_is_refused_after_its_build(site: Site, tmp_path: Path) -> None:
    (notes,) = [app for app in site.data["apps"] if app["name"] == "notes"]
    shutil.copytree(notes["context"], tmp_path / "musl")
    with (tmp_path / "musl/Dockerfile").open("a") as file:
        file.write("USER 0:0\nRUN touch /lib/ld-musl-$(uname -m).so.1\nUSER 10001:10001\n")
    others = [app for app in site.data["apps"] if app["name"] != "notes"]
    changed = {**site.data, "apps": [*others, {**notes, "context": str(tmp_path / "musl")}]}
    outcome = deploy(site.machine, run_stack, read_settings(changed))
    assert not outcome.succeeded and "the image of notes has musl (Alpine)" in outcome.output


def test_only_declared_ports_are_open_and_only_on_the_loopback(site: Site) -> None:
    ports = site.machine.ssh("docker ps --format '{{.Ports}}'").stdout
    published = {word.split("->")[0] for word in ports.split() if "->" in word}
    assert published == {f"127.0.0.1:{port}" for port in (5001, 8001, 8002, 8090)}


def test_documents_are_found_through_the_whole_chain(site: Site) -> None:
    base = "http://127.0.0.1:8090/v1"
    documents = [
        {"id": "cat", "text": "The cat sleeps on the sofa"},
        {"id": "gpu", "text": "A GPU has memory"},
    ]
    assert site.ask("PUT", f"{base}/documents", {"documents": documents})[0] == 204
    status, answer = site.ask("POST", f"{base}/search", {"query": "sleeping cat"})
    assert status == 200 and json.loads(answer)["results"][0]["id"] == "cat"
    kept = site.within("redis", "redis-cli --scan --pattern 'search:documents:*'")
    assert len(kept.splitlines()) == 2  # the answer, and which state of the documents it is of


def test_app_has_its_environment_its_volume_and_the_network(site: Site) -> None:
    assert site.ask("GET", "http://127.0.0.1:8002/") == (200, "pa$$word # {x} a $b note 200")
    file = site.machine.ssh("stat -c '%a %U' /opt/llmhost/services/notes.yaml").stdout
    assert file.strip() == "600 root"


def test_data_outlives_the_containers(site: Site) -> None:
    database = "http://127.0.0.1:8001/api/v2/tenants/default_tenant/databases/default_database"
    assert site.ask("POST", f"{database}/collections", {"name": "kept"})[0] == 200
    site.within("redis", "redis-cli set kept yes")
    site.machine.ssh("docker rm -f llmhost-redis-1 llmhost-chroma-1 llmhost-notes-1")
    converge(site.machine, run_stack, site.settings)
    _, collections = site.ask("GET", f"{database}/collections")
    assert [each["name"] for each in json.loads(collections)] == ["kept"]
    assert site.within("redis", "redis-cli get kept") == "yes"
    assert site.within("notes", "ls /srv/notes") == "note"


def test_changed_secret_reaches_its_app(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMHOST_TEST_TOKEN", "rotated")
    outcome = converge(site.machine, run_stack, site.settings)
    assert "rotated" not in outcome.output
    assert site.ask("GET", "http://127.0.0.1:8002/")[1].startswith("rotated ")
    monkeypatch.undo()
    assert deploy(site.machine, run_stack, site.settings).succeeded


def test_server_tests_agree(site: Site, lan: Lan, tmp_path: Path) -> None:
    converge(site.machine, heal_containers, site.settings)
    (tmp_path / "site.json").write_text(
        json.dumps(
            {site.machine.name: site.data | {"ssh_config_file": str(site.machine.ssh_config)}}
        )
    )
    tests = [f"llmhost/checks/{name}" for name in ("services", "test_stack.py", "test_healing.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    command += ["--site", str(tmp_path / "site.json")]
    said = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "passed" in said.stdout


def test_unhealthy_container_is_restarted_by_the_timers_service(site: Site) -> None:
    """Its check is made to look every second, so that the test need not wait for minutes."""
    project = compose_project(site.settings)
    quick = project.services["notes"].replace("interval: 30s", "interval: 1s")
    services = {**project.services, "notes": quick}
    assert deploy(site.machine, run_project, replace(project, services=services)).succeeded
    converge(site.machine, heal_containers, site.settings)
    started = _started(site)
    # Restarted, it is well again: what made it sick is in memory.
    site.within("notes", "touch /tmp/sick")
    _wait_for(site, "unhealthy")
    site.machine.ssh("systemctl start llmhost-heal.service")
    _wait_for(site, "healthy")
    assert _started(site) != started
    journal = site.machine.ssh("journalctl -u llmhost-heal.service -o cat").stdout
    assert "llmhost-notes-1 is unhealthy: restarting it; its health check printed: " in journal
    others = site.machine.ssh("docker ps --format '{{.Names}} {{.Status}}'").stdout
    assert others.count("(healthy)") == 7


def test_healing_ends_when_it_is_declared_off(site: Site) -> None:
    settings = read_settings(site.data | {"healing_enabled": False})
    converge(site.machine, heal_containers, settings)
    left = "systemctl is-active llmhost-heal.timer; ls /etc/systemd/system/llmhost-heal.*"
    assert site.machine.ssh(left, check=False).stdout.split() == ["inactive"]


def _started(site: Site) -> str:
    return site.machine.ssh("docker inspect -f '{{.State.StartedAt}}' llmhost-notes-1").stdout


def _wait_for(site: Site, health: str) -> None:
    for _ in range(120):
        inspected = "docker inspect -f '{{.State.Health.Status}}' llmhost-notes-1"
        if site.machine.ssh(inspected).stdout.strip() == health:
            return
        time.sleep(0.5)
    raise AssertionError(f"the app did not become {health}")
