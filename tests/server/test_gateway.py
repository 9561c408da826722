"""The gateway, for clients and for strangers."""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.checks.command_log import guard, unit
from llmhost.checks.gateway_client import Door, connecting_to, operators_key
from llmhost.checks.outside import Done, Outside
from llmhost.gateway.models import ModelPlace, ModelRoutes, model_routes
from llmhost.services.requests import REQUESTS
from llmhost.settings import Settings

# Not a client's key: its digest would have to be in the inventory.
WRONG_KEY = "llmhost-" + "0" * 64
_PART = re.compile(r"\{\w+(\.\.\.)?\}")
"""A part of a route's path that matches anything."""


@dataclass(frozen=True)
class Answer:
    """The result of curl."""

    status: int
    headers: str
    body: str

    @property
    def code(self) -> str:
        """The reason of the gateway's refusal."""
        return str(json.loads(self.body)["error"]["code"])


@dataclass(frozen=True)
class Caller:
    """Another machine as a client of the gateway."""

    outside: Outside
    url: str
    trust: tuple[str, ...]

    def __call__(self, method: str, path: str, key: str = "", body: str = "") -> Answer:
        return self.start(method, path, key, body)()

    def start(self, method: str, path: str, key: str = "", body: str = "") -> Callable[[], Answer]:
        """Send a request. The returned function waits for the answer."""
        command = ["curl", "-s", "-i", "--http1.1", "-m", "60", "-X", method, *self.trust]
        command += ["-w", "\n%{http_code}"]
        command += ["-H", f"Authorization: Bearer {key}"] if key else []
        command += ["-H", "Content-Type: application/json", "-d", body] if body else []
        ended = self.outside.start(*command, self.url + path)
        return lambda: _answer(ended())

    def patiently(self, method: str, path: str, key: str) -> Answer:
        """The same, with a retry if the gateway limits the address (429)."""
        deadline = time.monotonic() + 60
        answer = self(method, path, key)
        while answer.status == 429 and time.monotonic() < deadline:
            told = re.search(r"^retry-after: (\d+)", answer.headers, re.MULTILINE)
            time.sleep(int(told[1]) if told else 1)
            answer = self(method, path, key)
        return answer


def _answer(said: Done) -> Answer:
    assert said.returncode == 0, f"curl ended with {said.returncode}: {said.stderr}"
    text, _, status = said.stdout.rpartition("\n")
    headers, _, content = text.partition("\n\n")
    return Answer(int(status), headers.lower(), content)


@pytest.fixture(scope="session")
def call(outside: Outside, door: Door) -> Caller:
    return Caller(outside, door.url, door.curl)


@pytest.fixture(scope="session")
def logged(call: Caller) -> str:
    """The id of a refused request with a key in its address, which is about to be logged."""
    refused = call("GET", f"/v1/models?key={WRONG_KEY}", WRONG_KEY)
    told = re.search(r"^x-request-id: (\S+)", refused.headers, re.MULTILINE)
    assert told, refused.headers
    return told[1]


@pytest.fixture
def key(settings: Settings, client_keys: list[str]) -> str:
    return operators_key(settings, client_keys)


@pytest.fixture
def routed(settings: Settings) -> ModelRoutes:
    return model_routes(settings) or does_not_apply("one service answers all requests")


def _question(place: ModelPlace, key: str) -> tuple[str, str, str]:
    """Path, key and body of a small request to a model."""
    request = REQUESTS[place.task](place.model)
    return request.path, key, json.dumps(request.body)


def test_nginx_runs_and_starts_at_boot(host: Any) -> None:
    assert unit(host, "nginx") == "active, enabled"


def test_nginx_accepts_its_configuration(host: Any) -> None:
    host.check_output("nginx -t")


def test_nginx_listens_only_where_it_is_declared(host: Any, settings: Settings) -> None:
    listed = host.run("ss -Hltnp 'sport > 0' | grep nginx").stdout.splitlines()
    ports = {int(line.split()[3].rpartition(":")[2]) for line in listed}
    uis = {ui.ui_port for ui in settings.uis.values()}
    assert ports == {settings.gateway.port, settings.gateway.status_port} | uis
    status = [line.split()[3] for line in listed if f":{settings.gateway.status_port} " in line]
    assert status == [f"127.0.0.1:{settings.gateway.status_port}"]


def test_unknown_names_get_no_certificate(
    outside: Outside, address: str, settings: Settings
) -> None:
    gateway = settings.gateway
    if gateway.tls == "off":
        does_not_apply('gateway_tls = "off"')
    other = "other.example"
    command = ["curl", "-sSk", "-m", "10", *connecting_to(other, address, gateway.port)]
    said = outside(*command, gateway.url(other) + "/")
    assert said.returncode == 35, said.stderr  # CURLE_SSL_CONNECT_ERROR


def test_key_of_the_certificate_is_readable_by_root_only(host: Any, settings: Settings) -> None:
    if settings.gateway.tls == "off":
        does_not_apply('gateway_tls = "off"')
    assert guard(host, "/etc/nginx/llmhost/tls.pem") == "root:root 0600"


