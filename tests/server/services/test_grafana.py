"""Grafana for people without an account, and at its own port."""

import pytest
from testinfra.host import Host

from llmhost.checks.gateway_client import Door
from llmhost.checks.outside import Outside
from llmhost.checks.services.api import Api, api_of
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    return api_of("grafana", host, settings)


def test_its_database_works(api: Api) -> None:
    assert api.ask("/api/health")["database"] == "ok"


def test_nothing_is_shown_without_a_login(api: Api) -> None:
    assert api.status("/api/search") == 401
    assert api.status("/api/datasources/proxy/uid/prometheus/api/v1/query?query=up") == 401
    assert api.status("/login", {"user": "admin", "password": "no password of anybody"}) == 401
    assert api.status("/login", {"user": "admin", "password": "admin"}) == 401


def test_nobody_can_sign_up(api: Api) -> None:
    assert api.status("/api/user/signup", {"email": "stranger@example.com"}) in (401, 403, 404)


@pytest.mark.usefixtures("api")
def test_browsers_reach_it_on_its_own_port(
    outside: Outside, door: Door, settings: Settings
) -> None:
    ports = (f":{settings.gateway.port}", f":{settings.uis['grafana'].ui_port}")
    curl = [argument.replace(*ports) for argument in door.curl]
    status = ["--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "20"]
    url = door.url.replace(*ports)
    assert outside("curl", "--silent", *status, *curl, f"{url}/api/health").stdout == "200"
    assert outside("curl", "--silent", *status, *curl, f"{url}/api/search").stdout == "401"
