"""One gateway before several LLM servers, all of them the real nginx: who is asked, and when again.

The servers' engines are doubles; everything else is as it is deployed, TLS included.
"""

import json
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.services import catalogue
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway

CLIENT, ADMIN, GATEWAY = new_key(), new_key(), new_key()
NAME = "servers.example"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Pool:
    """A gateway, the servers behind it, and their engines."""

    gateway: LocalGateway
    data: dict[str, Any]
    servers: list[LocalGateway]
    engines: list[Engine]

    def ask(self, method: str = "GET", path: str = "/v1/models", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {CLIENT}", **more.pop("headers", {})}
        trust = self.trust if self.gateway.settings.gateway.ca_certificate else True
        url = self.gateway.url + path
        return httpx.request(method, url, headers=headers, verify=trust, timeout=20, **more)

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.gateway.settings.gateway.ca_certificate))

    def counts(self) -> list[int]:
        return [len(engine.requests) for engine in self.engines]


def server_data(place: Path, engine: Engine, tls: str) -> dict[str, Any]:
    port, status = free_ports(2)
    return {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": engine.port,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_metrics_port": None,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": tls,
        "gateway_names": [NAME],
        "gateway_ca_directory": str(place / "ca"),
        "api_clients": [
            {"name": "gate", "sha256": digest(GATEWAY), "sources": ["127.0.0.1"], "scope": "admin"}
        ],
    }


@contextmanager
def running(place: Path, count: int = 2, tls: str = "ca", **changes: Any) -> Iterator[Pool]:
    """A pool of `count` servers; `changes` are the gateway's options."""
    key = place / "gate.key"
    key.write_text(f"{GATEWAY}\n")
    with ExitStack() as stack:
        engines = [stack.enter_context(Engine(free_ports(1)[0])) for _ in range(count)]
        servers = [
            stack.enter_context(
                local_gateway(server_data(place, engine, tls), place / f"s{number}")
            )
            for number, engine in enumerate(engines, start=1)
        ]
        port, status = free_ports(2)
        data = {
            "gateway_upstreams": [
                {"name": f"s{n}", "address": "127.0.0.1", "port": each.settings.gateway.port}
                for n, each in enumerate(servers, start=1)
            ],
            "gateway_upstream_services": ["llamacpp"],
            "gateway_upstream_key": f"file:{key}",
            "gateway_upstream_name": NAME,
            "gateway_upstream_tls": tls,
            "gateway_port": port,
            "gateway_status_port": status,
            "gateway_metrics_port": None,
            "gateway_addresses": ["127.0.0.1"],
            "gateway_tls": tls,
            "gateway_names": ["127.0.0.1"],
            "gateway_ca_directory": str(place / "ca"),
            "gateway_stranger_burst": 1000,
            "api_clients": [
                {"name": "app", "sha256": digest(CLIENT)},
                {"name": "admin", "sha256": digest(ADMIN), "scope": "admin"},
            ],
            **changes,
        }
        gateway = stack.enter_context(local_gateway(data, place / "gate"))
        yield Pool(gateway, data, servers, engines)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with running(tmp_path_factory.mktemp("pool")) as pool:
        yield pool


def test_requests_are_spread_over_the_servers(pool: Pool) -> None:
    before = pool.counts()
    for _ in range(20):
        assert pool.ask().status_code == 200
    grown = [now - then for now, then in zip(pool.counts(), before, strict=True)]
    assert sum(grown) == 20 and min(grown) >= 8


def test_next_request_goes_to_the_least_busy_server(pool: Pool) -> None:
    """Long streams stay where they are; short requests go around them."""
    before = pool.counts()
    asked = {"stream": True, "chunks": 30, "interval": 0.1}
    with httpx.Client(verify=pool.trust, timeout=20) as client, ExitStack() as streams:
        headers = {"Authorization": f"Bearer {CLIENT}"}
        url = pool.gateway.url + CHAT
        for _ in range(2):
            streams.enter_context(client.stream("POST", url, headers=headers, json=asked))
        held = [now - then for now, then in zip(pool.counts(), before, strict=True)]
        assert held == [1, 1]
        # One more makes one server the busier one: all that follow go to the other.
        streams.enter_context(client.stream("POST", url, headers=headers, json=asked))
        busier = max(range(2), key=lambda n: pool.counts()[n] - before[n])
        before = pool.counts()
        for _ in range(6):
            assert pool.ask().status_code == 200
        assert pool.counts()[busier] == before[busier]


