"""Tokens by client and model, counted by the real nginx in the answers of a real llama.cpp, and in
answers as other engines gave them."""

import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.resources import FILES
from llmhost.status.usage import By, UsageRow, report
from testbed.local_engine import local_engine
from testbed.process import wait_until
from tests.integration.local_gateway import LocalGateway, counters, free_ports, local_gateway, nginx

pytestmark = pytest.mark.machines
KEYS = {"app": new_key(), "batch": new_key()}
MIXED, ABORTED = 1000, 50


def inventory(port: int, **more: object) -> dict[str, Any]:
    own, status = free_ports(2)
    return {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": port,
        "gateway_port": own,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_count_tokens": True,
        "api_clients": [
            {"name": name, "sha256": digest(key), "tokens_per_day": 10**11}
            for name, key in KEYS.items()
        ],
        **more,
    }


def usage(gateway: LocalGateway, by: By, requests: int) -> dict[str, UsageRow]:
    """The rows once this many requests are in the log; it is written within a second."""
    log = str(gateway.directory / "logs/gateway.json")
    command = [sys.executable, "-I", str(FILES / "usage/read.py"), log, "0"]
    for _ in range(100):
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = {row.name: row for row in report({"here": output}, {}, by).rows}
        if sum(row.requests for row in rows.values()) >= requests:
            return rows
        time.sleep(0.1)
    raise AssertionError(f"{requests} requests are not in the log")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    [port] = free_ports(1)
    options = ["--metrics", "--parallel", "4", "-c", "2048", "--alias", "tiny"]
    with local_engine(tmp_path_factory.mktemp("engine"), port, options=options) as url:
        yield url


def engine_s_own(url: str) -> tuple[int, int]:
    """Tokens read and written, as llama.cpp counts them; cached ones count as read."""
    text = httpx.get(f"{url}/metrics").text
    values = {
        name: int(float(re.findall(rf"(?m)^llamacpp:{name} (\S+)$", text)[0]))
        for name in ("prompt_tokens_total", "prompt_tokens_cached_total", "tokens_predicted_total")
    }
    read = values["prompt_tokens_total"] + values["prompt_tokens_cached_total"]
    return read, values["tokens_predicted_total"]


def quotas(gateway: LocalGateway) -> dict[str, int]:
    """What each client has used of its quota."""
    texts = {file.name: file.read_text().split() for file in counters(gateway.directory).iterdir()}
    return {name: int(words[1]) for name, words in texts.items() if words}


