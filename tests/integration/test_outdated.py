"""`llmhost outdated` asks a real registry, pip's index, apt of this machine, and a double of a hub.

The registry is Debian's, the index is read by pip, and the host is this machine.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from testbed.image_registry import ImageRegistry
from tests.doubles.hub import COMMIT, Hub, hub
from tests.unit.test_announce import web_server

pytestmark = pytest.mark.machines
ROOT = Path(__file__).parents[2]
LLMHOST = Path(sys.executable).with_name("llmhost")
WEIGHTS = b"GGUF: as weights"
FILE = "maker/model/m.gguf"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ImageRegistry]:
    # Another address of the loopback than those of other tests: the port is always the same.
    with ImageRegistry(f"127.0.{os.getpid() % 250}.7", tmp_path / "registry") as found:
        yield found


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index by PEP 503 with two releases of llmhost."""
    page = tmp_path / "simple/llmhost/index.html"
    page.parent.mkdir(parents=True)
    names = [f"llmhost-{version}-py3-none-any.whl" for version in ("0.2.0", "9.1.0", "9.2.0rc1")]
    page.write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names))
    handler = partial(Quiet, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def models() -> Iterator[Hub]:
    with hub() as served:
        served.files = {FILE: WEIGHTS}
        served.large = {FILE}
        yield served


def site(directory: Path, image: str, registry: str, models: Hub, sha256: str) -> Path:
    model = {"name": "m", "source": f"hf:{FILE}", "revision": "c" * 40, "sha256": sha256}
    data = {
        "services": ["llamacpp"],
        "llamacpp_image": image,
        "docker_insecure_registries": [registry],
        "stack_huggingface_url": models.url,
        "models": [model],
        "api_clients": [],
    }
    path = directory / "site.py"
    path.write_text(f"llm_servers = ([('@local', {{}})], {data!r})\n")
    return path


def ask(inventory: Path, index: str, *options: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PIP_INDEX_URL": index, "PIP_CONFIG_FILE": "/dev/null"}
    environment = {key: each for key, each in environment.items() if key != "PIP_FIND_LINKS"}
    command = [str(LLMHOST), "outdated", str(inventory), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def archive(directory: Path, text: str) -> Path:
    (directory / "file").write_text(text)
    tar = directory / f"{text}.tar"
    subprocess.run(["tar", "-cf", str(tar), "-C", str(directory), "file"], check=True)
    return tar


def packages(found: dict[str, Any]) -> list[str]:
    return [each["kind"] for each in found["outdated"] if each["kind"] in ("docker", "driver")]


def test_newer_versions_are_found_with_what_they_change(
    tmp_path: Path, registry: ImageRegistry, index: str, models: Hub
) -> None:
    image = registry.push("engines/llama", "server-b100", archive(tmp_path, "old"))
    registry.push("engines/llama", "server-b99", archive(tmp_path, "older"))
    inventory = site(tmp_path, image, registry.name, models, "d" * 64)
    registry.push("engines/llama", "server-b101", archive(tmp_path, "new"))
    ran = ask(inventory, index, "--json")
    assert (ran.returncode, ran.stderr) == (2, "")
    found = json.loads(ran.stdout)
    described = json.loads((ROOT / "docs/outdated.schema.json").read_text())
    jsonschema_rs.validator_for(described).validate(found)
    by_kind = {each["kind"]: each for each in found["outdated"]}
    assert by_kind["llmhost"]["latest"] == "9.1.0"
    engine, model = by_kind["engine"], by_kind["model"]
    assert (engine["current"], engine["latest"]) == ("server-b100", "server-b101")
    assert engine["update"].startswith("set llamacpp_image")
    assert engine["changes"][0].startswith("@local: Stack | Bake") and engine["hosts"] == ["@local"]
    assert (model["current"], model["latest"]) == ("c" * 12, COMMIT[:12])
    assert found["unreachable"] == {}
    table = ask(inventory, index)
    assert table.returncode == 2 and "server-b101" in table.stdout


def test_report_is_announced(
    tmp_path: Path, registry: ImageRegistry, index: str, models: Hub
) -> None:
    image = registry.push("engines/llama", "server-b100", archive(tmp_path, "old"))
    registry.push("engines/llama", "server-b101", archive(tmp_path, "new"))
    inventory = site(tmp_path, image, registry.name, models, "d" * 64)
    nobody = ask(inventory, index, "--announce")
    assert nobody.returncode == 1 and "declares no announce_webhook" in nobody.stderr
    with web_server() as inbox:
        hook = f"{{'announce_webhook': 'http://127.0.0.1:{inbox.port}/', "
        inventory.write_text(inventory.read_text().replace("{'services'", f"{hook}'services'"))
        assert ask(inventory, index, "--announce").returncode == 2
    [(_, _, body)] = inbox.requests
    assert body["event"] == "outdated" and "server-b100 → server-b101" in body["text"]


def test_tag_that_was_built_again_is_outdated_and_current_pins_are_not(
    tmp_path: Path, registry: ImageRegistry, index: str, models: Hub
) -> None:
    image = registry.push("engines/llama", "server-b100", archive(tmp_path, "old"))
    inventory = site(tmp_path, image, registry.name, models, hashlib.sha256(WEIGHTS).hexdigest())
    page = tmp_path / "simple/llmhost/index.html"
    page.unlink()
    page.parent.rmdir()
    ran = ask(inventory, index, "--json")
    found = json.loads(ran.stdout)
    # apt of this machine may have newer packages of Docker.
    assert [each["kind"] for each in found["outdated"]] == packages(found), ran.stderr
    assert ran.returncode == (2 if found["outdated"] else 0)
    assert "the index of Python packages has no release of llmhost" in found["notes"]
    registry.push("engines/llama", "server-b100", archive(tmp_path, "rebuilt"))
    again = json.loads(ask(inventory, index, "--json").stdout)
    [engine] = [each for each in again["outdated"] if each["kind"] == "engine"]
    assert engine["latest"] == "server-b100, built again"


def test_each_source_that_cannot_be_reached_is_named(tmp_path: Path, models: Hub) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
    models.url = f"http://{closed}"
    inventory = site(tmp_path, f"{closed}/a/b:v1@sha256:{'a' * 64}", closed, models, "d" * 64)
    ran = ask(inventory, f"http://{closed}/simple", "--json")
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    found = json.loads(ran.stdout)
    assert {*found["unreachable"]} == {closed, f"hf:{FILE}", "the index of Python packages"}
    assert len(ran.stderr.splitlines()) == 3
    assert all("its updates are unknown" in line for line in ran.stderr.splitlines())
