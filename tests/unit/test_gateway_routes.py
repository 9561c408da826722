"""Routes as services declare them and as clients see them, and browser UIs."""

import re
from typing import Any

import pytest

from llmhost.gateway.routes import (
    ExposedRoute,
    clashes,
    methods_by_path,
    pattern_groups,
    pattern_places,
)
from llmhost.gateway.tree import NginxPaths, configuration
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.services import catalogue
from llmhost.services.base import AnyService, Route, Service, UiOptions
from llmhost.settings import Settings
from llmhost.tasks.firewall import gateway_openings


class UiToyOptions(UiOptions):
    """A service with a browser UI."""

    image: str = "registry.example/toy:1@sha256:" + "1" * 64
    port: int = 8190
    ui_port: int = 3000


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    service: AnyService = Service("toy", UiToyOptions, container_port=8080)
    monkeypatch.setitem(catalogue(), "toy", service)


def settings(**changes: Any) -> Settings:
    data = {
        "services": ["llamacpp", "toy"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "api_clients": [{"name": "app", "sha256": "1" * 64}],
        **changes,
    }
    return read_settings(data)


def exposed(path: str, service: str = "a", *methods: Any) -> ExposedRoute:
    return ExposedRoute(path, service, path, methods or ("GET",), "inference")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/models",
        "/v1/models/{model}",
        "/a/{b}/c/{d}",
        "/{x}",
        "/files/{path...}",
        "/a/",
        "/{x}/",
    ],
)
def test_path_that_can_be_declared(path: str) -> None:
    assert Route(path, ("GET",)).path == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v1",
        "//",
        "/a//b",
        "/a b",
        "/a{b}",
        "/{b}c",
        "/{path...}/x",
        "/{}",
        "/a;b",
        "/a'b",
        "/ü",
    ],
)
def test_path_that_nginx_could_misread_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is not a valid path"):
        Route(path, ("GET",))


def test_longest_beginning_comes_first() -> None:
    routes = [exposed("/{x}"), exposed("/a/{x}"), exposed("/a/b/{x...}"), exposed("/a/{x}/c")]
    places = pattern_places([*routes, exposed("/a/plain")])
    assert [place.prefix for place in places] == ["/a/b/", "/a/", "/"]
    assert [route.path for route in places[1].routes] == ["/a/{x}", "/a/{x}/c"]


def test_patterns_are_in_groups_that_fit_into_a_parameter_of_nginx() -> None:
    """ngx_conf_read_token: NGX_CONF_BUFFER. Their order is that in which they are tried."""
    paths = [f"/a/{'x' * 60}-{number}/{{name}}" for number in range(60)]
    routes = [exposed(path) for path in [*paths, "/a/{name}", "/b/{file...}", "/a/{name}"]]
    places = pattern_places(routes)
    groups = [*pattern_groups(places)]
    assert len(groups) > 1
    tried = [(prefix, route.path) for group in groups for prefix, route in group]
    assert tried == [
        (place.prefix, path)
        for place in places
        for path in dict.fromkeys(route.path for route in place.routes)
    ]
    app = {
        "name": "app",
        "image": "registry.example/app:1@sha256:" + "1" * 64,
        "port": 8100,
        "container_port": 8000,
        "health": ["true"],
        "routes": [{"path": path, "methods": ["GET"]} for path in paths],
    }
    files = configuration(settings(services=["llamacpp"], apps=[app]), NginxPaths())
    [text] = [file.data.decode() for file in files if file.path == "/etc/nginx/nginx.conf"]
    handlers = re.findall(r"perl(?:_set \$\w+)? '(.*?)';", text, re.DOTALL)
    assert len(handlers) > len(groups) and max(map(len, handlers)) < 4096


def test_expression_has_nothing_that_nginx_would_read() -> None:
    for path in ("/v1.2/{model}/x~y", "/files/{path...}"):
        expression = exposed(path).expression
        assert not set("\\'\"{}") & set(expression)
        assert expression.startswith("^/") and expression.endswith("(?!.)")


@pytest.mark.parametrize(
    ("routes", "clash"),
    [
        ([exposed("/x"), exposed("/x", "b")], ("/x", ["a", "b"])),
        ([exposed("/x"), exposed("/x")], ("/x", ["a"])),
        ([exposed("/{x}"), exposed("/{y}")], ("/{}", ["a"])),
        ([exposed("/a/{x}/c"), exposed("/a/{y}/d", "b")], ("/a/", ["a", "b"])),
        ([exposed("/x"), exposed("/x", "a", "PUT")], None),
        ([exposed("/{x}"), exposed("/b/{y}", "b")], None),
    ],
)
def test_clash_of_routes_is_found(routes: list[ExposedRoute], clash: object) -> None:
    assert next(iter(clashes(routes)), None) == clash


def test_methods_of_a_path_are_joined() -> None:
    routes = [exposed("/x"), exposed("/x", "a", "PUT", "DELETE")]
    assert methods_by_path(routes) == {"/x": ("GET", "PUT", "DELETE")}


def test_firewall_opens_the_ui_to_its_networks() -> None:
    given = settings(toy_ui_sources=["10.0.7.0/24"], gateway_sources=["10.0.0.0/8"])
    ports = {rule.port: [str(each) for each in rule.sources] for rule in gateway_openings(given)}
    assert ports == {8080: ["10.0.0.0/8"], 3000: ["10.0.7.0/24"]}
    inherited = gateway_openings(settings(gateway_sources=["10.0.0.0/8"]))
    assert [str(each) for each in inherited[1].sources] == ["10.0.0.0/8"]


def test_ui_port_that_is_taken_is_told() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(toy_ui_port=8080)
    assert "gateway_port and toy_ui_port are both 8080" in str(
        [problem.what for problem in caught.value.problems]
    )
