"""A browser UI without a login of its own, under the real nginx: its files are for all, and what it
asks for needs a key."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.services import catalogue
from llmhost.services.base import AnyService, Page, Route, Service
from tests.doubles.engine import Engine
from tests.integration.local_gateway import (
    LocalGateway,
    ToyOptions,
    free_ports,
    local_gateway,
    toy_inventory,
)

CLIENT, ADMIN, LIMITED, ABROAD = (new_key() for _ in range(4))
KEYS = {"client": CLIENT, "admin": ADMIN, "limited": LIMITED, "abroad": ABROAD, "stranger": ""}
KEYS["unknown"] = new_key()


SEARCH = Route("/search", ("POST",))
ITEM = Route("/items/{name}", ("GET",))
SERVICE: AnyService = Service(
    "toy",
    ToyOptions,
    container_port=8080,
    routes=(
        SEARCH,
        ITEM,
        Route("/items/{name}", ("DELETE",), "admin"),
        Route("/secret", ("GET",)),
        Route("/", ("GET",), "admin"),
    ),
    page=Page(("/", "/page.js"), (SEARCH, ITEM)),
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(free_ports(1)[0]) as engine:
        yield engine


def inventory(engine: Engine, **changes: Any) -> dict[str, Any]:
    clients: list[dict[str, Any]] = [
        {"name": "app", "sha256": digest(CLIENT)},
        {"name": "other", "sha256": digest(LIMITED), "scope": ["llamacpp"]},
        {"name": "abroad", "sha256": digest(ABROAD), "sources": ["127.0.0.2"]},
        {"name": "admin", "sha256": digest(ADMIN), "scope": "admin"},
    ]
    return toy_inventory(engine.port, clients) | changes


@pytest.fixture(scope="module")
def gateway(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue(), "toy", SERVICE)
        with local_gateway(inventory(engine), tmp_path_factory.mktemp("nginx")) as gateway:
            yield gateway


def at_page(gateway: LocalGateway, method: str, path: str, who: str = "stranger") -> httpx.Response:
    key = KEYS[who]
    url = f"http://127.0.0.1:{gateway.settings.uis['toy'].ui_port}{path}"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    content = b"{}" if method == "POST" else None
    return httpx.request(method, url, headers=headers, content=content)


def test_browser_gets_the_files_without_a_key(gateway: LocalGateway, engine: Engine) -> None:
    begin = at_page(gateway, "GET", "/")
    assert (begin.status_code, begin.headers["location"]) == (302, "/toy/")
    for path, upstream in (("/toy/", "/"), ("/toy/page.js", "/page.js")):
        assert at_page(gateway, "GET", path).status_code == 200
        assert engine.requests[-1].target == upstream


@pytest.mark.parametrize("who", ["client", "admin"])
def test_page_asks_with_a_key(gateway: LocalGateway, engine: Engine, who: str) -> None:
    for method, path in (("POST", "/search"), ("GET", "/items/red")):
        assert at_page(gateway, method, f"/toy{path}", who).status_code == 200
        got = engine.requests[-1]
        assert (got.target, got.headers.get("authorization")) == (path, None)


@pytest.mark.parametrize(
    ("who", "method", "path", "code"),
    [
        ("stranger", "POST", "/toy/search", "key_missing"),
        ("stranger", "GET", "/toy/items/red", "key_missing"),
        ("unknown", "POST", "/toy/search", "key_unknown"),
        ("limited", "POST", "/toy/search", "scope_denied"),
        ("abroad", "POST", "/toy/search", "source_denied"),
        ("stranger", "POST", "/toy/", "key_missing"),
        ("stranger", "DELETE", "/toy/page.js", "key_missing"),
        ("stranger", "GET", "/toy/page.js/x", "key_missing"),
        ("stranger", "GET", "/toy/search?api_key=secret", "key_in_address"),
        # Granted at the gateway's own port, but nothing that the page asks for.
        ("client", "GET", "/toy/secret", "route_unknown"),
        ("admin", "DELETE", "/toy/items/red", "route_unknown"),
        ("client", "POST", "/v1/chat/completions", "route_unknown"),
        ("client", "GET", "/toy/items/red/", "route_unknown"),
        ("client", "POST", "/toy/Search", "route_unknown"),
        ("stranger", "GET", "/toy/PAGE.js", "route_unknown"),
    ],
)
def test_nothing_else_is_passed_on(
    gateway: LocalGateway, engine: Engine, who: str, method: str, path: str, code: str
) -> None:
    reached = len(engine.requests)
    answer = at_page(gateway, method, path, who)
    assert answer.json()["error"]["code"] == code
    assert len(engine.requests) == reached


def test_files_of_the_page_need_a_key_elsewhere(gateway: LocalGateway) -> None:
    assert httpx.get(f"{gateway.url}/toy/page.js").status_code == 401
    client = {"Authorization": f"Bearer {CLIENT}"}
    assert httpx.get(f"{gateway.url}/toy/page.js", headers=client).status_code == 404
    assert httpx.get(f"{gateway.url}/toy/", headers=client).status_code == 403


def test_log_names_the_client_and_holds_no_key_and_no_prompt(gateway: LocalGateway) -> None:
    url = f"http://127.0.0.1:{gateway.settings.uis['toy'].ui_port}/toy/search"
    headers = {"Authorization": f"Bearer {CLIENT}", "X-Request-ID": "from-a-page"}
    httpx.post(url, headers=headers, content=b'{"query": "private-question"}')
    line = gateway.logged("from-a-page")
    assert (line["client"], line["route"], line["status"]) == ("app", "/toy/search", 200)
    page = f"http://127.0.0.1:{gateway.settings.uis['toy'].ui_port}/toy/page.js?private-query"
    httpx.get(page, headers={"X-Request-ID": "a-file"})
    assert gateway.logged("a-file")["route"] == "ui:toy"
    for secret in (CLIENT, "private-question", "private-query"):
        assert secret not in gateway.log_texts


def test_limits_of_a_client_count_at_both_ports(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue(), "toy", SERVICE)
    slow = {"name": "slow", "sha256": digest(CLIENT), "requests_per_minute": 1, "burst": 0}
    data = inventory(engine, api_clients=[slow])
    with local_gateway(data, tmp_path_factory.mktemp("slow")) as gateway:
        key = {"Authorization": f"Bearer {CLIENT}"}
        assert httpx.post(f"{gateway.url}/toy/search", headers=key).status_code == 200
        answer = at_page(gateway, "POST", "/toy/search", "client")
        assert answer.json()["error"]["code"] == "too_many_requests"
        assert at_page(gateway, "GET", "/toy/").status_code == 200


def test_page_is_closed_to_other_networks(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue(), "toy", SERVICE)
    data = inventory(engine, toy_ui_sources=["127.0.0.2"])
    with local_gateway(data, tmp_path_factory.mktemp("closed")) as gateway:
        reached = len(engine.requests)
        for method, path in (("GET", "/toy/"), ("POST", "/toy/search"), ("GET", "/")):
            answer = at_page(gateway, method, path, "client")
            assert answer.status_code == 403
        assert len(engine.requests) == reached


def test_service_that_comes_first_has_its_page_at_the_root(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue(), "toy", SERVICE)
    data = inventory(engine, services=["toy", "llamacpp"])
    with local_gateway(data, tmp_path_factory.mktemp("first")) as gateway:
        assert at_page(gateway, "GET", "/").status_code == 200
        assert engine.requests[-1].target == "/"
        assert at_page(gateway, "POST", "/search").status_code == 401
        assert at_page(gateway, "POST", "/search", "client").status_code == 200
