"""What docling-serve answers with the environment that llmhost gives it, and its double as well.

For a real one, set LLMHOST_CONTRACT_DOCLING to the URL of one with the profile's models, and
LLMHOST_CONTRACT_DOCLING_BARE to that of one without.
"""

import base64
import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llmhost.cli.offline import answers
from llmhost.cli.remote import Remote
from llmhost.inventory.reader import read_settings
from llmhost.services.base import Request
from llmhost.services.docling import FORMULAS, SERVICE, TOKENIZER
from llmhost.services.documents import SENTENCE, sample_pdf
from llmhost.stack.project import compose_project
from tests.integration.local_gateway import free_ports
from tests.integration.rag_document import PARAGRAPHS, docx
from tests.unit.profile_sites import locked_profile

ROOT = Path(__file__).parents[2]
REAL = "LLMHOST_CONTRACT_DOCLING"
HERE = Remote("this machine", ("sh", "-c"))
TEXT = "# Title\n\nA sentence\nwith a_name.\n"


@dataclass
class Converter:
    url: str

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=300)

    def upload(self, path: str, name: str, data: bytes, **form: str) -> httpx.Response:
        return httpx.post(self.url + path, files={"files": (name, data)}, data=form, timeout=300)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)


def place_models(home: Path) -> dict[str, str]:
    """Directories with the names of the models that the profile declares, and where they are."""
    revision, folder = "12" * 20, f"models--{TOKENIZER.replace('/', '--')}"
    cached = home / "hub" / folder
    (cached / "snapshots" / revision).mkdir(parents=True)
    (cached / "snapshots" / revision / "sentence_bert_config.json").touch()
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(revision)
    (home / "artifacts" / FORMULAS.replace("/", "--")).mkdir(parents=True)
    (home / "artifacts/HuggingFaceTB--SmolVLM-256M-Instruct").mkdir()
    return {
        "HF_HUB_CACHE": str(home / "hub"),
        "DOCLING_SERVE_ARTIFACTS_PATH": str(home / "artifacts"),
    }


def environment(home: Path, port: int) -> dict[str, str]:
    """As in the Compose file, on a port of this machine."""
    (home / "site").mkdir()
    settings = read_settings(locked_profile("rag-offline", home / "site"))
    text = compose_project(settings).services["docling"]
    declared: dict[str, str] = yaml.safe_load(text)["services"]["docling"]["environment"]
    ours = {"UVICORN_PORT": str(port), "UVICORN_HOST": "127.0.0.1", "PATH": os.environ["PATH"]}
    return {**declared, **ours, "HOME": str(home)}


@pytest.fixture(scope="module")
def docling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converter]:
    """With the models of the profile rag-offline."""
    if real := os.environ.get(REAL):
        yield Converter(real)
        return
    home = tmp_path_factory.mktemp("double")
    with double(home, place_models(home)) as found:
        yield found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converter]:
    """With the models of its image alone."""
    if real := os.environ.get(f"{REAL}_BARE"):
        yield Converter(real)
        return
    home = tmp_path_factory.mktemp("bare")
    nothing = str(home / "empty")
    places = {"HF_HUB_CACHE": nothing, "DOCLING_SERVE_ARTIFACTS_PATH": nothing}
    with double(home, places) as found:
        yield found


@contextmanager
def double(home: Path, places: dict[str, str]) -> Iterator[Converter]:
    (port,) = free_ports(1)
    given = {**environment(home, port), **places, "DOCLING_SERVE_SYNC_POLL_INTERVAL": "0"}
    program = [sys.executable, str(ROOT / "tests/doubles/docling.py"), str(port)]
    process = subprocess.Popen(program, env=given, cwd=home)
    try:
        found = Converter(f"http://127.0.0.1:{port}")
        _wait(process, found)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: "subprocess.Popen[bytes]", converter: Converter) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            if converter.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("docling-serve did not become ready")


def source(name: str, data: bytes) -> dict[str, str]:
    return {"kind": "file", "filename": name, "base64_string": base64.b64encode(data).decode()}


def test_requests_of_the_offline_check_are_answered(docling: Converter, tmp_path: Path) -> None:
    models = read_settings(locked_profile("rag-offline", tmp_path)).models_of("docling")
    conversion, chunks = SERVICE.requests(models)
    assert conversion.body and conversion.body["options"] == {
        "do_formula_enrichment": True,
        "do_picture_description": True,
    }
    assert chunks.path == "/v1/chunk/hybrid/source"
    for request in (conversion, chunks):
        answer = docling.post(request.path, request.body)
        assert answer.status_code == 200 and request.expects in answer.text
        port = int(docling.url.rpartition(":")[2])
        assert answers("docling", request, port, 300, HERE)


