"""A double of docling-serve 1.36: its routes, statuses and shapes, for plain text and simple PDFs.

The real one keeps the same contract (docs/evidence/docling.md). As a program it serves on a port:
`python3 docling.py PORT`; it needs the standard library only.
"""

import base64
import email.parser
import email.policy
import html
import io
import json
import os
import re
import signal
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Json = dict[str, Any]
_TEXTS = (".md", ".txt", ".html", ".csv", ".adoc")
_NO_RESULT = "Task result not found. Please wait for a completion status."
_TOKENIZER = "sentence-transformers/all-MiniLM-L6-v2"
_FORMULAS = {"codeformulav2": "docling-project--CodeFormulaV2"}
_NEWER_FORMULAS = "ibm-granite--granite-docling-258M"
_PICTURES = "HuggingFaceTB--SmolVLM-256M-Instruct"
_CHUNK_TOKENS = 256
_FORMATS = ("md", "json", "html", "text", "doctags", "doclang")
_EMPTY = "List should have at least 1 item after validation, not 0"
_KINDS = "Input tag {!r} found using 'kind' does not match any of the expected tags: 'file', 'http'"
# Fields of a multipart form that are not text.
_SWITCHES = ("do_formula_enrichment", "do_picture_description", "do_ocr")


class Refused(Exception):
    """An answer other than 200, with its body's `detail`."""

    def __init__(self, status: int, detail: object) -> None:
        self.status, self.detail = status, detail


@dataclass
class Job:
    """What a request asks for; `chunker` is empty for a conversion. A file that cannot be fetched
    has no bytes, and its URL instead of a name."""

    chunker: str
    files: list[tuple[str, bytes | None]]
    options: Json
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


_jobs: dict[str, Job] = {}
_lock = threading.Lock()


def invalid(kind: str, message: str, *place: str | int) -> Refused:
    """As FastAPI words a request that does not fit its schema."""
    return Refused(422, [{"type": kind, "loc": ["body", *place], "msg": message}])


def blocks(name: str, data: bytes) -> list[str]:
    """Headings, which begin with `#`, and paragraphs on one line each."""
    text = data.decode(errors="replace")
    if name.endswith(".docx"):
        text = _of_docx(data)
    if name.endswith(".pdf"):
        text = "\n\n".join(re.findall(r"\(([^)]*)\) Tj", text))
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [part for part in paragraphs if part]


def markdown(name: str, data: bytes) -> str:
    """The document's text, as docling writes it: escaped."""
    escaped = (html.escape(part, quote=False) for part in blocks(name, data))
    return "\n\n".join(part.replace("_", r"\_") for part in escaped)


def _of_docx(data: bytes) -> str:
    """The paragraphs of an Office document, apart."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        body = archive.read("word/document.xml").decode()
    paragraphs = re.findall(r"<w:p[ >].*?</w:p>", body, re.DOTALL)
    texts = ("".join(re.findall(r"<w:t[^>]*>(.*?)</w:t>", each)) for each in paragraphs)
    return "\n\n".join(map(html.unescape, texts))


def missing_model(options: Json) -> bool:
    """Whether a model that the options need is not among the artifacts: each conversion fails."""
    artifacts = Path(os.environ.get("DOCLING_SERVE_ARTIFACTS_PATH", "/nowhere"))
    preset = os.environ.get("DOCLING_SERVE_DEFAULT_CODE_FORMULA_PRESET", "")
    wanted = {
        "do_formula_enrichment": _FORMULAS.get(preset, _NEWER_FORMULAS),
        "do_picture_description": _PICTURES,
    }
    return any(options.get(key) and not (artifacts / wanted[key]).is_dir() for key in wanted)


def has_tokenizer() -> bool:
    """Whether huggingface_hub finds the tokenizer of the hybrid chunker in its cache, and how many
    tokens a chunk may have."""
    hub = Path(os.environ.get("HF_HUB_CACHE", "/nowhere"))
    cached = hub / f"models--{_TOKENIZER.replace('/', '--')}"
    revision = cached / "refs/main"
    if not revision.is_file():
        return False
    return (cached / "snapshots" / revision.read_text() / "sentence_bert_config.json").is_file()


def converted(job: Job) -> Json:
    """The body of a conversion's result."""
    (name, data), *_ = job.files
    if data is None:
        why = ("failure", f"URL is not allowed: {name}", "source_unavailable")
        return _unread(name.rpartition("/")[2], *why)
    if not name.endswith((*_TEXTS, ".docx", ".pdf")):
        return _unread(name, "skipped", f"File format not allowed: {name}", "policy")
    formats = job.options.get("to_formats") or ["md"]
    document = _document(name)
    if "md" in formats:
        document["md_content"] = markdown(name, data)
    if "json" in formats:
        document["json_content"] = {"schema_name": "DoclingDocument", "pictures": []}
    grades = {"mean_grade": "unspecified", "low_grade": "unspecified"}
    scores = dict.fromkeys(("parse", "layout", "table", "ocr", "mean", "low"))
    confidence = {f"{key}_score": score for key, score in scores.items()} | grades
    return _answer(document, "success", [], confidence)