def test_clients_are_known_at_the_gateway_and_the_gateway_at_the_servers(pool: Pool) -> None:
    answer = pool.ask(headers={"X-Request-ID": "through-both"})
    assert answer.headers["x-request-id"] == "through-both"
    assert pool.gateway.logged("through-both")["client"] == "app"
    time.sleep(1.1)  # the servers' logs are written within a second
    lines = [
        json.loads(line)
        for server in pool.servers
        for line in (server.directory / "logs/gateway.json").read_text().splitlines()
    ]
    [line] = [line for line in lines if line["id"] == "through-both"]
    assert (line["client"], line["route"], line["status"]) == ("gate", "/v1/models", 200)


def test_no_key_reaches_an_engine_and_the_client_s_no_server(pool: Pool) -> None:
    pool.ask()
    seen = [str(request) for engine in pool.engines for request in engine.requests]
    assert not any("llmhost-" in text for text in seen)
    logs = "".join(each.log_texts for each in (pool.gateway, *pool.servers))
    assert CLIENT not in logs and GATEWAY not in logs


@pytest.mark.parametrize(
    "key", ["none", new_key(), GATEWAY], ids=["no key", "unknown", "the gateway's own"]
)
def test_gateway_refuses_before_a_server_is_asked(pool: Pool, key: str) -> None:
    before = pool.counts()
    assert pool.ask(headers={"Authorization": f"Bearer {key}"}).status_code == 401
    assert pool.ask(path="/slots").status_code == 404
    assert pool.counts() == before


def test_key_of_the_gateway_is_readable_by_its_owner_only(pool: Pool) -> None:
    private = [
        path.name
        for path in (pool.gateway.directory / "llmhost").iterdir()
        if GATEWAY in path.read_text()
    ]
    assert private == ["upstream-key.conf"]


def test_stream_passes_both_gateways_chunk_by_chunk(pool: Pool) -> None:
    asked, arrivals = {"stream": True, "chunks": 5, "interval": 0.1}, []
    headers = {"Authorization": f"Bearer {CLIENT}"}
    url = pool.gateway.url + CHAT
    with httpx.stream("POST", url, headers=headers, json=asked, verify=pool.trust) as answer:
        for line in answer.iter_lines():
            arrivals += [time.monotonic()] if line else []
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert len(arrivals) == 6 and all(0.05 < gap < 0.3 for gap in gaps[:4]), gaps