def test_health_readiness_and_version(docling: Converter) -> None:
    assert docling.get("/health").json() == docling.get("/ready").json() == {"status": "ok"}
    assert "docling-serve" in docling.get("/version").json()


def test_upload_is_converted_and_its_text_rewritten(docling: Converter) -> None:
    answer = docling.upload("/v1/convert/file", "a.md", TEXT.encode())
    body = answer.json()
    assert (answer.status_code, body["status"], body["errors"]) == (200, "success", [])
    assert body["document"]["filename"] == "a.md"
    assert body["document"]["md_content"] == "# Title\n\nA sentence with a\\_name."


FORMATS = ("md", "json", "html", "text", "doctags", "doclang")
CHAPTERS = "# One\n\nFirst paragraph.\n\nSecond one.\n\n## Two\n\nThird.\n\n# Three\n\nFourth.\n"


def test_result_has_a_place_for_each_format(docling: Converter) -> None:
    body = docling.post("/v1/convert/source", {"sources": [source("a.md", TEXT.encode())]}).json()
    parts = {"document", "status", "errors", "processing_time", "timings", "confidence"}
    assert body.keys() == parts
    document = body["document"]
    assert document.keys() == {"filename", *(f"{name}_content" for name in FORMATS)}
    assert {key for key, value in document.items() if value} == {"filename", "md_content"}
    assert body["confidence"].keys() == {
        *(f"{name}_score" for name in ("parse", "layout", "table", "ocr", "mean", "low")),
        *("mean_grade", "low_grade"),
    }


def test_several_documents_come_as_an_archive(docling: Converter) -> None:
    files = [source("a.md", b"One"), source("b.md", b"Two")]
    answer = docling.post("/v1/convert/source", {"sources": files})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a.md": b"One",
            "b.md": b"Two",
        }


def test_upload_of_a_pdf_is_converted(docling: Converter) -> None:
    answer = docling.upload("/v1/convert/file", "a.pdf", sample_pdf(), to_formats="md")
    assert SENTENCE in answer.json()["document"]["md_content"]


def test_upload_of_a_word_document_is_converted(docling: Converter) -> None:
    answer = docling.upload("/v1/convert/file", "travels.docx", docx())
    text = answer.json()["document"]["md_content"]
    assert all(paragraph in text for paragraph in PARAGRAPHS)


def test_unknown_paths_and_methods_are_refused(docling: Converter) -> None:
    answers = [docling.get("/v1/nothing"), docling.get("/v1/convert/file")]
    assert [answer.status_code for answer in answers] == [404, 405]
    texts = [answer.json() for answer in answers]
    assert texts == [{"detail": "Not Found"}, {"detail": "Method Not Allowed"}]


@pytest.mark.parametrize("chunker", ["hybrid", "hierarchical"])
def test_chunks_hold_the_text(docling: Converter, chunker: str) -> None:
    for answer in (
        docling.upload(f"/v1/chunk/{chunker}/file", "a.md", TEXT.encode()),
        docling.post(f"/v1/chunk/{chunker}/source", {"sources": [source("a.md", TEXT.encode())]}),
    ):
        chunks = answer.json()["chunks"]
        assert any("A sentence" in chunk["text"] for chunk in chunks)
        assert [chunk["chunk_index"] for chunk in chunks] == [*range(len(chunks))]


def test_hybrid_chunker_joins_paragraphs_below_the_same_headings(docling: Converter) -> None:
    asked = {"sources": [source("a.md", CHAPTERS.encode())]}
    joined = docling.post("/v1/chunk/hybrid/source", asked).json()["chunks"]
    assert [(each["text"], each["headings"], each["num_tokens"]) for each in joined] == [
        ("One\nFirst paragraph.\nSecond one.", ["One"], 7),
        ("One\nTwo\nThird.", ["One", "Two"], 4),
        ("Three\nFourth.", ["Three"], 3),
    ]
    body = docling.post("/v1/chunk/hierarchical/source", asked).json()
    assert [(each["text"], each["num_tokens"]) for each in body["chunks"]] == [
        ("One\nFirst paragraph.", None),
        ("One\nSecond one.", None),
        ("One\nTwo\nThird.", None),
        ("Three\nFourth.", None),
    ]
    (exported,) = body["documents"]
    assert (exported["kind"], exported["status"]) == ("ExportResult", "success")
    assert exported["content"]["filename"] == "a.md" and not exported["content"]["md_content"]


