"""System A, whole: a document with invented facts is uploaded, and questions about it are answered,
with and without a network, by services that a deploy of the inventory brings up.

docling is a double; everything else is real: testbed/rag.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.inventory.reader import read_settings
from testbed import Client, Lan, Machine
from testbed.image_registry import ImageRegistry
from testbed.rag import rag_data
from tests.integration.rag_document import PARAGRAPHS, QUESTIONS, docx

pytestmark = [pytest.mark.machines, pytest.mark.rag]
ROOT = Path(__file__).parents[2]
UPLOAD = {"filename": "travels.docx", "base64": base64.b64encode(docx()).decode()}


@dataclass(frozen=True)
class Site:
    """The machine that the inventory declares, and a client on its LAN."""

    machine: Machine
    client: Client
    data: dict[str, Any]
    inventory: Path
    key: str

    def deploy(self, **changes: Any) -> None:
        servers = [(self.machine.name, self.data | changes)]
        self.inventory.write_text(f"servers = {servers!r}\n")
        program = str(Path(sys.executable).with_name("pyinfra"))
        command = [program, str(self.inventory), "deploy.py", "-y"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def call(self, path: str, *options: str, body: object = None) -> str:
        """The answer to a request through the gateway; it has to be a good one."""
        url = read_settings(self.data).gateway.url(self.machine.address) + path
        curl = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "900"]
        curl += ["--header", f"Authorization: Bearer {self.key}", *options]
        if body is not None:
            curl += ["--header", "Content-Type: application/json", "--data-binary", "@-"]
        sent = None if body is None else json.dumps(body)
        answer = self.client.run([*curl, url], input=sent, timeout=910, check=False)
        assert answer.returncode == 0, f"{path}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    def upload(self) -> None:
        stored = json.loads(self.call("/backend/documents", body=UPLOAD))
        assert stored == {"chunks": len(PARAGRAPHS)}

    def ask_everything(self) -> None:
        """The right passage is the first, and the fact is in the answer."""
        for question in QUESTIONS:
            found = json.loads(self.call("/backend/ask", body={"question": question.text}))
            assert found["chunks"][0] == PARAGRAPHS[question.paragraph]
            assert question.fact in found["answer"], found["answer"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("rag")
    key = new_key()
    with Lan.create("rag") as lan:
        machine, client = lan.machine("server"), lan.client("client")
        with ImageRegistry(lan.gateway, directory / "registry") as registry:
            data = {
                "ssh_config_file": str(machine.ssh_config),
                "preflight_min_memory_gib": 1.0,
                "preflight_min_free_disk_gib": 3.0,
                "docker_insecure_registries": [registry.name],
                "gateway_tls": "off",
                "gateway_read_timeout_seconds": 900,
                "api_clients": [{"name": "test", "sha256": digest(key), "scope": "admin"}],
                **rag_data(registry, directory),
            }
            site = Site(machine, client, data, directory / "inventory.py", key)
            site.deploy()
            yield site


def test_page_asks_the_backend(site: Site) -> None:
    page = site.call("/web/")
    assert "<title>Ask a document</title>" in page and "/backend/" in page


def test_document_is_converted_by_an_asynchronous_request(site: Site) -> None:
    source = {"kind": "file", "filename": "travels.docx", "base64_string": UPLOAD["base64"]}
    started = site.call("/docling/v1/convert/source/async", body={"sources": [source]})
    task = json.loads(started)["task_id"]
    polled = json.loads(site.call(f"/docling/v1/status/poll/{task}"))
    assert polled["task_status"] == "success"
    document = json.loads(site.call(f"/docling/v1/result/{task}"))["document"]
    assert "Ottilie Brandt" in document["md_content"]


def test_questions_about_an_uploaded_document_are_answered(site: Site) -> None:
    site.upload()
    site.ask_everything()


def test_recreated_without_a_network_it_answers_again(site: Site) -> None:
    compose = f"docker compose --file {read_settings(site.data).stack.compose_file}"
    (route,) = site.machine.ssh("ip route show default").stdout.splitlines()
    site.machine.ssh("ip route del default")
    try:
        assert site.machine.ssh("curl -m 5 http://192.0.2.1", check=False).returncode == 7
        site.machine.ssh(f"{compose} up --detach --force-recreate --wait", timeout=900)
        site.ask_everything()  # from the volume
        site.upload()
    finally:
        site.machine.ssh(f"ip route add {route}")


def test_without_the_tokenizer_of_docling_it_fails(site: Site) -> None:
    site.deploy(models=[each for each in site.data["models"] if each["name"] != "chunking"])
    with pytest.raises(AssertionError, match="docling found no text in the document"):
        site.upload()
