"""All hosts of an inventory are read and checked together, and every mistake is reported."""

from typing import Any

import pytest

from llmhost.gateway.keys import digest
from llmhost.inventory.role import Role
from llmhost.inventory.site_reader import HostData, SiteError, no_site_rules, read_site

KEY = "llmhost-" + "5" * 64
LLM: dict[str, Any] = {
    "ssh_hostname": "192.0.2.10",
    "services": ["llamacpp"],
    "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
    "api_clients": [{"name": "app", "sha256": digest(KEY)}],
}
GATEWAY: dict[str, Any] = {
    "gateway_upstreams": [{"name": "llm", "address": "192.0.2.10"}],
    "gateway_upstream_services": ["llamacpp"],
    "gateway_upstream_key": "env:LLMHOST_TEST_KEY",
    "gateway_upstream_name": "llm",
    "api_clients": [{"name": "app", "sha256": digest(KEY)}],
}
APP = {"app_server_api_key": "env:LLMHOST_TEST_KEY"}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMHOST_TEST_KEY", KEY)


def llm(name: str = "llm", **data: Any) -> HostData:
    return HostData(name, {**LLM, **data}, ["llm_servers"])


def app(**data: Any) -> HostData:
    return HostData("app", {**APP, **data}, ["app_servers"])


def test_host_has_its_role_its_contact_and_its_data() -> None:
    door = HostData("door", GATEWAY, ["gateways"])
    site = read_site([llm(), door, app()], site_rules=no_site_rules)
    assert {name: host.role for name, host in site.items()} == {
        "llm": Role.LLM_SERVER,
        "door": Role.GATEWAY,
        "app": Role.APP_SERVER,
    }
    assert [site[name].contact for name in ("llm", "door")] == ["192.0.2.10", "door"]
    assert site["llm"].data["ssh_hostname"] == "192.0.2.10"


def test_mistakes_of_all_hosts_are_told_at_once() -> None:
    with pytest.raises(SiteError) as caught:
        read_site([llm(gateway_prt=1), llm("llm-2", docker_data_rot="/x"), app()])
    first, second, third = caught.value.sentences
    assert first.startswith("llm: gateway_prt: ") and second.startswith("llm-2: docker_data_rot: ")
    assert third.startswith(
        "app: app_server_llm_host: is missing, and the inventory has no valid LLM server"
    )


def test_mistakes_outside_the_limit_are_ignored() -> None:
    site = read_site([llm(), llm("llm-2", gateway_prt=1)], {"llm"})
    assert list(site) == ["llm"]


def test_secret_of_a_host_outside_the_limit_need_not_be_at_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LLMHOST_TEST_KEY")
    assert set(read_site([llm(), app()], {"llm"})) == {"llm", "app"}
    with pytest.raises(SiteError, match="app: app_server_api_key: "):
        read_site([llm(), app()], {"app"})
    assert set(read_site([llm(), app()], site_rules=no_site_rules)) == {"llm", "app"}


def test_other_rules_take_the_place_of_the_usual_ones() -> None:
    mistaken = llm(api_clients=[])
    with pytest.raises(SiteError, match="llm: api_clients: is empty, so no client may call"):
        read_site([mistaken])
    assert read_site([mistaken], rules=lambda settings: ())["llm"].settings.services