def test_digests_of_keys_are_readable_by_root_only(host: Any) -> None:
    assert guard(host, "/etc/nginx/llmhost/keys.map") == "root:root 0600"


def test_refusal_names_its_reason_and_not_the_server(call: Caller, logged: str) -> None:
    del logged  # its request is made now, and its line read later
    answer = call.patiently("GET", "/", WRONG_KEY)
    assert (answer.status, answer.code) == (401, "key_unknown")
    assert "\nserver: nginx\n" in answer.headers.replace("\r", "") + "\n"


def test_undeclared_routes_are_closed_to_clients_too(
    call: Caller, key: str, settings: Settings
) -> None:
    declared = {route.path for service in settings.offered for route in service.routes}
    dangerous = {"/", "/slots", "/props", "/metrics", "/api/pull", "/invocations", "/pause"}
    for path in sorted(dangerous - declared):
        answer = call("GET", path, key)
        assert (answer.status, answer.code) == (404, "route_unknown")


def test_client_reaches_the_engine(
    call: Caller, key: str, settings: Settings, stopped: Mapping[str, str]
) -> None:
    if not settings.offered:
        does_not_apply("the host offers no service to clients")
    engine = settings.offered[0]
    if engine.name in stopped:
        pytest.skip(f"not checked: the service {engine.name} was {stopped[engine.name]}")
    routes = engine.routes
    paths = [r.path for r in routes if r.methods == ("GET",) and "{" not in r.path]
    for path in paths:
        assert call("GET", path, key).status == 200
        assert call("DELETE", path, key).status == 405


def test_models_are_listed_at_one_address(call: Caller, key: str, routed: ModelRoutes) -> None:
    answer = call("GET", "/v1/models", key)
    listed = {each["id"]: each for each in json.loads(answer.body)["data"]}
    declared = {place.model: place for place in routed.places}
    # The scope of the key may have fewer.
    assert listed and listed.keys() <= declared.keys()
    for name, shown in listed.items():
        place = declared[name]
        assert (shown["task"], shown["context_length"]) == (place.task, place.context_tokens)
        assert json.loads(call("GET", f"/v1/models/{name}", key).body) == shown


def test_each_place_of_models_answers_at_one_address(
    call: Caller, key: str, routed: ModelRoutes, stopped: Mapping[str, str]
) -> None:
    """One model of each service, or of each server behind a gateway: the others might have to be
    loaded first."""
    listed = [each["id"] for each in json.loads(call("GET", "/v1/models", key).body)["data"]]
    places = {
        place.name: place
        for place in reversed(routed.places)
        if place.model in listed and place.service not in stopped
    }
    asked = {place.model: call.start("POST", *_question(place, key)) for place in places.values()}
    statuses = {model: answer().status for model, answer in asked.items()}
    assert {model: status for model, status in statuses.items() if status != 200} == {}


def test_unknown_model_is_refused(call: Caller, key: str, routed: ModelRoutes) -> None:
    path = routed.paths[0]
    answer = call("POST", path, key, json.dumps({"model": "llmhost-no-such-model"}))
    assert answer.status in (403, 404)
    assert answer.code in ("model_not_found", "scope_denied")


def test_key_in_the_address_is_refused(call: Caller, key: str) -> None:
    answer = call.patiently("GET", f"/v1/models?api_key={key}", key)
    assert (answer.status, answer.code) == (401, "key_in_address")


def test_every_route_is_closed_without_a_valid_key(call: Caller, settings: Settings) -> None:
    """After the checks that need the reason of a refusal: the gateway limits what follows."""
    routes = [route for service in settings.offered for route in service.routes]
    refused = [
        (route, call.start(route.methods[0], re.sub(_PART, "anything", route.path), key))
        for route in routes
        for key in ("", WRONG_KEY)
    ]
    answers = [(route, answer()) for route, answer in refused]
    assert [each for each in answers if each[1].status not in (401, 429)] == []


def test_access_log_is_rotated(host: Any) -> None:
    assert unit(host, "logrotate.timer") == "active, enabled"
    planned = host.run("logrotate --debug /etc/logrotate.d/llmhost-gateway")
    assert "/var/log/nginx/gateway.json" in planned.stderr


def test_metrics_are_offered_only_on_the_host(host: Any, settings: Settings) -> None:
    if (port := settings.gateway.metrics_port) is None:
        does_not_apply("gateway_metrics_port is none")
    assert unit(host, "mtail") == "active, enabled"
    listening = host.check_output(f"ss -Hltn sport = :{port}").splitlines()
    assert {line.split()[3] for line in listening} == {f"127.0.0.1:{port}"}


@pytest.mark.waits
def test_log_is_json_without_keys(host: Any, logged: str) -> None:
    log = "/var/log/nginx/gateway.json"
    # nginx writes its log once a second.
    seen = f"tail -n 200 {log} | grep -F {logged}"
    assert host.run(f"for _ in $(seq 80); do {seen} && exit; sleep 0.1; done; exit 1").rc == 0
    lines = host.check_output(f"tail -n 200 {log}").splitlines()
    assert all(
        {"client", "status", "route", "seconds"} <= json.loads(line).keys() for line in lines
    )
    assert host.run("grep -rlF 'llmhost-' /var/log/nginx").stdout == ""
