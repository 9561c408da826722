"""Open WebUI for people without an account: without the gateway, and at its own port."""

import json
import shlex
from typing import Any

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.gateway_client import Door
from llmhost.checks.outside import Outside
from llmhost.checks.services.api import Api, api_of
from llmhost.services.open_webui import SERVICE, OpenWebuiOptions
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    return api_of("open_webui", host, settings)


@pytest.fixture(scope="module")
def options(api: Api, settings: Settings) -> OpenWebuiOptions:
    options = settings.options("open_webui")
    assert isinstance(options, OpenWebuiOptions)
    return options


@pytest.fixture(scope="module")
def environment(host: Host, api: Api, settings: Settings) -> dict[str, str]:
    container = f"{settings.stack.project}-open_webui-1"
    shown = host.check_output(f"docker inspect --format '{{{{json .Config.Env}}}}' {container}")
    return dict(line.split("=", 1) for line in json.loads(shown))


def test_it_is_ready_and_its_database_answers(api: Api) -> None:
    assert api.ask("/ready") == {"status": True}
    assert api.ask("/health/db") == {"status": True}


def test_first_administrator_exists_and_sign_up_is_closed(api: Api) -> None:
    config: dict[str, Any] = api.ask("/api/config")
    assert "onboarding" not in config, "the first visitor would become the administrator"
    assert config["features"]["auth"] and not config["features"]["enable_signup"]
    # If sign-up were open, it would refuse this address and create no account.
    stranger = {"name": "stranger", "email": "no address", "password": "No-password-1"}
    assert api.status("/api/v1/auths/signup", stranger) == 403


def test_models_require_a_login(api: Api, options: OpenWebuiOptions) -> None:
    assert api.status("/api/models") == 401
    wrong = {"email": options.admin_email, "password": "no password of anybody"}
    assert api.status("/api/v1/auths/signin", wrong) == 400


def test_settings_of_the_inventory_apply(
    environment: dict[str, str], options: OpenWebuiOptions
) -> None:
    assert environment["ENABLE_PERSISTENT_CONFIG"] == str(options.persistent_settings).lower()
    assert environment["OPENAI_API_BASE_URLS"].split(";") == [*options.engine_urls]


def test_settings_in_use_are_those_it_was_started_with(
    host: Host, api: Api, settings: Settings, options: OpenWebuiOptions
) -> None:
    program = SERVICE.changed_settings(options)
    if not program:
        does_not_apply("open_webui_persistent_settings is on: settings of the UI apply")
    container = f"{settings.stack.project}-open_webui-1"
    asked = f"docker exec {container} python3 -c {shlex.quote(program)}"
    assert host.check_output(asked).splitlines() == []


def test_no_outside_service_is_contacted(environment: dict[str, str]) -> None:
    assert environment["OFFLINE_MODE"] == "true" and environment["HF_HUB_OFFLINE"] == "1"


def test_data_is_in_a_volume_beside_the_models_of_the_image(
    host: Host, api: Api, settings: Settings
) -> None:
    container = f"{settings.stack.project}-open_webui-1"
    shown = host.check_output(f"docker inspect --format '{{{{json .Mounts}}}}' {container}")
    volumes = {each["Destination"] for each in json.loads(shown) if each["Type"] == "volume"}
    assert volumes == {"/srv/data"}
    host.check_output(f"docker exec {container} test -s /srv/data/webui.db")


def test_browsers_reach_it_on_its_own_port(
    settings: Settings, options: OpenWebuiOptions, door: Door, outside: Outside
) -> None:
    ports = (f":{settings.gateway.port}", f":{options.ui_port}")
    curl = [argument.replace(*ports) for argument in door.curl]
    url = door.url.replace(*ports) + "/api/config"
    answer = outside("curl", "--silent", "--show-error", "--max-time", "20", *curl, url)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["status"] is True
