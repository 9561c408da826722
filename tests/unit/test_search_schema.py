"""Requests that follow the search API's schema, and such that break it: none is a fault of ours."""

import json
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.unit.test_search_api import Site, site, started  # noqa: F401

_LINES = "/v1/collections/{name}/documents"
EXAMPLES = 25
"""Of each operation, right and wrong ones."""
MANY = 10_000
"""Requests in the lane `fuzz`."""


def _examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[*HealthCheck],
    )


def _send(client: TestClient, case: Any) -> None:
    body = case.body if isinstance(case.body, bytes) else json.dumps(_plain(case.body)).encode()
    answer = client.request(
        case.method,
        case.formatted_path or "/",
        params={key: str(value) for key, value in (case.query or {}).items()},
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"]["type"], answer.text


def _plain(body: Any) -> Any:
    return None if type(body).__name__ == "NotSet" else body


def _ask_all(site: Site, mode: GenerationMode, examples: int) -> int:  # noqa: F811
    """Requests that were sent."""
    sent = 0
    with started(site.search()) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        found: Any
        for found in schema.exclude(path=_LINES).get_all_operations():
            cases = found.ok().as_strategy(generation_mode=mode)

            @_examples(examples)
            @given(case=cases)
            def send(case: Any) -> None:
                nonlocal sent
                sent += 1
                _send(client, case)

            with suppress(Unsatisfiable):  # an operation without parameters cannot be broken
                send()
    return sent


@pytest.mark.parametrize("mode", GenerationMode)
def test_no_request_makes_the_service_fail(site: Site, mode: GenerationMode) -> None:  # noqa: F811
    assert _ask_all(site, mode, EXAMPLES)


@pytest.mark.fuzz
def test_none_of_many_requests_makes_the_service_fail(site: Site) -> None:  # noqa: F811
    assert sum(_ask_all(site, mode, MANY // 12) for mode in GenerationMode) >= MANY


def test_no_line_makes_the_service_fail(site: Site) -> None:  # noqa: F811
    document = json.dumps({"id": "1", "text": "a text", "metadata": {"a": [1]}}).encode()
    with started(site.search()) as client:

        @_examples(EXAMPLES)
        @given(start=some.integers(0, len(document)), junk=some.binary(max_size=20))
        def send(start: int, junk: bytes) -> None:
            body = document[:start] + junk + document[start:]
            answer = client.put("/v1/collections/documents/documents", content=body)
            assert answer.status_code in (200, 400), answer.text

        send()