def _document(name: str) -> Json:
    return {"filename": name, **{f"{each}_content": None for each in _FORMATS}}


def _answer(document: Json, status: str, errors: list[Json], confidence: Json | None) -> Json:
    done = {"status": status, "errors": errors, "timings": {}, "confidence": confidence}
    return {"document": document, "processing_time": 0.01, **done}


def _unread(name: str, status: str, message: str, category: str) -> Json:
    error = {"component_type": "user_input", "module_name": "", "error_message": message}
    return _answer(
        _document(name), status, [{**error, "category": category, "page_no": None}], None
    )


def chunked(job: Job) -> Json:
    """The body of a chunking's result; without its tokenizer, the hybrid chunker finds none."""
    there = job.chunker == "hierarchical" or has_tokenizer()
    chunks = [
        {
            "filename": name,
            "chunk_index": index,
            "text": "\n".join([*headings, text]),
            "raw_text": None,
            "num_tokens": len(_tokens(headings, text)) if job.chunker == "hybrid" else None,
            "headings": headings or None,
            "captions": None,
            "doc_items": ["#/texts/0"],
            "page_numbers": [],
            "metadata": {"origin": {"filename": name}, "has_image": False},
        }
        for name, data in (job.files if there else [])
        for index, (headings, text) in enumerate(_chunks(job.chunker, blocks(name, data or b"")))
    ]
    exported: list[Json] = [
        {"kind": "ExportResult", "content": _document(name), "status": "success"}
        | {"errors": [], "timings": {}, "confidence": None}
        for name, _ in job.files
    ]
    return {"chunks": chunks, "documents": exported, "processing_time": 0.01}


def _chunks(chunker: str, parts: list[str]) -> Iterator[tuple[list[str], str]]:
    """Paragraphs with their headings; the hybrid chunker joins neighbours with the same ones as
    long as they fit. Where it would divide a paragraph, this does not."""
    found: list[tuple[list[str], str]] = []
    headings: list[str] = []
    for part in parts:
        if heading := re.match(r"(#+) (.*)", part):
            headings = [*headings[: len(heading[1]) - 1], heading[2]]
            continue
        if chunker == "hybrid" and found and found[-1][0] == headings:
            joined = f"{found[-1][1]}\n{part}"
            if len(_tokens(headings, joined)) <= _CHUNK_TOKENS:
                found[-1] = (headings, joined)
                continue
        found.append((headings, part))
    yield from found


def _tokens(headings: list[str], text: str) -> list[str]:
    """Words and signs, which the real tokenizer divides further if they are rare."""
    return re.findall(r"[^\W_]+|[^\w\s]|_", " ".join([*headings, text]))


def result(job: Job) -> Json | bytes:
    """The body of the result, of several documents as a zip archive; raises Refused if a model is
    missing."""
    if missing_model(job.options):
        raise Refused(404, _NO_RESULT)
    if job.chunker:
        return chunked(job)
    return converted(job) if len(job.files) == 1 else _archive(job)


def _archive(job: Job) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in job.files:
            archive.writestr(f"{Path(name).stem}.md", markdown(name, text or b""))
    return data.getvalue()