def test_server_that_is_gone_costs_no_request(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(running(tmp_path, 2))
        gone = pool.data["gateway_upstreams"][0] | {"port": 1}
        data = pool.data | {"gateway_upstreams": [gone, pool.data["gateway_upstreams"][1]]}
        pool.gateway.reload(data)
        time.sleep(0.5)
        # POST too: nothing was sent to the server that refused the connection.
        answers = [pool.ask("POST", CHAT, json={"n": n}).status_code for n in range(10)]
        assert answers == [200] * 10
        assert pool.counts() == [0, 10]
        pool.gateway.reload(pool.data)


def test_engine_that_is_down_makes_its_server_rest(tmp_path: Path) -> None:
    """Without that, the server that fails at once would be the least busy one, and get them all."""
    with running(tmp_path) as pool:
        pool.engines[0].__exit__(None, None, None)
        try:
            statuses = Counter(pool.ask("POST", CHAT, json={"n": n}).status_code for n in range(20))
            # Each of two workers may have asked before it learned of the failures; a POST that was
            # sent is not sent again.
            assert statuses[200] >= 16 and statuses.keys() <= {200, 502}, statuses
            assert len(pool.engines[1].requests) == statuses[200]
            # What may be asked twice never fails.
            assert {pool.ask().status_code for _ in range(20)} == {200}
        finally:
            pool.engines[0].__enter__()


def test_request_that_was_sent_is_never_sent_again(tmp_path: Path) -> None:
    """An engine that dies while it answers has perhaps done the work."""
    with running(tmp_path) as pool:
        before = sum(pool.counts())
        answer = pool.ask("POST", CHAT, json={"hang_up": True})
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_silent")
        assert sum(pool.counts()) == before + 1


def test_client_of_a_server_is_told_of_its_engine_all_the_same(tmp_path: Path) -> None:
    with running(tmp_path, 1) as pool:
        pool.engines[0].__exit__(None, None, None)
        try:
            server = pool.servers[0]
            url = server.settings.gateway.url("127.0.0.1") + "/v1/models"
            headers = {"Authorization": f"Bearer {GATEWAY}", "Host": NAME}
            answer = httpx.get(url, headers=headers, verify=False)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_silent")
        finally:
            pool.engines[0].__enter__()


def test_drained_server_finishes_what_it_has_and_gets_nothing_new(tmp_path: Path) -> None:
    with running(tmp_path) as pool, ThreadPoolExecutor() as threads:
        asked = {"stream": True, "chunks": 12, "interval": 0.2}
        running_stream = threads.submit(pool.ask, "POST", CHAT, json=asked)
        time.sleep(0.5)
        busy = pool.counts().index(1)
        pool.gateway.reload(pool.data, drained=[f"s{busy + 1}"])
        time.sleep(0.5)
        for _ in range(10):
            assert pool.ask().status_code == 200
        assert pool.counts()[busy] == 1
        assert running_stream.result().text.count("data: ") == 13
        pool.gateway.reload(pool.data)
        time.sleep(0.5)
        for _ in range(10):
            assert pool.ask().status_code == 200
        assert pool.counts()[busy] > 1


def test_server_with_another_authority_is_not_trusted(tmp_path: Path) -> None:
    with running(tmp_path) as pool:
        (tmp_path / "other").mkdir()
        data = pool.data | {"gateway_ca_directory": str(tmp_path / "other")}
        before = pool.counts()
        (tmp_path / "second").mkdir()
        port, status = free_ports(2)
        data |= {"gateway_port": port, "gateway_status_port": status, "gateway_tls": "off"}
        with local_gateway(data, tmp_path / "second" / "gate") as stranger:
            headers = {"Authorization": f"Bearer {CLIENT}"}
            answer = httpx.get(f"{stranger.url}/v1/models", headers=headers)
        assert (answer.status_code, pool.counts()) == (502, before)


def test_servers_may_speak_plain_http(tmp_path: Path) -> None:
    with running(tmp_path, tls="off", gateway_upstream_name=None) as pool:
        assert pool.ask().status_code == 200
        assert sum(pool.counts()) == 1


def test_routes_of_second_service_lead_to_the_servers_second_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's paths are the servers' own, patterns included."""
    from tests.integration.test_gateway_routes import TOY

    monkeypatch.setitem(catalogue(), "toy", TOY)
    engine = Engine(free_ports(1)[0])
    with engine:
        server = server_data(tmp_path, engine, "off")
        server |= {"services": ["llamacpp", "toy"], "toy_port": engine.port, "llamacpp_port": 1025}
        with local_gateway(server, tmp_path / "server") as behind:
            key = tmp_path / "gate.key"
            key.write_text(GATEWAY)
            port, status = free_ports(2)
            data = {
                "gateway_upstreams": [
                    {"name": "s", "address": "127.0.0.1", "port": behind.settings.gateway.port}
                ],
                "gateway_upstream_services": ["llamacpp", "toy"],
                "gateway_upstream_key": f"file:{key}",
                "gateway_upstream_tls": "off",
                "gateway_port": port,
                "gateway_status_port": status,
                "gateway_addresses": ["127.0.0.1"],
                "gateway_tls": "off",
                "api_clients": [{"name": "toys", "sha256": digest(CLIENT), "scope": ["toy"]}],
            }
            with local_gateway(data, tmp_path / "gate") as gateway:
                headers = {"Authorization": f"Bearer {CLIENT}"}
                url = f"{gateway.url}/toy/collections/red%20ish"
                assert httpx.get(url, headers=headers).status_code == 404
                url = f"{gateway.url}/toy/collections/red?limit=2"
                assert (
                    httpx.get(url, headers=headers).json()["target"] == "/collections/red?limit=2"
                )
                other = httpx.get(f"{gateway.url}/v1/models", headers=headers)
                assert other.json()["error"]["code"] == "scope_denied"
