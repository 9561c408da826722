"""Chroma, from inside its container."""

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services.inside import Inside
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def chroma(host: Host, settings: Settings) -> Inside:
    if "chroma" not in settings.services:
        does_not_apply("the service chroma is not declared")
    return Inside(host, settings, "chroma")


def test_heartbeat_is_answered(chroma: Inside) -> None:
    assert chroma.get(8000, "/api/v2/heartbeat")["nanosecond heartbeat"] > 0


def test_collections_can_be_listed(chroma: Inside) -> None:
    database = "/api/v2/tenants/default_tenant/databases/default_database"
    assert isinstance(chroma.get(8000, f"{database}/collections"), list)


def test_reset_is_forbidden(chroma: Inside) -> None:
    """A reset would delete every collection."""
    script = (
        "exec 3<>/dev/tcp/127.0.0.1/8000"
        " && printf 'POST /api/v2/reset HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n' >&3 && head -1 <&3"
    )
    assert chroma.run("bash", "-c", script).split()[1] in ("401", "403")