def charged(gateway: LocalGateway, least: int) -> int:
    """What the client `app` has used, once that is so much: nginx counts after the answer."""
    wait_until(lambda: quotas(gateway).get("app", 0) >= least, 10, 0.05)
    return quotas(gateway)["app"]


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests of every kind, again and again."""
    ways: list[dict[str, Any]] = [
        {},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
    ]
    for number, more in zip(itertools.count(), itertools.cycle(ways)):
        size = {"max_tokens": 1 + number % 7, "ignore_eos": True, "model": "tiny"}
        # An answer's text, or a prompt, must not be taken for the engine's figures.
        text = f'{number} "usage":{{"prompt_tokens":99999,"completion_tokens":99999}}'
        if number % 2:
            yield "/v1/completions", {"prompt": text, **size, **more}
        else:
            message = {"role": "user", "content": text}
            yield "/v1/chat/completions", {"messages": [message], **size, **more}


def test_sums_of_mixed_requests_equal_the_engine_s_own(engine: str, tmp_path: Path) -> None:
    models = [{"name": "tiny", "source": "https://x/m.gguf", "sha256": "1" * 64}]  # as the engine's
    data = inventory(int(engine.rpartition(":")[2]), models=models)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        sent: list[int] = []
        with httpx.Client(timeout=120) as client:

            def send(number: int, request: tuple[str, dict[str, Any]]) -> None:
                path, body = request
                key = KEYS["app" if number % 4 else "batch"]
                headers = {"Authorization": f"Bearer {key}"}
                for _ in range(5):
                    answer = client.post(f"{gateway.url}{path}", json=body, headers=headers)
                    sent.append(answer.status_code)
                    # llama.cpp closed an idle connection as the request was sent on it.
                    if answer.status_code != 502:
                        break
                assert answer.status_code == 200, answer.text

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(send, range(MIXED), bodies()))
            rows = usage(gateway, By.CLIENT, len(sent))
            read, written = engine_s_own(engine)
            assert sum(row.tokens_in for row in rows.values()) == read
            assert sum(row.tokens_out for row in rows.values()) == written
            assert {name: row.counted for name, row in rows.items()} == {
                "app": MIXED * 3 // 4,
                "batch": MIXED // 4,
            }
            used = quotas(gateway)
            assert used == {name: row.tokens_in + row.tokens_out for name, row in rows.items()}
            headers = {"Authorization": f"Bearer {KEYS['app']}"}
            endless = {"prompt": "x", "max_tokens": 400, "ignore_eos": True, "stream": True}
            for _ in range(ABORTED):
                url = f"{gateway.url}/v1/completions"
                with client.stream("POST", url, json=endless, headers=headers) as answer:
                    next(answer.iter_raw())
        # What was aborted is counted as such, without tokens, and not as something else.
        after = usage(gateway, By.CLIENT, len(sent) + ABORTED)
        # On a busy machine the engine may finish one before the client has closed its connection,
        # and nginx may still be sending it then.
        whole = after["app"].counted - rows["app"].counted
        assert after["app"].tokens_out - rows["app"].tokens_out == whole * 400
        assert ABORTED - whole <= after["app"].aborted <= ABORTED and whole < ABORTED // 2
        assert used["app"] < quotas(gateway)["app"] < used["app"] + ABORTED * 500
        assert usage(gateway, By.MODEL, len(sent))["tiny"].counted == MIXED + whole
        assert "99999" not in gateway.log_texts


SEVERAL = {"model": "tiny", "max_tokens": 20, "ignore_eos": True}
MESSAGES = [{"role": "user", "content": "hello"}]
MANY: dict[str, tuple[str, dict[str, Any]]] = {
    "choices": ("/v1/completions", {"prompt": "one", "n": 3, **SEVERAL}),
    "prompts": ("/v1/completions", {"prompt": ["one", "two", "three"], **SEVERAL}),
    "chat": ("/v1/chat/completions", {"messages": MESSAGES, "n": 3, **SEVERAL}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", MANY)
def test_several_choices_of_a_real_engine_are_all_charged(
    engine: str, tmp_path: Path, kind: str, stream: bool
) -> None:
    """It reports the tokens of one of them."""
    path, body = MANY[kind]
    with local_gateway(inventory(int(engine.rpartition(":")[2])), tmp_path / "nginx") as gateway:
        headers = {"Authorization": f"Bearer {KEYS['app']}"}
        answer = httpx.post(
            f"{gateway.url}{path}", json={**body, "stream": stream}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        # Texts of this model are shorter than four bytes a token, with names of fields around them.
        assert 60 <= charged(gateway, 60) < 1000


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/chat/completions"])
def test_aborted_streams_of_a_real_engine_are_charged(
    engine: str, tmp_path: Path, path: str
) -> None:
    # llama.cpp drops `ignore_eos` of /v1/messages; without chance this model goes on for ever.
    body: dict[str, Any] = {"model": "tiny", "stream": True, "ignore_eos": True, "temperature": 0}
    body |= {"input": "hello"} if path == "/v1/responses" else {"messages": MESSAGES}
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    with local_gateway(inventory(int(engine.rpartition(":")[2])), tmp_path / "nginx") as gateway:
        url, headers = f"{gateway.url}{path}", {"Authorization": f"Bearer {KEYS['app']}"}
        with httpx.stream("POST", url, json={**body, limit: 400}, headers=headers) as answer:
            received = 0
            for piece in answer.iter_raw():
                received += piece.count(b"data: ")
                if received >= 60:
                    break
        assert 60 <= charged(gateway, 60) < 600


USAGE = '"usage":{"prompt_tokens":12,"total_tokens":19,"completion_tokens":7}'
# By what is special about them: the pieces of an answer, and the tokens in it.
ANSWERS: dict[str, tuple[list[str], tuple[int, int] | None]] = {
    "vLLM": (['{"id":"c","model":"m","choices":[],', USAGE, "}"], (12, 7)),
    "spaces": (['{"model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}}'], (3, 0)),
    "details": (
        [
            '{"model":"m","usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":2},'
            '"completion_tokens":4}}'
        ],
        (5, 4),
    ),
    "a piece for each byte": ([*f'data: {{"model":"m","choices":[],{USAGE}}}\n\n'], (12, 7)),
    "vLLM, usage in each event": (
        [
            f'data: {{"model":"m","usage":{{"prompt_tokens":9,"completion_tokens":{n}}}}}\n\n'
            for n in range(1, 6)
        ],
        (9, 5),
    ),
    "Ollama's own": (
        [
            '{"model":"m","done":false}\n',
            '{"model":"m","done":true,"prompt_eval_count":26,"eval_count":298}\n',
        ],
        (26, 298),
    ),
    "messages": (
        [
            'data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":8,'
            '"output_tokens":0}}}\n\n',
            'data: {"usage":{"output_tokens":6}}\n\n',
        ],
        (8, 6),
    ),
    "messages with a cache": (
        [
            'data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":1,'
            '"cache_read_input_tokens":24,"cache_creation_input_tokens":3,"output_tokens":0}}}\n\n',
            'data: {"type":"message_delta","usage":{"output_tokens":6}}\n\n',
        ],
        (28, 6),
    ),
    "responses": (
        [
            'event: response.created\ndata: {"response":{"model":"m","tools":[{"parameters":'
            '{"usage":{"input_tokens":99999,"output_tokens":99999}}}],"usage":null}}\n\n',
            'event: response.output_text.delta\ndata: {"delta":"',
            "x" * 1024,
            '"}\n\n',
            'event: response.completed\ndata: {"response":{"usage":{"input_tokens":25,'
            '"output_tokens":3,"input_tokens_details":{"cached_tokens":24}}}}\n\n',
        ],
        (25, 3),
    ),
    "a reranker": (['{"model":"m","results":[],"usage":{"total_tokens":21}}'], (21, 0)),
    "no figures": (['data: {"model":"m","choices":[{"delta":{"content":"a"}}]}\n\n'], None),
    "a text like figures": ([json.dumps({"model": "m", "text": f"{{{USAGE}}}"})], None),
    "null": (['data: {"model":"m","usage":null}\n\n'], None),
    "negative": (
        ['{"model":"m","usage":{"prompt_tokens":-5,"completion_tokens":1e9}}'],
        (0, 1_000_000_000),
    ),
    "not UTF-8": (['{"model":"m","text":"\udcff\udcfe",', USAGE, "}"], (12, 7)),
    "a long text": (['{"model":"m","text":"', "x" * 300_000, '",', USAGE, "}"], (12, 7)),
}


class Other(BaseHTTPRequestHandler):
    """An engine that answers with the pieces of one of ANSWERS, each in a chunk of its own."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in [*ANSWERS[body["name"]][0], ""]:
            data = piece.encode(errors="surrogateescape")
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    Thread(target=server.serve_forever, daemon=True).start()
    data = inventory(server.server_port)
    with local_gateway(data, tmp_path_factory.mktemp("other") / "nginx") as gateway:
        yield gateway
    server.shutdown()