def test_document_of_system_a_has_a_chunk_for_each_paragraph(docling: Converter) -> None:
    """The test of system A (tests/integration/test_rag.py) rests on the double for this."""
    body = docling.post("/v1/chunk/hybrid/source", {"sources": [source("travels.docx", docx())]})
    assert [chunk["text"] for chunk in body.json()["chunks"]] == list(PARAGRAPHS)


@pytest.mark.parametrize("task", ["convert", "chunk/hybrid", "chunk/hierarchical"])
def test_task_is_started_polled_and_fetched(docling: Converter, task: str) -> None:
    for started in (
        docling.upload(f"/v1/{task}/file/async", "a.md", TEXT.encode()),
        docling.post(f"/v1/{task}/source/async", {"sources": [source("a.md", TEXT.encode())]}),
    ):
        begun = started.json()
        assert started.status_code == 200 and begun["task_status"] in ("pending", "started")
        assert begun["task_type"] == task.partition("/")[0]
        poll = f"/v1/status/poll/{begun['task_id']}"
        deadline = time.monotonic() + 60
        while docling.get(poll).json()["task_status"] not in ("success", "failure"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        result = docling.get(f"/v1/result/{begun['task_id']}")
        assert result.status_code == 200 and "A sentence" in result.text


def test_unknown_task_is_not_found(docling: Converter) -> None:
    for path in ("/v1/status/poll/nothing", "/v1/result/nothing"):
        answer = docling.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Task not found."})


def test_unknown_format_is_skipped(docling: Converter) -> None:
    body = docling.post("/v1/convert/source", {"sources": [source("a.bin", b"\x00\x01")]}).json()
    assert body["status"] == "skipped"
    assert body["document"]["md_content"] is None


def test_bad_bodies_are_unprocessable(docling: Converter) -> None:
    url = docling.url + "/v1/convert/source"
    head = {"Content-Type": "application/json"}
    answers = [
        httpx.post(url, content=b"{", headers=head),
        docling.post("/v1/convert/source", {}),
        docling.post("/v1/convert/source", {"sources": []}),
        docling.post("/v1/convert/source", {"sources": [{"kind": "nothing"}]}),
        docling.post("/v1/convert/file", {}),
    ]
    assert [answer.status_code for answer in answers] == [422] * 5
    (told,) = zip(*(answer.json()["detail"] for answer in answers), strict=True)
    kinds = "Input tag 'nothing' found using 'kind' does not match any of the expected tags:"
    empty = "List should have at least 1 item after validation, not 0"
    assert [(each["type"], each["loc"], each["msg"]) for each in told] == [
        ("json_invalid", ["body", 1], "JSON decode error"),
        ("missing", ["body", "sources"], "Field required"),
        ("too_short", ["body", "sources"], empty),
        ("union_tag_invalid", ["body", "sources", 0], f"{kinds} 'file', 'http'"),
        ("missing", ["body", "files"], "Field required"),
    ]


def test_url_of_the_host_itself_is_not_fetched(docling: Converter) -> None:
    url = "http://127.0.0.1:1/a.pdf"
    body = {"sources": [{"kind": "http", "url": url}]}
    answer = docling.post("/v1/convert/source", body)
    assert (answer.status_code, answer.json()["status"]) == (200, "failure")
    (error,) = answer.json()["errors"]
    assert error["error_message"] == f"URL is not allowed: {url}"
    assert answer.json()["document"]["md_content"] is None


def test_without_its_models_it_fails_and_is_healthy(bare: Converter, tmp_path: Path) -> None:
    models = read_settings(locked_profile("rag-offline", tmp_path)).models_of("docling")
    conversion, chunks = SERVICE.requests(models)
    assert bare.post(conversion.path, conversion.body).status_code == 404
    answer = bare.post(chunks.path, chunks.body)
    assert answer.json()["chunks"] == [] and chunks.expects not in answer.text
    health, port = Request("/health"), int(bare.url.rpartition(":")[2])
    passed = [answers("docling", each, port, 60, HERE) for each in (conversion, chunks, health)]
    assert passed == [False, False, True]