def status(job: Job) -> Json:
    """The body of `/v1/status/poll/{task_id}`."""
    failed = missing_model(job.options)
    return {
        "task_id": job.id,
        "task_type": "chunk" if job.chunker else "convert",
        "task_status": "failure" if failed else "success",
        "task_position": None,
        "task_meta": None,
        "error_message": "Task failed" if failed else None,
        "failure": None,
    }


def from_source(chunker: str, body: bytes) -> Job:
    """A request in JSON."""
    try:
        asked = json.loads(body)
    except ValueError as error:
        place = getattr(error, "pos", 0)  # none if it is no text
        raise invalid("json_invalid", "JSON decode error", place) from error
    if not isinstance(asked, dict):
        raise invalid("model_attributes_type", "Input should be a valid dictionary")
    if not isinstance(asked.get("sources"), list):
        raise invalid("missing", "Field required", "sources")
    if not asked["sources"]:
        raise invalid("too_short", _EMPTY, "sources")
    files: list[tuple[str, bytes | None]] = []
    for index, source in enumerate(asked["sources"]):
        kind = source.get("kind")
        if kind not in ("file", "http"):
            raise invalid("union_tag_invalid", _KINDS.format(kind), "sources", index)
        if kind == "http":
            files.append((source["url"], None))
        else:
            files.append((source["filename"], base64.b64decode(source["base64_string"])))
    key = "convert_options" if chunker else "options"
    return Job(chunker, files, asked.get(key) or {})


def from_form(chunker: str, content_type: str, body: bytes) -> Job:
    """A request in multipart/form-data."""
    if not content_type.startswith("multipart/form-data"):
        raise invalid("missing", "Field required", "files")
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    files: list[tuple[str, bytes | None]] = []
    options: Json = {}
    for part in parts.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        data = bytes(part.get_payload(decode=True) or b"")
        if name == "files":
            files.append((str(part.get_filename()), data))
        elif (option := name.removeprefix("convert_" if chunker else "")) in _SWITCHES:
            options[option] = data.decode() == "true"
        elif option == "to_formats":
            options.setdefault(option, []).append(data.decode())
    if not files:
        raise invalid("missing", "Field required", "files")
    return Job(chunker, files, options)


_TASK = re.compile(r"/v1/(?:convert|chunk/(hybrid|hierarchical))/(file|source)(/async)?")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._read)

    def do_POST(self) -> None:
        self._answer(self._start)

    def _answer(self, work: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            self._send(200, work(self.path.partition("?")[0], body))
        except Refused as refused:
            self._send(refused.status, {"detail": refused.detail})

    def _read(self, path: str, _body: bytes) -> Json | bytes:
        if path in ("/health", "/ready"):
            return {"status": "ok"}
        if path == "/version":
            return {"docling-serve": "1.36.0", "docling-jobkit": "3.8.1", "docling": "2.132.0"}
        match = re.fullmatch(r"/v1/(status/poll|result)/([^/]+)", path)
        if not match:
            if _TASK.fullmatch(path):
                raise Refused(405, "Method Not Allowed")
            raise Refused(404, "Not Found")
        with _lock:
            job = _jobs.get(match[2])
        if job is None:
            raise Refused(404, "Task not found.")
        return status(job) if match[1] == "status/poll" else result(job)

    def _start(self, path: str, body: bytes) -> Json | bytes:
        match = _TASK.fullmatch(path)
        if not match:
            raise Refused(404, "Not Found")
        chunker, content_type = match[1] or "", self.headers.get("Content-Type", "")
        by_source = match[2] == "source"
        job = from_source(chunker, body) if by_source else from_form(chunker, content_type, body)
        if match[3]:
            with _lock:
                _jobs[job.id] = job
            return {**status(job), "task_status": "pending", "task_position": 1}
        # The first look finds the task unfinished.
        time.sleep(float(os.environ.get("DOCLING_SERVE_SYNC_POLL_INTERVAL", "2")))
        return result(job)

    def _send(self, status: int, body: Json | bytes) -> None:
        packed = isinstance(body, bytes)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/zip" if packed else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), _Handler).serve_forever()
