"""The gateway's Perl handlers under valgrind: no release has the fixes of July 2026 to the module.

Decision 98 says for each fix why no handler of ours reaches what it fixes. Here requests of every
kind go through them, and valgrind must find no access to memory that is not theirs.
"""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway, nginx

pytestmark = pytest.mark.machines

VALID, EXPIRING, REVOKED, ADMIN = (new_key() for _ in range(4))
BAD_ACCESS = re.compile(
    r"Invalid (?:read|write|free)|unaddressable|uninitialised|Process terminating"
)

# From the description of nginx's change d9b766966: memory of an eval is used after its end. The
# user is that of the other tests: nginx gives it the directory that it keeps all bodies in.
BROKEN = """
user www-data;
load_module modules/ngx_http_perl_module.so;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/logs/error.log;
events {{}}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            perl 'sub {{
                my $r = shift;
                $r->send_http_header;
                eval q!$r->print("it works")!;
                return OK;
            }}';
        }}
    }}
}}
"""


class Engine(BaseHTTPRequestHandler):
    """Reads what it gets and says ok."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def engine() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture
def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """nginx runs under valgrind from now on; what it found in processes that have ended."""
    real = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    assert real and shutil.which("valgrind")
    place = tmp_path / "bin"
    place.mkdir()
    log = f"--log-file={tmp_path}/valgrind.%p"
    wrapper = f'#!/bin/sh\nexec valgrind -q --vgdb=no --trace-children=yes {log} {real} "$@"\n'
    (place / "nginx").write_text(wrapper)
    (place / "nginx").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("PERL_DESTRUCT_LEVEL", "0")

    def found() -> list[str]:
        text = "".join(each.read_text() for each in tmp_path.glob("valgrind.*"))
        return [line for line in text.splitlines() if BAD_ACCESS.search(line)]

    return found


def inventory(engine: int) -> dict[str, object]:
    port, status = free_ports(2)
    client = {"requests_per_minute": 100_000, "burst": 1000}
    return {
        "services": ["ollama", "llamacpp"],
        "models": [
            {"name": name, "service": service, "source": "https://x/m", "sha256": "1" * 64}
            for name, service in (("brain", "ollama"), ("down", "llamacpp"))
        ],
        "ollama_port": engine,
        "llamacpp_port": free_ports(9)[-1],
        "gateway_fallbacks": {"down": ["brain"]},
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "api_clients": [
            {"name": "valid", "sha256": digest(VALID), **client},
            {
                "name": "expiring",
                "sha256": digest(EXPIRING),
                "expires": "2100-01-01T00:00:00Z",
                **client,
            },
            {"name": "revoked", "sha256": digest(REVOKED), "revoked": True},
            {"name": "admin", "sha256": digest(ADMIN), "scope": "admin", **client},
        ],
    }


def requests() -> Iterator[tuple[str, str, dict[str, str], bytes]]:
    """Requests of each kind: method, path, headers and body."""
    keys = [VALID, EXPIRING, REVOKED, ADMIN, new_key(), "", "x" * 3000, "\xe9".encode().hex()]
    bodies = [
        {"model": "brain", "messages": []},
        {"model": "brain", "keep_alive": 0},
        {"model": "brain", "options": {"num_ctx": 1, "temperature": 0}},
        {"model": "brain", "prompt": "word " * 60_000},
        {"\\u006beep_alive" * 50: [[[[{}]]]] * 50},
    ]
    for key in keys:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for body in bodies:
            yield "POST", "/api/chat", headers, json.dumps(body).encode()
        yield "POST", "/api/chat", headers, b'{"model": "brain", "opt'
        yield "POST", "/api/chat", headers, b""
        yield "POST", "/v1/chat/completions", headers, b"{}"
        for model in ("brain", "down", "unknown", "\u006b", "x" * 3000):
            for more in ({}, {"prompt": "word " * 60_000}, {"Model": "brain"}):
                body = {**more, "model": model, "messages": [{"content": '"{['}]}
                yield "POST", "/v1/chat/completions", headers, json.dumps(body).encode()
        yield "GET", "/v1/models", headers, b""
        yield "GET", "/v1/models/unknown", headers, b""
        yield "GET", "/v1/models/brain", headers | {"X-Request-ID": "an-id.1"}, b""
        yield "GET", "/v1/models?n=1&api_key=x", headers | {"X-Request-ID": "a b"}, b""
        yield "GET", "/nothing?" + "q" * 2000, headers, b""


def load(gateway: LocalGateway) -> set[int]:
    """Send them all, five at a time, with aborted uploads between; the statuses."""

    def send(request: tuple[str, str, dict[str, str], bytes]) -> int:
        method, path, headers, body = request
        return httpx.request(
            method, gateway.url + path, headers=headers, content=body, timeout=60
        ).status_code

    def abort() -> None:
        def body() -> Iterator[bytes]:
            yield b'{"model": '
            raise ConnectionAbortedError

        headers = {"Authorization": f"Bearer {VALID}", "Content-Length": "1000"}
        with pytest.raises(ConnectionAbortedError):
            httpx.post(f"{gateway.url}/api/chat", headers=headers, content=body(), timeout=60)

    with ThreadPoolExecutor(5) as pool:
        sent = [pool.submit(send, request) for request in requests()]
        aborted = [pool.submit(abort) for _ in range(10)]
        for each in aborted:
            each.result()
        return {each.result() for each in sent}


def test_valgrind_sees_what_the_fixes_are_about(
    tmp_path: Path, findings: Callable[[], list[str]]
) -> None:
    """Otherwise the next test would prove nothing."""
    directory, (port,) = tmp_path / "broken", free_ports(1)
    (directory / "logs").mkdir(parents=True)
    (directory / "nginx.conf").write_text(BROKEN.format(directory=directory, port=port))
    nginx(directory)
    try:
        for _ in range(3):
            httpx.get(f"http://127.0.0.1:{port}/", timeout=60)
    finally:
        nginx(directory, "-s", "quit")
        _wait_for_end(directory)
    version = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True).stderr
    fixed = tuple(map(int, re.findall(r"\d+", version)[:3])) >= (1, 31, 4)
    assert findings() or fixed, version


def test_no_handler_uses_memory_that_is_not_its_own(
    tmp_path: Path, engine: int, findings: Callable[[], list[str]]
) -> None:
    data = inventory(engine)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        statuses = load(gateway)
        gateway.reload(data)
        statuses |= load(gateway)
    assert statuses >= {200, 400, 401, 403, 404}, statuses
    assert "failed" not in (tmp_path / "nginx/logs/error.log").read_text()
    assert findings() == []


def _wait_for_end(directory: Path) -> None:
    deadline = time.monotonic() + 60
    while (directory / "nginx.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
