"""The latency report, measured against a server of a known pace, and told in sentences."""

import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.x509 import new_authority
from llmhost.inventory.generating_roles import generating_roles
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from llmhost.resources import FILES
from llmhost.verify.latency import percentile, report, sentence

KEY = "llmhost-" + "c" * 64
FIRST_TOKEN_SECONDS, PACE_SECONDS = 0.06, 0.01


class _Gateway(BaseHTTPRequestHandler):
    """Streams tokens at a known pace to whoever has the key."""

    def do_GET(self) -> None:
        self._answer(b'{"data": [{"id": "tiny"}]}')

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused() or not self._known(asked["model"]):
            return
        self.send_response(200)
        self.end_headers()
        time.sleep(FIRST_TOKEN_SECONDS)
        self.wfile.write(b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n')
        for _ in range(asked["max_tokens"]):
            self.wfile.write(b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n')
            time.sleep(PACE_SECONDS)
        self.wfile.write(b"data: [DONE]\n\n")

    def _known(self, model: str) -> bool:
        """Each model has its own route."""
        route = {"tiny": "/v1", "writer": "/vllm/v1"}.get(model, "/nowhere")
        if self.path == f"{route}/chat/completions":
            return True
        self.send_response(404)
        self.end_headers()
        return False

    def _answer(self, body: bytes) -> None:
        if not self._refused():
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    def _refused(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {KEY}":
            return False
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"error": {"code": "key_unknown"}}')
        return True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def measure(
    directory: Path, url: str, key: str = KEY, role: str = "", chat: str = "", **env: str
) -> list[str]:
    """What the script prints, run as on an application server."""
    path = directory / "llm.env"
    path.write_text(f'# header\nOLLAMA_AUTH_HEADER="Bearer {key}"\nOPENAI_BASE_URL={url}/v1\n')
    with path.open("a") as file:
        file.write(f"OPENAI_API_KEY={key}\n")
    script = str(FILES / "app_server/latency.py")
    command = [sys.executable, "-I", script, str(path), "3", "5", role, "5", chat]
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert key not in result.stdout + result.stderr
    return result.stdout.splitlines()


def test_known_pace_is_measured(tmp_path: Path) -> None:
    with serving() as port:
        found = report("app", "", measure(tmp_path, f"http://127.0.0.1:{port}"))
    assert (found.error, found.model, found.requests, found.tokens) == ("", "tiny", 3, 15)
    assert found.measures
    assert FIRST_TOKEN_SECONDS <= found.measures["first_token_seconds"]["p50"] < 0.5
    assert 20 < found.measures["tokens_per_second"]["p50"] <= 1 / PACE_SECONDS
    assert 0 < found.measures["round_trip_seconds"]["p95"] < FIRST_TOKEN_SECONDS


def test_role_is_called_at_the_route_of_its_service(tmp_path: Path) -> None:
    with serving() as port:
        url, route = f"http://127.0.0.1:{port}", "/vllm/v1/chat/completions"
        lines = measure(tmp_path, url, role="writer", chat=route)
        found = report("app", "writer", lines)
        missing = report("app", "lost", measure(tmp_path, url, role="lost", chat="/lost"))
    assert (found.error, found.model, found.requests) == ("", "writer", 3)
    assert missing.model == "lost" and "answers with 404" in missing.error


def _host(name: str, groups: tuple[str, ...] = (), **data: object) -> SiteHost:
    defaults = {"api_clients": [{"name": "app", "sha256": "ab" * 32}]}
    settings = read_settings({**defaults, **data}, rules=lambda _: ())
    return SiteHost(name, settings, frozenset(groups))


def _model(name: str, service: str, **options: object) -> dict[str, object]:
    pins = {"source": f"https://x.example/{name}.gguf", "sha256": "1" * 64}
    return {"name": name, "service": service, **pins, **options}


MODELS = [
    _model("brain", "ollama"),
    _model("coder", "ollama"),
    _model("find", "ollama", task="embed"),
    _model("writer", "llamacpp"),
]


def test_every_role_that_generates_is_measured_at_its_own_route() -> None:
    services = ["ollama", "llamacpp"]
    routed = _host("llm", services=services, models=MODELS)
    names = ("brain", "coder", "writer")
    assert generating_roles(routed, {"llm": routed}) == dict.fromkeys(names, "/v1/chat/completions")
    server = _host("llm", services=services, models=MODELS, gateway_by_model=False)
    assert generating_roles(server, {"llm": server}) == {
        "brain": "/v1/chat/completions",
        "coder": "/v1/chat/completions",
        "writer": "/llamacpp/v1/chat/completions",
    }


def test_roles_behind_a_gateway_are_those_of_its_servers() -> None:
    server = _host("llm", services=["ollama"], models=MODELS[:3])
    gateway = _host(
        "door",
        ("gateways",),
        gateway_upstreams=[{"name": "llm", "address": "192.0.2.10"}],
        gateway_upstream_services=["ollama"],
        gateway_upstream_key="env:KEY",
    )
    roles = generating_roles(gateway, {"llm": server, "door": gateway})
    assert roles == {"brain": "/v1/chat/completions", "coder": "/v1/chat/completions"}


def test_wrong_key_is_told(tmp_path: Path) -> None:
    with serving() as port:
        found = report("app", "", measure(tmp_path, f"http://127.0.0.1:{port}", "llmhost-wrong"))
    assert "answers with 401 key_unknown: the key is unknown" in found.error


def test_silent_port_is_told(tmp_path: Path) -> None:
    found = report("app", "", measure(tmp_path, "http://127.0.0.1:1"))
    assert "127.0.0.1:1 cannot be reached (Connection refused)" in found.error


def test_unknown_name_is_told(tmp_path: Path) -> None:
    found = report("app", "", measure(tmp_path, "http://llm-server.invalid:8080"))
    assert "the name llm-server.invalid is unknown on this host" in found.error


def test_certificate_of_an_unknown_authority_is_told(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = new_authority(now)
    (tmp_path / "tls.pem").write_bytes(authority.issue(["localhost"], now, 2))
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem")
    with serving(context) as port:
        url = f"https://localhost:{port}"
        assert "does not trust the certificate" in report("app", "", measure(tmp_path, url)).error
        trusted = measure(tmp_path, url, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
        assert report("app", "", trusted).error == ""
        other = measure(
            tmp_path, f"https://127.0.0.1:{port}", SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )
        assert "does not trust the certificate" in report("app", "", other).error


def test_missing_environment_is_told(tmp_path: Path) -> None:
    script = str(FILES / "app_server/latency.py")
    command = [sys.executable, "-I", script, str(tmp_path / "none"), "1", "1", "", "1", ""]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "deploy the host first" in report("app", "", said.splitlines()).error


@pytest.mark.parametrize("lines", [[], ["Traceback"]])
def test_script_that_broke_off_is_told(lines: list[str]) -> None:
    assert report("app", "", lines).error


@pytest.mark.parametrize(
    "told",
    [
        {"error": "python"},
        {"error": "silent", "detail": "5"},
        {"error": "tls", "detail": "TLSV1_UNRECOGNIZED_NAME"},
        {"error": "answer", "detail": "KeyError"},
        *({"error": "refused", "status": s, "code": "c"} for s in (403, 404, 421, 429, 502, 599)),
        {"error": "refused", "status": 200, "code": "no_token"},
    ],
)
def test_every_failure_has_a_sentence(told: dict[str, Any]) -> None:
    assert len(sentence({"host": "llm-server", "port": 8080, **told})) > 30


def test_percentile_is_a_measured_value() -> None:
    values = [float(value) for value in range(1, 21)]
    assert [percentile(values, percent) for percent in (5, 50, 95, 100)] == [1, 10, 19, 20]
    assert percentile([7.0], 5) == percentile([7.0], 95) == 7.0
