"""The gateway's rules under the real nginx, each with its negative."""

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.services import catalogue
from llmhost.services.base import AnyService, Route, Service, ServiceOptions
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway

ALICE, BOB, ADMIN, TOYS, AWAY, GONE, BARRED, ROTATED, OLD, OLDER = (new_key() for _ in range(10))
LAST_YEAR, NEXT_YEAR = (
    (datetime.now(UTC) + timedelta(days=days)).isoformat() for days in (-365, 365)
)


class ToyOptions(ServiceOptions):
    """A second service, to have routes below a name and routes for administrators."""

    image: str = "registry.example/toy:1@sha256:" + "1" * 64
    port: int = 1024


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(free_ports(1)[0]) as engine:
        yield engine


@pytest.fixture(scope="module")
def toy() -> Iterator[Engine]:
    routes = (Route("/ask", ("POST",)), Route("/drop", ("DELETE",), scope="admin"))
    with Engine(free_ports(1)[0]) as engine, pytest.MonkeyPatch.context() as patch:
        service: AnyService = Service("toy", ToyOptions, container_port=8080, routes=routes)
        patch.setitem(catalogue(), "toy", service)
        yield engine


def inventory(engine: Engine, **changes: Any) -> dict[str, Any]:
    port, status_port = free_ports(2)
    return {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": engine.port,
        "gateway_port": port,
        "gateway_status_port": status_port,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_stranger_burst": 1000,
        "api_clients": [{"name": "alice", "sha256": digest(ALICE)}],
        **changes,
    }


def clients() -> list[dict[str, Any]]:
    return [
        {"name": "alice", "sha256": digest(ALICE)},
        {"name": "bob", "sha256": digest(BOB), "sources": ["127.0.0.0/8", "::1/128"]},
        {"name": "admin", "sha256": digest(ADMIN), "scope": "admin", "expires": NEXT_YEAR},
        {"name": "toys", "sha256": digest(TOYS), "scope": ["toy"]},
        {"name": "away", "sha256": digest(AWAY), "sources": ["10.0.0.0/8"], "expires": NEXT_YEAR},
        {"name": "gone", "sha256": digest(GONE), "revoked": True},
        {
            "name": "barred",
            "sha256": digest(BARRED),
            "sources": ["10.0.0.0/8", "fd00::/8"],
        },
        {
            "name": "rotated",
            "sha256": digest(ROTATED),
            "previous_sha256": digest(OLD),
            "previous_until": NEXT_YEAR,
        },
        {
            "name": "rotated-long-ago",
            "sha256": digest(new_key()),
            "previous_sha256": digest(OLDER),
            "previous_until": LAST_YEAR,
        },
    ]


@pytest.fixture(scope="module")
def gateway(
    engine: Engine, toy: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalGateway]:
    services = {"services": ["llamacpp", "toy"], "toy_port": toy.port}
    data = inventory(engine, api_clients=clients(), **services)
    with local_gateway(data, tmp_path_factory.mktemp("nginx")) as gateway:
        yield gateway


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("headers", "method", "path"),
    [
        (bearer(ALICE), "GET", "/v1/models"),
        ({"authorization": f"bearer {ALICE}"}, "GET", "/v1/models"),
        ({"X-API-Key": ALICE}, "GET", "/v1/models"),
        (bearer(ALICE), "GET", "//v1/./x/../models"),
        (bearer(ALICE), "GET", "/v1/models?limit=3"),
        (bearer(ALICE), "POST", "/toy/ask"),
        (bearer(BOB), "GET", "/v1/models"),
        (bearer(TOYS), "POST", "/toy/ask"),
        (bearer(ADMIN), "DELETE", "/toy/drop"),
        (bearer(ADMIN), "GET", "/v1/models"),
        (bearer(ROTATED), "GET", "/v1/models"),
        (bearer(OLD), "GET", "/v1/models"),
    ],
)
def test_what_is_granted_is_passed_on(
    gateway: LocalGateway, headers: dict[str, str], method: str, path: str
) -> None:
    answer = httpx.request(method, gateway.url + path, headers=headers)
    assert answer.status_code == 200, answer.text
    expected = path.removeprefix("/toy").replace("//v1/./x/../", "/v1/")
    assert answer.json()["target"] == expected


