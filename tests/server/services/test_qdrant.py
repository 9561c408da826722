"""Qdrant, from inside its container."""

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services.inside import Inside
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def qdrant(host: Host, settings: Settings) -> Inside:
    if "qdrant" not in settings.services:
        does_not_apply("the service qdrant is not declared")
    return Inside(host, settings, "qdrant")


def test_collections_can_be_listed(qdrant: Inside) -> None:
    answer = qdrant.get(6333, "/collections")
    assert answer["status"] == "ok" and isinstance(answer["result"]["collections"], list)


def test_telemetry_is_off(qdrant: Inside) -> None:
    assert qdrant.run("printenv", "QDRANT__TELEMETRY_DISABLED") == "true"
