"""Quotas of tokens under the real nginx: what exceeds one is refused, however a client calls."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from tests.integration.local_gateway import (
    LocalGateway,
    counters,
    free_ports,
    local_gateway,
    nginx,
)

pytestmark = pytest.mark.machines
LIMIT = 1000
KEYS = {name: new_key() for name in ("capped", "before", "second", "free")}


def sse(**event: object) -> str:
    """An event as OpenAI's newer format and Anthropic's have it."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


def compact(value: object) -> bytes:
    """JSON as engines write it."""
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Stream:
    """A stream that a client aborts: how it begins, and an event of it. `read` are the tokens of
    the prompt, if the engine reports them at the beginning."""

    path: str
    begin: str
    event: str
    read: int = 0
    service: str = "llamacpp"


def begun(**usage: int) -> str:
    """The first event of Anthropic's format."""
    return sse(type="message_start", message={"model": "m", "usage": {**usage, "output_tokens": 0}})


RESPONSE = {"id": "r", "object": "response", "status": "in_progress"}
FORGED = {"usage": {"input_tokens": 1, "output_tokens": 180}}
TOOL = {"type": "function", "name": "x", "parameters": FORGED}
WORD = sse(type="response.output_text.delta", item_id="i", delta="a")
BLOCK = sse(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "a"})
CHOICE = '{"index":0,"text":"a","finish_reason":null}'
EVENT = f'data: {{"model":"m","choices":[{CHOICE}]}}\n\n'
ONE_ENDED = (
    'data: {"model":"m","choices":[{"index":0,"finish_reason":"stop"}],'
    '"timings":{"prompt_n":9,"cache_n":0,"predicted_n":2}}\n\n'
)
STREAMS = {
    "llama.cpp's responses": Stream(
        "/v1/responses", sse(type="response.created", response=RESPONSE), WORD
    ),
    "OpenAI's responses": Stream(
        "/v1/responses", sse(type="response.created", response={**RESPONSE, "model": "m"}), WORD
    ),
    "responses that repeat what looks like figures": Stream(
        "/v1/responses",
        sse(type="response.created", response={**RESPONSE, "model": "m", "tools": [TOOL]}),
        WORD,
    ),
    "messages": Stream("/v1/messages", begun(input_tokens=8), BLOCK, read=8),
    "messages with a cache": Stream(
        "/v1/messages",
        begun(input_tokens=8, cache_read_input_tokens=700, cache_creation_input_tokens=60),
        BLOCK,
        read=768,
    ),
    "messages without the tokens of the prompt": Stream(
        "/v1/messages", begun(input_tokens=0), BLOCK
    ),
    "usage of one choice of many in each event": Stream(
        "/v1/completions",
        "",
        f'data: {{"model":"m","choices":[{CHOICE}],'
        '"usage":{"prompt_tokens":9,"completion_tokens":5}}\n\n',
        read=9,
    ),
    "one choice of llama.cpp has ended": Stream("/v1/completions", ONE_ENDED, EVENT, read=9),
    "no model": Stream("/v1/chat/completions", "", 'data: {"choices":[{}]}\n\n'),
    "Ollama's chat": Stream(
        "/api/chat", "", '{"model":"m","message":{"content":"a"},"done":false}\n', service="ollama"
    ),
    "Ollama's generate": Stream(
        "/api/generate", "", '{"model":"m","response":"a","done":false}\n', service="ollama"
    ),
}

