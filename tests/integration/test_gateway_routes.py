"""Routes with parameters, and browser UIs on ports of their own, under the real nginx."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.services import catalogue
from llmhost.services.base import AnyService, Route, Service
from tests.doubles.engine import Engine
from tests.integration.local_gateway import (
    LocalGateway,
    ToyOptions,
    free_ports,
    local_gateway,
    toy_inventory,
)

CLIENT, ADMIN = new_key(), new_key()
# Tests are told who asks by name: a key in their own names would be another in each process.
KEYS = {"client": CLIENT, "admin": ADMIN, "stranger": ""}


ROUTES = (
    Route("/collections", ("GET",)),
    Route("/collections/{collection}", ("GET",)),
    Route("/collections/{collection}", ("PUT", "DELETE"), scope="admin"),
    Route("/collections/{collection}/points/{point}", ("GET",)),
    Route("/collections/all/points", ("GET",)),
    Route("/files/{path...}", ("GET",)),
    Route("/secret", ("GET",), scope="admin"),
    Route("/secret/{rest...}", ("GET",)),
)
TOY: AnyService = Service("toy", ToyOptions, container_port=8080, routes=ROUTES)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(free_ports(1)[0]) as engine:
        yield engine


def inventory(engine: Engine, **changes: Any) -> dict[str, Any]:
    clients: list[dict[str, Any]] = [
        {"name": "app", "sha256": digest(CLIENT)},
        {"name": "admin", "sha256": digest(ADMIN), "scope": "admin"},
    ]
    return toy_inventory(engine.port, clients) | changes


@pytest.fixture(scope="module")
def gateway(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue(), "toy", TOY)
        with local_gateway(inventory(engine), tmp_path_factory.mktemp("nginx")) as gateway:
            yield gateway


def raw(port: int, method: str, target: str, key: str, *headers: str) -> bytes:
    """An answer to a request whose target no client library has tidied up."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, *headers, "", ""]).encode())
        said = b""
        while part := connection.recv(65536):
            said += part
    return said


def status(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("who", "method", "target", "passed_on"),
    [
        ("client", "GET", "/toy/collections", "/collections"),
        ("client", "GET", "/toy/collections/red", "/collections/red"),
        ("client", "GET", "/toy/collections/red?limit=3", "/collections/red?limit=3"),
        ("client", "GET", "/toy/collections/a.b-c_d~e:f@g+h=i,j", None),
        ("client", "GET", "/toy/collections/%72ed", "/collections/red"),
        ("client", "GET", "/toy/collections/red/points/7", "/collections/red/points/7"),
        ("client", "GET", "/toy/collections/all/points", "/collections/all/points"),
        ("client", "GET", "/toy/files/a/b/c.txt", "/files/a/b/c.txt"),
        ("client", "GET", "/toy/files/a%2Fb", "/files/a/b"),
        # As Next.js names the files of its pages.
        ("client", "GET", "/toy/files/app/(shop)/%5Bid%5D/p-1.js", "/files/app/(shop)/[id]/p-1.js"),
        ("admin", "PUT", "/toy/collections/red", "/collections/red"),
        ("admin", "DELETE", "/toy/collections/red", "/collections/red"),
        # What the engine is sent is what was judged: the tidied path, not the one that was written.
        ("client", "GET", "/toy//collections/./x/../red", "/collections/red"),
        ("client", "GET", "/slots/..%2ftoy/collections/red", "/collections/red"),
    ],
)
def test_route_with_a_parameter_is_passed_on(
    gateway: LocalGateway, engine: Engine, who: str, method: str, target: str, passed_on: str | None
) -> None:
    answer = raw(gateway.settings.gateway.port, method, target, KEYS[who])
    assert status(answer) == 200, answer
    assert engine.requests[-1].target == (passed_on or target.removeprefix("/toy"))