REFUSALS = [
    ("no key", {}, "GET", "/v1/models", 401, "key_missing"),
    ("wrong key", bearer(new_key()), "GET", "/v1/models", 401, "key_unknown"),
    ("upper case", bearer(ALICE.upper()), "GET", "/v1/models", 401, "key_unknown"),
    ("cut short", bearer(ALICE[:-1]), "GET", "/v1/models", 401, "key_unknown"),
    ("too long", bearer(ALICE + "0"), "GET", "/v1/models", 401, "key_unknown"),
    ("two keys", bearer(f"{ALICE} {BOB}"), "GET", "/v1/models", 401, "key_missing"),
    ("digest", bearer(digest(ALICE)), "GET", "/v1/models", 401, "key_unknown"),
    ("other scheme", {"Authorization": f"Basic {ALICE}"}, "GET", "/v1/models", 401, "key_missing"),
    ("key in address", {}, "GET", f"/v1/models?api_key={ALICE}", 401, "key_in_address"),
    ("and in header", bearer(ALICE), "GET", f"/v1/models?key={ALICE}", 401, "key_in_address"),
    ("unknown route", bearer(ALICE), "GET", "/slots", 404, "route_unknown"),
    ("below a route", bearer(ALICE), "GET", "/v1/models/x", 404, "route_unknown"),
    ("other case", bearer(ALICE), "GET", "/V1/models", 404, "route_unknown"),
    ("internal route", bearer(ALICE), "GET", "/_llmhost/answer", 404, "route_unknown"),
    ("internal door", bearer(ALICE), "GET", "/_llmhost/pass", 404, "route_unknown"),
    ("service without its name", bearer(ALICE), "POST", "/ask", 404, "route_unknown"),
    ("first service by name", bearer(ALICE), "GET", "/llamacpp/v1/models", 404, "route_unknown"),
    ("other's service", bearer(TOYS), "GET", "/v1/models", 403, "scope_denied"),
    ("administrator's route", bearer(ALICE), "DELETE", "/toy/drop", 403, "scope_denied"),
    ("its own service's too", bearer(TOYS), "DELETE", "/toy/drop", 403, "scope_denied"),
    ("other network", bearer(BARRED), "GET", "/v1/models", 403, "source_denied"),
    ("other network, key ends", bearer(AWAY), "GET", "/v1/models", 403, "source_denied"),
    ("revoked", bearer(GONE), "GET", "/v1/models", 401, "key_revoked"),
    ("rotated long ago", bearer(OLDER), "GET", "/v1/models", 401, "key_expired"),
    ("wrong method", bearer(ALICE), "POST", "/v1/models", 405, "method_denied"),
    ("stranger, no route", {}, "GET", "/slots", 401, "key_missing"),
    ("stranger, internal", {}, "GET", "/_llmhost/answer", 404, "route_unknown"),
    ("stranger, door", {}, "GET", "/_llmhost/pass", 401, "key_missing"),
]