APP = {
    "name": "app",
    "image": "registry.example/app:1@sha256:" + "1" * 64,
    "container_port": 8000,
    "health": ["true"],
    "routes": [{"path": "/ask", "methods": ["POST"]}],
}
VECTOR = [0.123456789] * 768
# Of each route: an answer of which the tokens are those that it reports.
REPORTED: dict[str, tuple[str, str, object, int]] = {
    "messages with a cache": (
        "llamacpp",
        "/v1/messages",
        {
            "model": "m",
            "usage": {
                "cache_creation_input_tokens": 30,
                "cache_read_input_tokens": 200,
                "input_tokens": 1,
                "output_tokens": 4,
            },
        },
        235,
    ),
    "chat with a cache": (
        "llamacpp",
        "/v1/chat/completions",
        {
            "model": "m",
            "usage": {
                "prompt_tokens": 50,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 40},
            },
        },
        54,
    ),
    "responses with a cache": (
        "llamacpp",
        "/v1/responses",
        {
            "model": "m",
            "usage": {
                "input_tokens": 50,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 40},
            },
        },
        54,
    ),
    "embeddings": (
        "llamacpp",
        "/v1/embeddings",
        {"model": "m", "data": [VECTOR], "usage": {"prompt_tokens": 7, "total_tokens": 7}},
        7,
    ),
    "rerank": ("llamacpp", "/v1/rerank", {"results": [], "usage": {"total_tokens": 21}}, 21),
    "app": (
        "app",
        "/app/ask",
        {"model": "m", "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
        9,
    ),
    "Ollama's embed": (
        "ollama",
        "/api/embed",
        {"model": "m", "embeddings": [VECTOR], "prompt_eval_count": 12},
        12,
    ),
}
# Of each route: an answer without figures.
SILENT: dict[str, tuple[str, str, object]] = {
    "embeddings": ("llamacpp", "/v1/embeddings", {"data": [VECTOR]}),
    "rerank": ("llamacpp", "/v1/rerank", [{"index": 0, "score": 0.5}]),
    "Ollama's embed": ("ollama", "/api/embed", {"embeddings": [VECTOR]}),
    "Ollama's embeddings": ("ollama", "/api/embeddings", {"embedding": VECTOR}),
    "chat": ("llamacpp", "/v1/chat/completions", {"choices": []}),
    "responses": ("llamacpp", "/v1/responses", {"output": []}),
}
# Routes that ask no model, whatever is in their answers.
FREE: dict[str, tuple[str, str, object]] = {
    "count of tokens": ("llamacpp", "/v1/messages/count_tokens", {"input_tokens": 9}),
    "tokenize": ("llamacpp", "/tokenize", {"tokens": [1, 2, 3]}),
    "show": ("ollama", "/api/show", {"model": "m"}),
    "app": ("app", "/app/ask", {"text": "a"}),
    "document": ("docling", "/v1/convert/file", {"document": {"model": "m"}}),
}
WHOLE = {**REPORTED, **SILENT, **FREE}


class Engine(BaseHTTPRequestHandler):
    """Reports the tokens of the body's `report`, or streams `events` without a report, or the
    `stream` of that name, or gives an `answer`, or a text of a `length`; after `wait` seconds."""

    protocol_version = "HTTP/1.1"
    asked = 0
    encodings: ClassVar[list[str]] = []
    compresses = False

    def do_GET(self) -> None:
        self.compresses = True
        self._answer([b'{"object":"list","data":[]}'])

    def do_POST(self) -> None:
        Engine.asked += 1
        Engine.encodings = [each for each in self.headers.get_all("Content-Encoding", []) if each]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.compresses = body.get("compresses", False)
        time.sleep(body.get("wait", 0))
        if "stream" in body:
            stream = STREAMS[body["stream"]]
            self._answer([stream.begin.encode(), *[stream.event.encode()] * 1000], 0.002)
        elif "answer" in body:
            self._answer([compact(body["answer"])], status=body.get("status", 200))
        elif "length" in body:
            text = "word " * (body["length"] // 5)
            whole = compact({"tools": [TOOL], "choices": [{"text": text}]})
            self._answer([whole[:-1], b"}"], 5)
        elif "events" in body:
            event = b'data: {"model":"m","choices":[{"delta":{"content":"a"}}]}\n\n'
            self._answer([event] * body["events"], body.get("pause", 0))
        else:
            read, written = body["report"]
            usage = {"prompt_tokens": read, "completion_tokens": written}
            self._answer([json.dumps({"model": "m", "usage": usage}).encode()])

    def _answer(self, pieces: list[bytes], pause: float = 0, status: int = 200) -> None:
        try:
            self.send_response(status)
            if self.compresses and "gzip" in (self.headers["Accept-Encoding"] or ""):
                self.send_header("Content-Encoding", "gzip")
                pieces = [gzip.compress(b"".join(pieces))]
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in [*filter(None, pieces), b""]:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(pause)
        except OSError:
            pass  # the client closed the connection

    def log_message(self, *_: object) -> None:
        pass


class Site:
    """A gateway with an engine, and the requests of its clients."""

    def __init__(self, gateway: LocalGateway) -> None:
        self.gateway = gateway
        self.client = httpx.Client(base_url=gateway.url, timeout=30)

    def send(self, name: str, path: str = "/v1/completions", **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS[name]}"}
        return self.client.post(path, headers=headers, json=body)

    def abort(self, path: str, after: int, **body: Any) -> None:
        """A request of which the client reads this many bytes."""
        headers = {"Authorization": f"Bearer {KEYS['capped']}"}
        received = 0
        with self.client.stream("POST", path, headers=headers, json=body) as answer:
            assert answer.status_code == 200
            for piece in answer.iter_raw():
                received += len(piece)
                if received >= after:
                    break
        self.settle()

    def begin_day(self) -> None:
        for file in counters(self.gateway.directory).iterdir():
            file.unlink()

    def spend(self, name: str, read: int, written: int) -> int:
        status = self.send(name, report=[read, written]).status_code
        self.settle()
        return status

    def settle(self) -> None:
        """Until nginx has ended the last request: a client may have its answer a little earlier."""
        time.sleep(0.1)

    def used(self, name: str = "capped") -> int:
        day, tokens = self.file(name).read_text().split()
        assert day == f"{datetime.now():%Y-%m-%d}"
        return int(tokens)

    def file(self, name: str = "capped") -> Path:
        return counters(self.gateway.directory) / name


def inventory(engine: int, service: str = "llamacpp") -> dict[str, Any]:
    port, status = free_ports(2)
    quota = {"tokens_per_day": LIMIT}
    model = {"name": "m", "service": service, "source": "https://x/m.gguf", "sha256": "1" * 64}
    services = {"services": [service], "models": [model], f"{service}_port": engine}
    if service == "docling":
        del services["models"]
    if service == "app":
        services = {"services": ["docling"], "apps": [{**APP, "port": engine}]}
    until = (datetime.now().astimezone() + timedelta(days=1)).isoformat()
    previous = {"previous_sha256": digest(KEYS["before"]), "previous_until": until}
    return {
        **services,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_count_tokens": True,
        "api_clients": [
            {"name": "capped", "sha256": digest(KEYS["capped"]), **previous, **quota},
            {"name": "second", "sha256": digest(KEYS["second"]), **quota},
            {"name": "free", "sha256": digest(KEYS["free"])},
        ],
    }


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, Any]]]:
    with serving() as port:
        data = inventory(port)
        with local_gateway(data, tmp_path_factory.mktemp("quota") / "nginx") as gateway:
            yield Site(gateway), data