@pytest.mark.parametrize(
    ("who", "method", "target", "refused_with"),
    [
        ("stranger", "GET", "/toy/collections/red", 401),
        ("client", "PUT", "/toy/collections/red", 403),
        ("client", "DELETE", "/toy/collections/red", 403),
        ("client", "POST", "/toy/collections/red", 405),
        ("client", "GET", "/collections/red", 404),
        ("client", "GET", "/toy/collections/", 404),
        ("client", "GET", "/toy/collections/red/", 404),
        ("client", "GET", "/toy/collections/red/points", 404),
        ("client", "GET", "/toy/collections/red/points/", 404),
        ("client", "GET", "/toy/collections/red/points/7/x", 404),
        ("client", "GET", "/toy/COLLECTIONS/red", 404),
        ("client", "GET", "/TOY/collections/red", 404),
        ("client", "GET", "/toy/Collections", 404),
        ("client", "GET", "/toy/collections/ALL/points", 404),
        ("client", "GET", "/toy/files", 404),
        ("client", "GET", "/toy/files/", 404),
        ("client", "GET", "/toy/files/a/../../secret", 403),
        ("client", "GET", "/toy/files/a%2F..%2F..%2Fsecret", 403),
        ("client", "GET", "/toy/collections/red%0a", 404),
        ("client", "GET", "/toy/collections/red%0d%0aX:%20y", 404),
        ("client", "GET", "/toy/collections/a%20b", 404),
        ("client", "GET", "/toy/collections/a%5c..%5cb", 404),
        ("client", "GET", "/toy/collections/..;", 404),
        ("client", "GET", "/toy/collections/%252e%252e", 404),
        ("client", "GET", "/toy/collections/a%3fb", 404),
        ("client", "GET", "/toy/collections/a%23b", 404),
        ("client", "GET", "/toy/collections/%ff", 404),
        ("client", "GET", "/toy/collections/%00", 400),
    ],
)
def test_what_is_no_parameter_is_refused(
    gateway: LocalGateway, engine: Engine, who: str, method: str, target: str, refused_with: int
) -> None:
    reached = len(engine.requests)
    answer = raw(gateway.settings.gateway.port, method, target, KEYS[who])
    assert (status(answer), len(engine.requests)) == (refused_with, reached), answer


def test_admin_s_route_in_another_case_is_not_taken_for_a_pattern(
    gateway: LocalGateway, engine: Engine
) -> None:
    """nginx's maps ignore case: `/ALL/points` would be granted as the exact route."""
    reached = len(engine.requests)
    for target in ("/toy/SECRET", "/toy/Secret", "/toy/collections/All/points"):
        answer = raw(gateway.settings.gateway.port, "GET", target, ADMIN)
        assert status(answer) == 404, answer
        assert b"route_unknown" in answer
    assert len(engine.requests) == reached


def test_log_names_the_pattern_and_not_the_parameter(gateway: LocalGateway) -> None:
    headers = {"Authorization": f"Bearer {CLIENT}", "X-Request-ID": "which-route"}
    httpx.get(f"{gateway.url}/toy/collections/private-matter", headers=headers)
    assert gateway.logged("which-route")["route"] == "/toy/collections/{collection}"
    assert "private-matter" not in gateway.log_texts


def ui_url(gateway: LocalGateway) -> str:
    return gateway.url.replace(
        str(gateway.settings.gateway.port), str(gateway.settings.uis["toy"].ui_port)
    )


def test_browser_reaches_the_ui_without_a_key(gateway: LocalGateway, engine: Engine) -> None:
    headers = {"Cookie": "session=1", "Authorization": "Bearer its-own", "Origin": "http://x"}
    answer = httpx.get(f"{ui_url(gateway)}/static/app.js?v=1", headers=headers)
    assert answer.json()["target"] == "/static/app.js?v=1"
    got = engine.requests[-1].headers
    # Its own login needs what an engine behind the API never sees.
    assert (got["cookie"], got["authorization"]) == ("session=1", "Bearer its-own")
    assert got["host"] == httpx.URL(ui_url(gateway)).netloc.decode()
    assert (got["x-forwarded-for"], got["x-forwarded-proto"]) == ("127.0.0.1", "http")


def test_ui_opens_no_way_into_the_api(gateway: LocalGateway) -> None:
    assert httpx.get(f"{gateway.url}/static/app.js").status_code == 401
    client = {"Authorization": f"Bearer {CLIENT}"}
    assert httpx.get(f"{gateway.url}/static/app.js", headers=client).status_code == 404


def test_ui_may_open_a_websocket_and_no_other_protocol(
    gateway: LocalGateway, engine: Engine
) -> None:
    port = gateway.settings.uis["toy"].ui_port
    raw(port, "GET", "/ws", "", "Upgrade: websocket")
    got = engine.requests[-1].headers
    assert (got["upgrade"], got["connection"]) == ("websocket", "upgrade")
    raw(port, "GET", "/ws", "", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    got = engine.requests[-1].headers
    assert "upgrade" not in got and got.get("connection", "") in ("", "keep-alive")


def test_log_of_the_ui_holds_no_path(gateway: LocalGateway) -> None:
    headers = {"X-Request-ID": "a-browser"}
    httpx.get(f"{ui_url(gateway)}/c/private-conversation", headers=headers)
    line = gateway.logged("a-browser")
    assert (line["route"], line["client"], line["status"]) == ("ui:toy", "", 200)
    assert "private-conversation" not in gateway.log_texts


def test_ui_is_closed_to_other_networks(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue(), "toy", TOY)
    data = inventory(engine, toy_ui_sources=["127.0.0.2"])
    with local_gateway(data, tmp_path_factory.mktemp("closed")) as gateway:
        reached = len(engine.requests)
        assert httpx.get(ui_url(gateway)).status_code == 403
        assert len(engine.requests) == reached
        neighbour = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=neighbour) as allowed:
            assert allowed.get(ui_url(gateway)).status_code == 200
