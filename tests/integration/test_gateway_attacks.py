"""Thousands of crooked requests without a valid key: none reaches the engine, none is logged whole.

Deterministic: the same seed makes the same requests, so that a failure can be looked at again.
"""

import random
import re
import select
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from llmhost.gateway.keys import digest
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway
from tests.integration.test_gateway import ALICE, inventory

COUNT = 6000

ROUTES = ["/v1/models", "/v1/chat/completions", "/health"]
PATHS = [
    "{0}",
    "/{0}",
    "/.{0}",
    "/%2e{0}",
    "/x/..{0}",
    "/x/..;{0}",
    "/x/%2e%2e{0}",
    "/x/..%2f{0}",
    "{0}/",
    "{0}/.",
    "{0}/..{0}",
    "{0};x=1",
    "{0}%00",
    "{0}%20",
    "{0}?",
    "{0}?{1}",
    "{0}?api_key={1}",
    "{0}?%61pi_key={1}",
    "{0}#{1}",
    "{0}/{1}",
    "/{1}{0}",
    "http://127.0.0.1{0}",
    "http://{1}@127.0.0.1{0}",
    "https://other.example{0}",
    "/_llmhost/pass",
    "/_llmhost/answer",
    "/_llmhost/401",
    "/_llmhost/%70ass",
    "/slots",
    "/nginx_status",
    "*",
    "",
    "\\v1\\models",
    "{0}\\..\\x",
    "/%c0%ae%c0%ae{0}",
    "/" + "a" * 9000,
    "/" + "%2f" * 500 + "{0}",
]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"]
METHODS += ["get", "GE T", "GET\t", "PROPFIND", "X" * 3000, "", "PRI"]
VERSIONS = ["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "http/1.1", "HTTP/1.1 x", ""]
ENDS = ["\r\n"] * 6 + ["\n", "\r", "\r\r\n"]

# What a key may be turned into; none of these is a valid key any more.
KEYS = [
    "",
    ALICE.upper(),
    ALICE.title(),
    ALICE[:-1],
    ALICE[1:],
    ALICE + "0",
    ALICE[::-1],
    digest(ALICE),
    f'"{ALICE}"',
    f"{ALICE},{ALICE}",
    f"{ALICE}\x00",
    f"\u00a0{ALICE}".encode().decode("latin-1"),
    quote(ALICE, safe="").replace("-", "%2d"),
    ALICE.replace("-", "\u2010").encode().decode("latin-1"),
    "*",
    "null",
    "$gateway_key_digest",
    "' OR 1=1",
    "a" * 7000,
]
CARRIERS = [
    "Authorization: Bearer {0}",
    "Authorization: Basic {0}",
    "Authorization: {0}",
    "Authorization:Bearer\t{0}",
    "Authorization : Bearer {0}",
    "X-API-Key: {0}",
    "X_API_Key: {0}",
    "Api-Key: {0}",
    "Proxy-Authorization: Bearer {0}",
    "Cookie: key={0}; Authorization=Bearer {0}",
]
# With these the true key is used: the gateway must not take it from there.
WRONG_PLACES = [
    "Proxy-Authorization: Bearer {0}",
    "Cookie: Authorization=Bearer {0}",
    "X-Api-Token: {0}",
    "Referer: http://x/?key={0}",
    "User-Agent: Bearer {0}",
    "X-Forwarded-Authorization: Bearer {0}",
    "Authorization: Digest {0}",
    "Authorization: Bearer{0}",
    "\tAuthorization: Bearer {0}",
    "X: y\r\n Authorization: Bearer {0}",
]
EXTRAS = [
    "Host: 127.0.0.1",
    "Host: other.example",
    "Host: ",
    "Host: a b",
    "Connection: Authorization, X-API-Key",
    "Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "X-Original-URL: /v1/models",
    "X-Rewrite-URL: /v1/models",
    "X-Accel-Redirect: /v1/models",
    "X-HTTP-Method-Override: GET",
    "X-Forwarded-For: 127.0.0.1",
    "X-Real-IP: 127.0.0.1",
    "Forwarded: for=127.0.0.1",
    "X-Request-ID: " + "z" * 300,
    "Range: bytes=0-0,0-0,0-0",
    "Expect: 100-continue",
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: 5, 6",
    "Content-Length: 5\r\nContent-Length: 6",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Bad Header: x",
    ": x",
    "NoColon",
    "Nul: \x00",
    "Big: " + "b" * 9000,
    "\r\n".join(f"H{i}: {i}" for i in range(150)),
]
INNER = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
BODIES = ["", "{}", "0\r\n\r\n", f"0\r\n\r\n{INNER}", f"5\r\nhello\r\n0\r\n\r\n{INNER}", INNER]


def crooked_request(chance: random.Random) -> bytes:
    """One request, wrong in several ways at once."""
    route = chance.choice(ROUTES)
    path = chance.choice(PATHS).format(route, ALICE)
    end = chance.choice(ENDS)
    lines = [f"{chance.choice(METHODS)} {path} {chance.choice(VERSIONS)}"]
    if chance.random() < 0.8:
        lines.append("Host: 127.0.0.1")
    for _ in range(chance.randrange(3)):
        lines.append(chance.choice(CARRIERS).format(chance.choice(KEYS)))
    if chance.random() < 0.3:
        lines.append(chance.choice(WRONG_PLACES).format(ALICE))
    lines += chance.sample(EXTRAS, chance.randrange(4))
    chance.shuffle(lines[1:])
    return (end.join(lines) + end * 2 + chance.choice(BODIES)).encode("latin-1", "replace")


def answer_to(port: int, request: bytes, patience: float = 0.25) -> bytes:
    """All that comes back. A request that is left without an answer for `patience` seconds, since
    the gateway waits for the rest of it, is ended from here."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        said = b""
        try:
            connection.sendall(request)
            # Not sooner: nginx drops a request whose client is gone before it is passed on.
            select.select([connection], [], [], patience)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                said += part
        except ConnectionError:
            pass
        return said


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(free_ports(1)[0]) as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    data = inventory(engine, gateway_stranger_burst=100_000)
    with local_gateway(data, tmp_path_factory.mktemp("attacked")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def by_model(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """The same engine, if the model of a request decides that it gets it."""
    models = [
        {"name": name, "service": service, "source": "https://x/m.gguf", "sha256": "1" * 64}
        for name, service in (("m", "llamacpp"), ("n", "ollama"))
    ]
    data = inventory(
        engine,
        services=["llamacpp", "ollama"],
        models=models,
        ollama_port=free_ports(9)[-1],
        gateway_stranger_burst=100_000,
    )
    with local_gateway(data, tmp_path_factory.mktemp("attacked-by-model")) as gateway:
        yield gateway


@pytest.mark.parametrize("name", ["gateway", "by_model"])
def test_no_crooked_request_reaches_the_engine(
    request: pytest.FixtureRequest, engine: Engine, name: str
) -> None:
    gateway: LocalGateway = request.getfixturevalue(name)
    chance = random.Random(4)
    requests = list(dict.fromkeys(crooked_request(chance) for _ in range(COUNT)))
    assert len(requests) >= 5000
    port, before = gateway.settings.gateway.port, len(engine.requests)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda request: answer_to(port, request), requests))
    assert [request.target for request in engine.requests[before:]] == []

    statuses: Counter[str] = Counter()
    for sent, answer in zip(requests, answers, strict=True):
        for status in re.findall(rb"^HTTP/1.1 (\d{3}) ", answer, re.MULTILINE):
            statuses[status.decode()] += 1
            assert status[:1] == b"4" or status in (b"501", b"505", b"100"), (sent, answer)
        assert b"nginx/" not in answer and ALICE.encode() not in answer
    # The crooked ways are many, so the refusals are too.
    assert {"400", "401", "404", "405", "414"} <= statuses.keys(), statuses
    # The gateway has not been hurt.
    assert answer_to(port, _get(ALICE), 10).startswith(b"HTTP/1.1 200 ")


def test_no_crooked_request_puts_a_key_into_a_log(gateway: LocalGateway) -> None:
    chance = random.Random(5)
    for _ in range(500):
        answer_to(gateway.settings.gateway.port, crooked_request(chance))
    answer = answer_to(gateway.settings.gateway.port, _get(ALICE, "X-Request-ID: the-last"), 10)
    assert answer and gateway.logged("the-last")
    for spelling in (ALICE, ALICE.upper(), ALICE.title(), ALICE[8:]):
        assert spelling not in gateway.log_texts


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Length: {length}\r\nTransfer-Encoding: chunked", "0\r\n\r\n{inner}"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", "5c\r\n{inner}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\nContent-Length: {length}", "{inner}"),
        ("Content-Length: {length}", "{inner}"),
        ("Content-Length: 0\r\nContent-Length: {length}", "{inner}"),
        ("Transfer-Encoding: chunked", "0\r\nX: {inner}\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n{inner}"),
    ],
)
def test_client_can_not_smuggle_a_request_past_the_gateway(
    gateway: LocalGateway, engine: Engine, headers: str, body: str
) -> None:
    """Not even with a valid key: what is inside a body stays inside, or is judged by itself."""
    inner = "GET /slots HTTP/1.1\r\nHost: x\r\n\r\n"
    text = body.format(inner=inner)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    head += f"Authorization: Bearer {ALICE}\r\n{headers.format(length=len(text))}\r\n\r\n"
    answer_to(gateway.settings.gateway.port, (head + text).encode())
    assert "/slots" not in [request.target for request in engine.requests]


def test_slow_headers_do_not_last(gateway: LocalGateway) -> None:
    """A connection that never ends its headers is closed, and its neighbours are served."""
    port = gateway.settings.gateway.port
    slow = [socket.create_connection(("127.0.0.1", port), timeout=15) for _ in range(300)]
    for connection in slow:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: ")
    assert answer_to(port, _get(ALICE), 10).startswith(b"HTTP/1.1 200 ")
    for connection in slow:
        # A wait longer than client_header_timeout is a TimeoutError.
        with connection, suppress(ConnectionResetError):
            assert connection.recv(4096)[:13] in (b"", b"HTTP/1.1 408 ")


def test_spellings_of_a_header_do_not_fill_a_worker_s_memory(gateway: LocalGateway) -> None:
    """A client may write its key in millions of ways; a worker remembers the usual one."""
    port = gateway.settings.gateway.port

    def ask(spaces: range) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            answers = connection.makefile("rb")
            for number in spaces:
                connection.sendall(_get(" " * number + ALICE))
                assert answers.readline().startswith(b"HTTP/1.1 200 ")
                length = 0
                while line := answers.readline().strip():
                    length = int(line.split()[1]) if line.startswith(b"Content-Length") else length
                answers.read(length)

    ask(range(4000, 4100))
    before = _resident_kib(gateway)
    ask(range(4100, 6100))
    assert _resident_kib(gateway) - before < 4096  # 11 MiB, if all were remembered


def _resident_kib(gateway: LocalGateway) -> int:
    """Memory of all workers together."""
    master = int((gateway.directory / "nginx.pid").read_text())
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    status = "".join(Path(f"/proc/{worker}/status").read_text() for worker in workers)
    return sum(int(size) for size in re.findall(r"VmRSS:\s+(\d+) kB", status))


def _get(key: str, *headers: str) -> bytes:
    lines = ["GET /v1/models HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