@pytest.mark.parametrize(
    ("headers", "method", "path", "status", "code"),
    [case[1:] for case in REFUSALS],
    ids=[case[0] for case in REFUSALS],
)
def test_refusal_is_told_as_openai_clients_expect(
    gateway: LocalGateway,
    engine: Engine,
    headers: dict[str, str],
    method: str,
    path: str,
    status: int,
    code: str,
) -> None:
    reached = len(engine.requests)
    answer = httpx.request(method, gateway.url + path, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code and error["message"] and error["type"] and error["param"] is None
    assert answer.headers["content-type"] == "application/json"
    assert len(engine.requests) == reached
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    if status == 405:
        assert answer.headers["allow"] == "GET"


def test_engine_learns_neither_key_nor_origin(gateway: LocalGateway, engine: Engine) -> None:
    private = {"Origin": "https://evil.example", "Cookie": "a=b", "Referer": "https://x/"}
    headers = {**bearer(ALICE), **private, "X-Request-ID": "trace-1"}
    answer = httpx.get(f"{gateway.url}/v1/models", headers=headers)
    got = engine.requests[-1].headers
    assert not {"authorization", "x-api-key", "origin", "cookie", "referer"} & got.keys()
    assert got["x-request-id"] == "trace-1" == answer.headers["x-request-id"]
    assert ALICE not in str(engine.requests[-1])


def test_request_without_an_id_is_given_one(gateway: LocalGateway, engine: Engine) -> None:
    odd = {**bearer(ALICE), "X-Request-ID": "two words"}
    for headers in (bearer(ALICE), odd):
        answer = httpx.get(f"{gateway.url}/v1/models", headers=headers)
        assert re.fullmatch(r"[\d.]+-\d+-\d+", answer.headers["x-request-id"])
        assert engine.requests[-1].headers["x-request-id"] == answer.headers["x-request-id"]


def test_version_of_nginx_is_not_shown(gateway: LocalGateway) -> None:
    for path in ("/v1/models", "/nothing", "/%00"):
        answer = httpx.get(gateway.url + path)
        assert answer.headers["server"] == "nginx"
        assert "nginx/" not in answer.text


def test_stream_arrives_chunk_by_chunk(gateway: LocalGateway) -> None:
    asked = {"stream": True, "chunks": 5, "interval": 0.1}
    url, arrivals = f"{gateway.url}/v1/chat/completions", []
    with httpx.stream("POST", url, headers=bearer(ALICE), json=asked) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        for line in answer.iter_lines():
            if line:
                arrivals.append(time.monotonic())
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert len(arrivals) == 6
    assert all(0.05 < gap < 0.2 for gap in gaps[:4]), gaps


def test_client_that_hangs_up_frees_the_engine(gateway: LocalGateway, engine: Engine) -> None:
    before = engine.abandoned
    asked = {"stream": True, "chunks": 200, "interval": 0.02}
    url = f"{gateway.url}/v1/chat/completions"
    with httpx.stream("POST", url, headers=bearer(ALICE), json=asked) as answer:
        next(answer.iter_lines())
    for _ in range(50):
        if engine.abandoned > before:
            return
        time.sleep(0.05)
    pytest.fail("the engine went on streaming to nobody")


def test_lines_of_json_arrive_one_by_one(gateway: LocalGateway) -> None:
    """As Ollama streams; the toy's route stands in for its."""
    asked = {"stream": True, "lines": True, "chunks": 4, "interval": 0.1}
    url, arrivals = f"{gateway.url}/toy/ask", []
    with httpx.stream("POST", url, headers=bearer(TOYS), json=asked) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        for _ in answer.iter_lines():
            arrivals.append(time.monotonic())
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert len(gaps) == 3 and all(0.05 < gap < 0.3 for gap in gaps), gaps


def test_body_over_the_limit_is_refused(engine: Engine, tmp_path: Path) -> None:
    with local_gateway(inventory(engine, gateway_max_body_mib=1), tmp_path) as gateway:
        url, large = f"{gateway.url}/v1/chat/completions", b"x" * 2**21
        refused = httpx.post(url, headers=bearer(ALICE), content=large)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
        # A stranger is told that before anything about sizes.
        assert httpx.post(url, content=large).status_code == 401
        assert httpx.post(url, headers=bearer(ALICE), content=b"x" * 2**19).status_code == 200


def test_key_expires_without_a_deploy(engine: Engine, tmp_path: Path) -> None:
    end = datetime.now(UTC) + timedelta(seconds=3)
    client = {"name": "alice", "sha256": digest(ALICE), "expires": end.isoformat()}
    with local_gateway(inventory(engine, api_clients=[client]), tmp_path) as gateway:
        url = f"{gateway.url}/v1/models"
        assert httpx.get(url, headers=bearer(ALICE)).status_code == 200
        time.sleep(max(0, (end - datetime.now(UTC)).total_seconds()))
        refused = httpx.get(url, headers=bearer(ALICE))
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "key_expired")


