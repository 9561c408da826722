"""The search API, from inside its container. No document changes."""

import json
from typing import Any

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.gateway_client import Door
from llmhost.checks.outside import Outside
from llmhost.checks.services.inside import Inside
from llmhost.settings import Settings

_REQUEST = """\
import sys, urllib.error, urllib.request
path, body = sys.argv[1:]
request = urllib.request.Request("http://127.0.0.1:8000" + path, body.encode() or None)
request.add_header("Content-Type", "application/json")
try:
    answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.headers.get("X-Search-Cache", "-"))
print(answer.read().decode())
"""


class Api:
    """Requests to the service, without the gateway."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def ask(self, path: str, body: Any = None) -> tuple[int, str, str]:
        """Status, whether the answer came from the cache, and the answer."""
        sent = json.dumps(body) if body is not None else ""
        said = self._inside.run("python3", "-c", _REQUEST, path, sent)
        head, _, answer = said.partition("\n")
        status, cache = head.split()
        return int(status), cache, answer


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    if "search_api" not in settings.services:
        does_not_apply("the service search_api is not declared")
    return Api(Inside(host, settings, "search_api"))


def test_question_is_answered(api: Api) -> None:
    status, _, answer = api.ask("/v1/search", {"query": "llmhost", "limit": 3})
    assert status == 200 and len(json.loads(answer)["results"]) <= 3


def test_second_answer_comes_from_the_cache(api: Api, settings: Settings) -> None:
    if not settings.options("search_api").model_dump()["cache_seconds"]:
        does_not_apply("search_api_cache_seconds is 0")
    body = {"query": "llmhost asks twice"}
    api.ask("/v1/search", body)
    assert api.ask("/v1/search", body)[:2] == (200, "hit")


def test_error_has_the_declared_shape(api: Api) -> None:
    status, _, answer = api.ask("/v1/search", {"limit": 3})
    assert status == 400 and json.loads(answer)["error"]["type"] == "invalid_request"


def test_default_collection_is_described(api: Api, settings: Settings) -> None:
    name = settings.options("search_api").model_dump()["collection"]
    status, _, answer = api.ask(f"/v1/collections/{name}")
    assert status == 200 and json.loads(answer)["vector_length"] > 0


def test_metrics_are_offered(api: Api) -> None:
    _, _, metrics = api.ask("/metrics")
    for name in (
        "search_requests_total",
        "search_request_duration_seconds",
        "search_stage_duration_seconds",
        "gpu_memory_usage_bytes",
        "model_load_duration_seconds",
    ):
        assert f"# HELP {name.removesuffix('_total')}" in metrics, name


def test_page_needs_no_key_but_its_requests_do(
    settings: Settings, door: Door, outside: Outside
) -> None:
    if "search_api" not in settings.uis:
        does_not_apply("search_api_ui_port is not set")
    ports = (f":{settings.gateway.port}", f":{settings.uis['search_api'].ui_port}")
    curl = [argument.replace(*ports) for argument in door.curl]
    base = door.url.replace(*ports)

    def status(path: str, *options: str) -> str:
        to = ["--output", "/dev/null", "--write-out", "%{http_code}", "--location"]
        command = ["curl", "--silent", "--show-error", "--max-time", "20", *curl, *to, *options]
        answer = outside(*command, f"{base}{path}")
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    assert status("/") == "200"
    prefix = "" if settings.offered[0].name == "search_api" else "/search_api"
    body = ["--header", "Content-Type: application/json", "--data", '{"query": "llmhost"}']
    assert status(f"{prefix}/v1/search", *body) == "401"
    assert status(f"{prefix}/v1/search", *body, "--header", "Authorization: Bearer x") == "401"
    for path in ("/v1/collections", "/v1/documents", "/metrics", "/openapi.json"):
        assert status(f"{prefix}{path}") == "401"