@contextmanager
def serving() -> Iterator[int]:
    """The port of an Engine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture(scope="module")
def sites(
    running: tuple[Site, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Site]]:
    """By service: a site that runs only this one, on a new day."""
    known = {"llamacpp": running[0]}
    with serving() as port, ExitStack() as stack:

        def site_of(service: str) -> Site:
            if service not in known:
                place = tmp_path_factory.mktemp(service) / "nginx"
                data = inventory(port, service)
                known[service] = Site(stack.enter_context(local_gateway(data, place)))
            known[service].begin_day()
            return known[service]

        yield site_of


@pytest.fixture
def site(running: tuple[Site, dict[str, Any]]) -> Site:
    """The site on a new day."""
    running[0].begin_day()
    return running[0]


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 429 and answer.json()["error"]["code"] == "tokens_used"


def test_client_is_refused_once_its_tokens_are_used(site: Site) -> None:
    assert site.spend("capped", 600, 399) == 200
    assert site.spend("capped", 1, 4) == 200  # one is left, and nobody knows how long an answer is
    assert site.used() == 1004
    asked = Engine.asked
    answer = site.send("capped", report=[1, 1])
    assert refused(answer) and Engine.asked == asked
    midnight = (datetime.now() + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    assert f"retry after {midnight:%Y-%m-%d} 00:00" in answer.json()["error"]["message"]
    left = (midnight - datetime.now()).total_seconds()
    assert abs(int(answer.headers["Retry-After"]) - left) < 30
    headers = {"Authorization": f"Bearer {KEYS['capped']}"}
    assert refused(site.client.get("/v1/models", headers=headers))
    line = site.gateway.logged(answer.headers["X-Request-ID"])
    assert (line["client"], line["refusal"], line["day_tokens"]) == ("capped", "tokens_used", "")


def test_quota_is_each_clients_own_and_others_have_none(site: Site) -> None:
    assert site.spend("capped", LIMIT, 0) == 200
    assert refused(site.send("capped", report=[1, 1]))
    assert site.spend("second", 1, 1) == 200
    assert site.spend("free", 10**6, 1) == 200 and not site.file("free").exists()
    assert site.spend("free", 1, 1) == 200


def test_second_key_of_a_client_has_no_second_quota(site: Site) -> None:
    assert site.spend("before", LIMIT, 0) == 200
    assert refused(site.send("before", report=[1, 1]))
    assert refused(site.send("capped", report=[1, 1]))


def test_quota_outlives_reload_restart_and_rotation(
    running: tuple[Site, dict[str, Any]], site: Site
) -> None:
    assert site.spend("capped", 500, 0) == 200
    directory = site.gateway.directory
    site.gateway.reload(running[1])
    assert site.spend("capped", 499, 0) == 200
    log = directory / "logs/gateway.json"
    log.rename(log.with_suffix(".1"))
    nginx(directory, "-s", "reopen")
    pid = (directory / "nginx.pid").read_text()
    nginx(directory, "-s", "stop")
    for _ in range(100):
        if not Path(f"/proc/{pid.strip()}").exists():
            break
        time.sleep(0.05)
    nginx(directory)
    assert site.used() == 999
    assert site.spend("capped", 1, 0) == 200
    assert refused(site.send("capped", report=[1, 1]))


def test_aborted_streams_are_charged_too(site: Site) -> None:
    """An engine reports nothing of them; a client could otherwise read for nothing."""
    headers = {"Authorization": f"Bearer {KEYS['capped']}"}
    body = {"events": 1000, "pause": 0.002}
    for _ in range(40):
        with site.client.stream("POST", "/v1/completions", headers=headers, json=body) as answer:
            if answer.status_code == 429:
                break
            received = b""
            for piece in answer.iter_raw():
                received += piece
                if received.count(b"data:") >= 50:
                    break
        site.settle()
    else:
        pytest.fail("the quota was never used")
    assert LIMIT <= site.used() < 2 * LIMIT


def test_stream_without_figures_is_charged_by_its_events(site: Site) -> None:
    assert site.send("capped", events=400).text.count("data:") == 400
    site.settle()
    assert 400 <= site.used() <= 500  # and the request


@pytest.mark.parametrize("name", STREAMS)
def test_aborted_stream_of_each_format_is_charged_by_its_events(
    sites: Callable[[str], Site], name: str
) -> None:
    stream = STREAMS[name]
    site = sites(stream.service)
    site.abort(stream.path, len(stream.begin) + 200 * len(stream.event), stream=name)
    assert 200 + stream.read <= site.used() < 1000 + stream.read


@pytest.mark.parametrize("name", REPORTED)
def test_reported_tokens_are_those_that_count(sites: Callable[[str], Site], name: str) -> None:
    service, path, answer, tokens = REPORTED[name]
    site = sites(service)
    assert site.send("capped", path, answer=answer, padding="x" * 4000).status_code == 200
    site.settle()
    assert site.used() == tokens


@pytest.mark.parametrize("name", SILENT)
def test_answer_without_figures_counts_by_its_route(
    sites: Callable[[str], Site], name: str
) -> None:
    service, path, answer = SILENT[name]
    site = sites(service)
    body = {"answer": answer, "padding": "x" * 4000}
    assert site.send("capped", path, **body).status_code == 200
    site.settle()
    size = len(compact(body)) // 4
    assert size <= site.used() < size + 200


@pytest.mark.parametrize("name", FREE)
def test_route_that_asks_no_model_costs_nothing(sites: Callable[[str], Site], name: str) -> None:
    service, path, answer = FREE[name]
    site = sites(service)
    assert site.send("capped", path, answer=answer).status_code == 200
    site.settle()
    assert site.used() == 0


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_compressed_request_counts_as_the_largest(sites: Callable[[str], Site], path: str) -> None:
    """Ollama decompresses those to /v1; a long text may be short when it is compressed."""
    site = sites("ollama")
    body = compact({"answer": {}, "padding": "x"})
    headers = [("Authorization", f"Bearer {KEYS['capped']}"), ("Content-Encoding", "zstd")]
    site.client.post(path, content=body, headers=headers).raise_for_status()
    site.settle()
    assert 32_768 <= site.used() < 32_800
    site.begin_day()
    # nginx before 1.23 sees the first header of a name: so does the engine.
    headers[1:1] = [("Content-Encoding", "")]
    site.client.post(path, content=body, headers=headers).raise_for_status()
    site.settle()
    assert Engine.encodings == [] or site.used() >= 32_768


def test_model_of_a_log_is_declared(site: Site) -> None:
    """Some engines repeat what a client said: vLLM its `metadata` and llama.cpp, with vectors, the
    model; Ollama takes names in other spellings."""
    answers: dict[str, dict[str, Any]] = {
        "/v1/responses": {"metadata": {"model": "made-up"}, "model": "m"},
        "/v1/embeddings": {"model": "made-up"},
        "/v1/completions": {"model": "M:latest"},
    }
    found = {}
    for path, answer in answers.items():
        answer["usage"] = {"input_tokens": 5, "output_tokens": 4}
        trace = site.send("free", path, answer=answer).headers["X-Request-ID"]
        line = site.gateway.logged(trace)
        assert line["tokens_in"] == "5"
        found[path] = line["model"]
    assert found == {"/v1/responses": "m", "/v1/embeddings": "", "/v1/completions": "m"}


def test_refusal_of_an_engine_costs_nothing(site: Site) -> None:
    answer = {"error": {"message": "too long"}, "model": "m"}
    assert site.send("capped", answer=answer, status=400).status_code == 400
    site.settle()
    assert site.used() == 0


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/embeddings"])
def test_request_that_ends_before_its_answer_is_charged(site: Site, path: str) -> None:
    """The engine has read its prompt by then."""
    headers = {"Authorization": f"Bearer {KEYS['capped']}"}
    body = {"wait": 1, "answer": {}, "padding": "x" * 2000}
    with pytest.raises(httpx.ReadTimeout):
        site.client.post(path, headers=headers, json=body, timeout=0.3)
    site.settle()
    assert 500 <= site.used() < 700


def test_aborted_answer_that_is_no_stream_is_charged_by_its_bytes(site: Site) -> None:
    """Its figures are at its end."""
    site.abort("/v1/completions", 20_000, length=20_000)
    assert 5000 <= site.used() < 5500


@pytest.mark.parametrize("count", [2, 40])
def test_choices_of_which_one_is_reported_are_all_charged(site: Site, count: int) -> None:
    """As llama.cpp does for `n`, and for a list of prompts."""
    choice = {"text": "a few words " * 20, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    timings = {"prompt_n": 5, "cache_n": 0, "predicted_n": 1}
    answer = {"model": "m", "choices": [choice] * count, "usage": usage, "timings": timings}
    assert site.send("capped", answer=answer).status_code == 200
    site.settle()
    assert count * 60 <= site.used() < count * 200 + 200


def test_no_engine_compresses_what_is_counted(site: Site) -> None:
    answer = site.send("capped", report=[300, 4], compresses=True)
    assert "Content-Encoding" not in answer.headers
    site.settle()
    assert site.used() == 304
    headers = {"Authorization": f"Bearer {KEYS['capped']}"}
    assert site.client.get("/v1/models", headers=headers).headers["Content-Encoding"] == "gzip"


def test_refused_request_costs_nothing(site: Site) -> None:
    headers = {"Authorization": f"Bearer {KEYS['capped']}"}
    assert site.client.post("/v1/nothing", headers=headers).status_code == 404
    assert site.client.delete("/v1/completions", headers=headers).status_code == 405
    assert site.client.get("/v1/models?key=x", headers=headers).status_code == 401
    site.settle()
    assert site.spend("capped", 10, 0) == 200
    assert site.used() == 10


def test_new_day_begins_at_zero(site: Site) -> None:
    assert site.spend("capped", LIMIT, 0) == 200
    assert refused(site.send("capped", report=[1, 1]))
    yesterday = datetime.now() - timedelta(days=1)
    site.file().write_text(f"{yesterday:%Y-%m-%d} {LIMIT:019d}\n")
    assert site.spend("capped", 3, 4) == 200
    assert site.used() == 7


@pytest.mark.parametrize("content", ["", "x", "\0" * 31, "9" * 31, "a\n" * 40])
def test_damaged_counter_begins_anew_and_counts(site: Site, content: str) -> None:
    assert site.spend("capped", 1, 0) == 200
    site.file().write_text(content)
    assert site.spend("capped", LIMIT, 0) == 200
    assert site.file().read_text()[:31].endswith(f"{LIMIT:019d}\n")
    assert refused(site.send("capped", report=[1, 1]))


def test_client_whose_tokens_cannot_be_counted_is_refused(site: Site) -> None:
    asked = Engine.asked
    site.file().mkdir()
    try:
        answer = site.send("capped", report=[1, 1])
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "quota_unreadable" and Engine.asked == asked
        assert site.spend("second", 1, 1) == 200 and site.spend("free", 1, 1) == 200
    finally:
        site.file().rmdir()


def test_concurrent_requests_are_all_counted(site: Site) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: site.send("second", report=[2, 1]), range(300)))
    site.settle()
    assert {answer.status_code for answer in answers} == {200} and site.used("second") == 900
