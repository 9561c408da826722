"""Every shape that nginx's configuration can take, under nginx's own test and a static analyser."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.inventory.reader import read_settings
from llmhost.services import catalogue
from llmhost.services.base import AnyService, Page, Route, Service
from llmhost.services.llamacpp import LlamacppOptions
from tests.integration.local_gateway import nginx, write_tree
from tests.integration.test_gateway_routes import TOY

NEXT_CENTURY = "2100-01-01T00:00:00Z"

# What gixy-ng finds and we keep, with the reason.
ACCEPTED = {
    "hsts_header": "binds browsers on all ports of the host, those of plain HTTP services too",
    "http_splitting": "$gateway_trace is checked character by character in handlers.conf",
    "try_files_is_evil_too": "one failing stat for a refusal, never for a request that is granted",
    "proxy_pass_normalized": "what was judged is what is passed on: see gateway_routes.py",
    "return_bypasses_allow_deny": "those answer refused requests, or after the check",
    "worker_rlimit_nofile_vs_connections": "the test runs with fewer open files",
}
# And where the model of a request decides where it goes.
ACCEPTED_BY_MODEL = {
    "ssrf": "the upstream is one that a map of the configuration names",
    "missing_resolver": "the upstreams have addresses, not names",
}


def client(name: str = "app", **fields: Any) -> dict[str, Any]:
    return {"name": name, "sha256": digest(new_key()), **fields}


SERVERS: dict[str, Any] = {
    "gateway_upstreams": [
        {"name": "llm-1", "address": "10.0.0.1"},
        {"name": "llm-2", "address": "fd00::2", "port": 8443},
    ],
    "gateway_upstream_services": ["llamacpp", "ui"],
    "gateway_upstream_key": "env:GATEWAY_KEY",
    "gateway_upstream_name": "servers.example",
}

VECTOR = {"service": "embeddings", "task": "embed", "source": "https://x/v", "sha256": "2" * 64}

VARIANTS: dict[str, dict[str, Any]] = {
    "nothing declared": {"services": [], "models": [], "api_clients": []},
    "plain HTTP": {"gateway_tls": "off", "api_clients": [client()]},
    "one address": {"gateway_addresses": ["127.0.0.1"], "api_clients": [client()]},
    "IPv6 only": {"gateway_addresses": ["::1"], "api_clients": [client()]},
    "names": {"gateway_names": ["llm.example", "fd00::1"], "api_clients": [client()]},
    "two services": {
        "services": ["llamacpp", "toy"],
        "toy_port": 8199,
        "api_clients": [client(scope=["toy"])],
    },
    "all limits": {
        "api_clients": [
            client("admin", scope="admin"),
            client("bound", sources=["10.0.0.0/8", "fd00::/8"], expires=NEXT_CENTURY),
            client("slow", requests_per_minute=60, burst=0, concurrent_streams=3),
            client(
                "rotated",
                requests_per_minute=600,
                sources=["10.0.0.0/8"],
                previous_sha256=digest(new_key()),
                previous_until=NEXT_CENTURY,
            ),
            client("gone", revoked=True),
        ],
    },
    "patterns and a browser UI": {
        "services": ["llamacpp", "ui"],
        "ui_ui_sources": ["10.0.0.0/8", "fd00::/8"],
        "api_clients": [client(), client("admin", scope="admin")],
    },
    "browser UI in plain HTTP": {
        "services": ["llamacpp", "ui"],
        "gateway_tls": "off",
        "api_clients": [client()],
    },
    "page whose requests need a key": {
        "services": ["llamacpp", "page"],
        "page_ui_sources": ["10.0.0.0/8", "fd00::/8"],
        "gateway_count_tokens": True,
        "api_clients": [client("slow", requests_per_minute=60, tokens_per_day=5), client()],
    },
    "gateway of others": {"services": [], "models": [], "api_clients": [client()], **SERVERS},
    "gateway of others in plain HTTP": {
        "services": [],
        "models": [],
        "api_clients": [client()],
        **SERVERS,
        "gateway_upstream_tls": "off",
    },
    "Ubuntu 22.04": {"gateway_names": ["llm.example"], "api_clients": [client()]},
    "quotas of tokens": {
        "gateway_count_tokens": True,
        "api_clients": [client("capped", tokens_per_day=5, sources=["10.0.0.0/8"]), client()],
    },
    "models at one address": {
        "services": ["llamacpp", "embeddings"],
        "models": [
            {"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64},
            *({**VECTOR, "name": f"a-model-of-embeddings-{i}"} for i in range(60)),
        ],
        "gateway_count_tokens": True,
        "api_clients": [
            client(),
            *(
                client(f"c{i}", scope=["llamacpp", "a-model-of-embeddings-1"], concurrent_streams=i)
                for i in range(1, 60)
            ),
        ],
    },
    "many paths of an app": {
        "apps": [
            {
                "name": "app",
                "image": "registry.example/app:1@sha256:" + "1" * 64,
                "port": 8199,
                "container_port": 8000,
                "health": ["true"],
                "routes": [
                    {"path": f"/a/rather/long/path-{i}/{{name}}", "methods": ["GET"]}
                    for i in range(60)
                ],
            }
        ],
        "api_clients": [client()],
    },
    "hundreds of policies": {
        "api_clients": [client(f"c{i}", sources=[f"10.0.0.{i}"]) for i in range(250)]
    },
    "ten thousand keys": {
        "api_clients": [{"name": f"c{i}", "sha256": digest(new_key())} for i in range(10_000)]
    },
}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    service: AnyService = Service(
        "toy", LlamacppOptions, container_port=8080, routes=(Route("/ask", ("POST",)),)
    )
    monkeypatch.setitem(catalogue(), "toy", service)
    monkeypatch.setitem(catalogue(), "ui", replace(TOY, name="ui"))
    page = Page(("/", "/page.js"), (TOY.routes[0], TOY.routes[1]))
    monkeypatch.setitem(catalogue(), "page", replace(TOY, name="page", page=page))
    monkeypatch.setenv("GATEWAY_KEY", new_key())
    yield


@pytest.fixture(params=VARIANTS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Directory of a configuration as it is deployed, but for its place."""
    model = {"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}
    data = {"services": ["llamacpp"], "models": [model], **VARIANTS[request.param]}
    (tmp_path / "logs").mkdir()
    settings = read_settings({"gateway_ca_directory": str(tmp_path / "ca"), **data})
    version = "1.18.0" if request.param == "Ubuntu 22.04" else ""
    write_tree(settings, tmp_path, version, drained=["llm-1"])
    return tmp_path


def test_nginx_accepts_it_without_a_warning(written: Path) -> None:
    said = nginx(written, "-t").stderr
    complaints = [line for line in said.splitlines() if "[warn]" in line or "[emerg]" in line]
    # Newer versions would like another spelling of HTTP/2, which older ones do not know.
    assert [line for line in complaints if '"listen ... http2"' not in line] == []


def test_static_analyser_finds_nothing_new(written: Path) -> None:
    pytest.importorskip("gixy", reason="gixy-ng is not installed")
    program = Path(sys.executable).with_name("gixy")
    is_by_model = (written / "llmhost/model-routes.conf").exists()
    skipped = [*ACCEPTED, *(ACCEPTED_BY_MODEL if is_by_model else ())]
    command = [str(program), "--skips", ",".join(skipped), str(written / "nginx.conf")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "No issues found" in result.stdout, result.stdout