@pytest.mark.parametrize("name", ANSWERS)
def test_figures_of_each_engine_are_read_and_the_answer_is_unchanged(
    other: LocalGateway, name: str
) -> None:
    pieces, tokens = ANSWERS[name]
    trace = name.replace(" ", "-").replace("'", "").replace(",", "")
    headers = {"Authorization": f"Bearer {KEYS['app']}", "X-Request-ID": trace}
    url = f"{other.url}/v1/completions"
    answer = httpx.post(url, headers=headers, json={"name": name}, timeout=30)
    assert answer.content == "".join(pieces).encode(errors="surrogateescape")
    line = other.logged(trace)
    assert line["model"] == "m"
    expected = ("", "") if tokens is None else tuple(map(str, tokens))
    assert (line["tokens_in"], line["tokens_out"]) == expected


def test_tokens_are_not_counted_unless_declared(tmp_path: Path) -> None:
    clients = [{"name": name, "sha256": digest(key)} for name, key in KEYS.items()]
    data = inventory(free_ports(3)[2], gateway_count_tokens=False, api_clients=clients)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        assert "ngx_http_js" not in (gateway.directory / "nginx.conf").read_text()
        assert not (gateway.directory / "llmhost/tokens.js").exists()
        nginx(gateway.directory, "-t")