def test_client_is_held_to_its_pace(engine: Engine, tmp_path: Path) -> None:
    hurried = {"requests_per_minute": 30, "burst": 2}
    pair = [
        {"name": "alice", "sha256": digest(ALICE), **hurried},
        {"name": "bob", "sha256": digest(BOB), **hurried},
        {"name": "admin", "sha256": digest(ADMIN)},
    ]
    with local_gateway(inventory(engine, api_clients=pair), tmp_path) as gateway:
        url = f"{gateway.url}/v1/models"
        answers = [httpx.get(url, headers=bearer(ALICE)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].headers["retry-after"] == "2"
        assert answers[-1].json()["error"]["type"] == "rate_limit_error"
        assert gateway.logged(answers[-1].headers["x-request-id"])["client"] == "alice"
        # Whoever keeps to it, behind the same address, is not held up.
        assert httpx.get(url, headers=bearer(BOB)).status_code == 200
        assert all(httpx.get(url, headers=bearer(ADMIN)).status_code == 200 for _ in range(10))
        time.sleep(2)
        assert httpx.get(url, headers=bearer(ALICE)).status_code == 200


def test_client_has_no_more_streams_than_it_may(engine: Engine, tmp_path: Path) -> None:
    client = {"name": "alice", "sha256": digest(ALICE), "concurrent_streams": 2}
    with local_gateway(inventory(engine, api_clients=[client]), tmp_path) as gateway:
        url = f"{gateway.url}/v1/chat/completions"
        asked = {"stream": True, "chunks": 100, "interval": 0.05}

        def stream() -> AbstractContextManager[httpx.Response]:
            return httpx.stream("POST", url, headers=bearer(ALICE), json=asked)

        with stream() as one, stream() as two, stream() as three:
            assert [one.status_code, two.status_code] == [200, 200]
            assert (three.status_code, three.headers["retry-after"]) == (429, "1")
        time.sleep(0.3)
        with stream() as again:
            assert again.status_code == 200


def test_strangers_are_slowed_down_and_their_neighbours_are_not(
    engine: Engine, tmp_path: Path
) -> None:
    slow = {"gateway_stranger_requests_per_minute": 6, "gateway_stranger_burst": 3}
    with local_gateway(inventory(engine, **slow), tmp_path) as gateway:
        url = f"{gateway.url}/v1/models"
        answers = [httpx.get(url, headers=bearer(new_key())) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [401] * 4 + [429] * 2
        assert answers[-1].headers["retry-after"] == "10"
        assert httpx.get(url, headers=bearer(ALICE)).status_code == 200
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=elsewhere) as neighbour:
            assert neighbour.get(url).status_code == 401


def test_engine_that_is_gone_is_told_as_json(engine: Engine, tmp_path: Path) -> None:
    nobody = 1024
    with local_gateway(inventory(engine, llamacpp_port=nobody), tmp_path) as gateway:
        answer = httpx.get(f"{gateway.url}/v1/models", headers=bearer(ALICE))
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_silent")
        line = gateway.logged(answer.headers["x-request-id"])
        assert (line["client"], line["route"], line["status"]) == ("alice", "/v1/models", 502)


def test_errors_of_the_engine_are_its_own(gateway: LocalGateway) -> None:
    headers = {**bearer(ALICE), "X-Request-ID": "own-error"}
    url = f"{gateway.url}/v1/chat/completions"
    answer = httpx.post(url, headers=headers, json={"status": 404})
    assert answer.status_code == 404 and "target" in answer.json()
    assert gateway.logged("own-error")["refusal"] == ""


def test_engine_does_not_steer_the_gateway(gateway: LocalGateway) -> None:
    steer = {"X-Accel-Redirect": "/v1/models", "X-Request-ID": "forged"}
    url = f"{gateway.url}/v1/chat/completions"
    answer = httpx.post(url, headers=bearer(ALICE), json={"headers": steer})
    assert answer.json()["target"] == "/v1/chat/completions"
    assert answer.headers["x-request-id"] != "forged"


def test_log_names_client_route_and_figures(gateway: LocalGateway) -> None:
    url = f"{gateway.url}/v1/chat/completions"
    answer = httpx.post(url, headers={**bearer(BOB), "X-Request-ID": "trace-2"}, json={})
    line = gateway.logged("trace-2")
    assert (line["client"], line["method"], line["route"]) == ("bob", "POST", httpx.URL(url).path)
    assert (line["status"], line["refusal"], line["address"]) == (200, "", "127.0.0.1")
    assert line["bytes_in"] > 0 and line["bytes_out"] > len(answer.content)
    assert 0 <= float(line["first_byte_seconds"]) <= line["seconds"] + 0.01


def test_log_names_the_client_that_was_refused(gateway: LocalGateway) -> None:
    answer = httpx.post(f"{gateway.url}/slots", headers=bearer(ALICE))
    line = gateway.logged(answer.headers["x-request-id"])
    assert (line["client"], line["route"], line["refusal"]) == ("alice", "", "route_unknown")
    assert line["method"] == "POST"


def test_no_log_holds_a_key_or_a_prompt(gateway: LocalGateway) -> None:
    secret = "prompt-that-nobody-else-may-read"
    chat = f"{gateway.url}/v1/chat/completions"
    httpx.post(chat, headers=bearer(BOB), json={"prompt": secret})
    # Larger than any buffer in memory, and with an engine that is not there.
    httpx.post(chat, headers=bearer(ALICE), content=secret.encode() * 100_000)
    httpx.get(f"{gateway.url}/v1/models?api_key={BOB}&prompt={secret}")
    httpx.get(f"{gateway.url}/v1/models?key={BOB}", headers=bearer(ALICE))
    last = httpx.get(f"{gateway.url}/{BOB}/{secret}", headers=bearer(ALICE))
    gateway.logged(last.headers["x-request-id"])
    for unspeakable in (ALICE, BOB, secret):
        assert unspeakable not in gateway.log_texts


def test_running_nginx_tells_which_configuration_it_has(gateway: LocalGateway) -> None:
    status = f"http://127.0.0.1:{gateway.settings.gateway.status_port}"
    assert len(httpx.get(f"{status}/configuration").text.strip()) == 64
    assert "Active connections" in httpx.get(f"{status}/status").text
    assert httpx.get(f"{gateway.url}/configuration").status_code == 401
