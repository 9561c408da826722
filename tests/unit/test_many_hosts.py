"""Inventories of several hosts that would send requests to others than they say."""

from typing import Any

import pytest

from llmhost.gateway.keys import digest
from llmhost.gateway.models import model_routes
from llmhost.gateway.policy import policies_of
from llmhost.gateway.routes import exposed_routes, grants, usable_models
from llmhost.inventory.groups import group_mistakes
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site_reader import HostData, SiteError, read_site

KEY = "k" * 43


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_KEY", KEY)
    monkeypatch.setenv("GROUP_TOKEN", "t" * 40)
    monkeypatch.setenv("MONITORING_KEY", "m" * 64)


def model(name: str, service: str, **more: object) -> dict[str, Any]:
    return {"name": name, "service": service, "source": "https://x/m", "sha256": "1" * 64, **more}


def client(scope: object = "inference") -> dict[str, Any]:
    return {"name": "app", "sha256": "2" * 64, "scope": scope}


def server(*models: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "services": [*dict.fromkeys(each["service"] for each in models)],
        "models": list(models),
        "api_clients": [{"name": "gate", "sha256": digest(KEY), "scope": "admin"}],
        **more,
    }


def gate(servers: dict[str, str], services: list[str], **more: object) -> dict[str, Any]:
    return {
        "gateway_upstreams": [{"name": n, "address": a} for n, a in servers.items()],
        "gateway_upstream_services": services,
        "gateway_upstream_key": "env:GATE_KEY",
        "gateway_upstream_name": "servers",
        "api_clients": [client()],
        "ssh_hostname": "10.0.0.9",
        **more,
    }


def mistakes(**hosts: dict[str, Any]) -> str:
    try:
        read_site(HostData(name.replace("_", "-"), data) for name, data in hosts.items())
    except SiteError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["admin", "inference", "metrics"])
def test_model_with_the_name_of_a_scope_gives_no_more_than_this_model(name: str) -> None:
    data = server(model(name, "ollama"), model("hr", "ollama", sha256="3" * 64))
    settings = read_settings({**data, "api_clients": [client([name])]})
    (policy,), routes = policies_of(settings.api_clients), model_routes(settings)
    assert routes and usable_models(policy, routes) == (name,)
    assert not policy.controls
    paths = {path for _, _, path in grants([policy], exposed_routes(settings), routes)}
    assert all(path.startswith("/v1/") for path in paths)


def test_second_fallback_of_a_service_is_refused() -> None:
    models = [model("brain", "llamacpp"), model("a", "ollama"), model("b", "ollama")]
    data = server(*models, gateway_fallbacks={"brain": ["a", "b"]})
    with pytest.raises(SettingsError) as refused:
        read_settings(data)
    assert "'b' runs in the same service as 'a'" in str(refused.value.problems)


@pytest.mark.parametrize("scope", [["brain", "a"], ["brain", "b"]])
def test_scope_covers_what_a_server_answers_with_for_another_servers_model(
    scope: list[str],
) -> None:
    """It runs both fallbacks, and follows the chain by itself."""
    chain = {"brain": ["a", "b"]}
    second = server(model("a", "ollama"), model("b", "llamacpp"), gateway_fallbacks=chain)
    places = {"brain": ("ollama", "llm-1"), "a": ("ollama", "llm-2"), "b": ("llamacpp", "llm-2")}
    front = gate(
        {"llm-1": "10.0.0.1", "llm-2": "10.0.0.2"},
        ["ollama", "llamacpp"],
        gateway_upstream_models=[
            {"name": name, "service": service, "servers": [at]}
            for name, (service, at) in places.items()
        ],
        gateway_fallbacks=chain,
        api_clients=[client(scope)],
    )
    found = mistakes(
        llm_1=server(model("brain", "ollama"), gateway_fallbacks=chain), llm_2=second, gate=front
    )
    assert "with which llm-2 answers for 'brain'" in found


def test_server_that_leaves_v1_to_its_first_service_is_not_sent_models_of_others() -> None:
    behind = server(model("small", "llamacpp"), model("brain", "ollama"), gateway_by_model=False)
    models = [{"name": "brain", "service": "ollama"}]
    front = gate({"llm-1": "10.0.0.1"}, ["llamacpp", "ollama"], gateway_upstream_models=models)
    assert "llm-1 answers at /v1 with 'llamacpp' alone" in mistakes(llm_1=behind, gate=front)


def test_some_models_do_not_leave_the_other_paths_to_any_service() -> None:
    embedding = model("emb", "embeddings", task="embed", sha256="3" * 64)
    behind = server(model("small", "llamacpp"), model("brain", "ollama"), embedding)
    front = gate(
        {"llm-1": "10.0.0.1"},
        ["llamacpp", "ollama", "embeddings"],
        gateway_upstream_models=[{"name": "emb", "service": "embeddings", "task": "embed"}],
        api_clients=[client(["llamacpp"])],
    )
    assert "which llm-1 would answer for" in mistakes(llm_1=behind, gate=front)


def test_host_with_capitals_is_the_server_without() -> None:
    behind = server(model("small", "ollama"))
    models = [{"name": "nonsense", "service": "ollama"}]
    front = gate({"gpu-1": "10.0.0.1"}, ["ollama"], gateway_upstream_models=models)
    found = mistakes(**{"GPU-1": behind, "gate": front})
    assert "gpu-1 does not run 'nonsense'" in found


@pytest.mark.parametrize(
    ("servers", "sentence"),
    [
        ({"llm-1": "10.0.0.2", "llm-2": "10.0.0.1"}, "which is llm-2"),
        ({"llm-1": "10.0.0.1", "fast": "10.9.0.1"}, "has llm-1 twice"),
        ({"llm-1": "10.0.0.1", "gate": "10.0.0.9"}, "which is this gateway"),
    ],
)
def test_server_is_where_its_name_says(servers: dict[str, str], sentence: str) -> None:
    addresses = {"network_addresses": ["10.0.0.1/24", "10.9.0.1/24"], "network_dns": []}
    found = mistakes(
        llm_1=server(model("m", "ollama"), **addresses),
        llm_2=server(model("m", "ollama"), ssh_hostname="10.0.0.2"),
        gate=gate(servers, ["ollama"]),
    )
    assert sentence in found


def test_two_hosts_behind_one_address_are_called_by_their_names() -> None:
    """A router forwards a port to each; by its address alone, either may be meant."""
    hosts = {
        f"llm_{number}": server(
            model("m", "ollama"), ssh_hostname="203.0.113.5", ssh_port=2200 + number
        )
        for number in (1, 2)
    }
    ports = {"one": 8080, "two": 8081}
    gateway = gate({}, ["ollama"])
    gateway["gateway_upstreams"] = [
        {"name": name, "address": "203.0.113.5", "port": port} for name, port in ports.items()
    ]
    found = mistakes(**hosts, gate=gateway)
    assert "has 'one' at 203.0.113.5:8080, which may be llm-1 and llm-2" in found
    for each, name in zip(gateway["gateway_upstreams"], ("llm-1", "llm-2"), strict=True):
        each["name"] = name
    assert mistakes(**hosts, gate=gateway) == ""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        ({"sha256": "3" * 64}, "a key that is not in the api_clients of llm-1"),
        ({"revoked": True}, "the key of 'gate', which llm-1 has revoked"),
        ({"scope": "metrics"}, "the key of 'gate', for metrics only on llm-1"),
        (
            {
                "sha256": "3" * 64,
                "previous_sha256": digest(KEY),
                "previous_until": "2099-01-31T00:00:00Z",
            },
            "",
        ),
    ],
)
def test_server_knows_the_gateway(changes: dict[str, Any], sentence: str) -> None:
    """Otherwise valid clients would get its 401."""
    behind = server(model("m", "ollama"), ssh_hostname="10.0.0.1", monitoring_enabled=True)
    behind["monitoring_key"] = "env:MONITORING_KEY"
    behind["api_clients"][0] |= changes
    found = mistakes(llm_1=behind, gate=gate({"llm-1": "10.0.0.1"}, ["ollama"]))
    assert sentence in found if sentence else not found


@pytest.mark.parametrize("services", [None, "ollama", ["olama"]])
def test_models_without_services_are_a_mistake(services: object) -> None:
    models = [{"name": "brain", "service": "ollama"}]
    data = gate({"llm-1": "10.0.0.1"}, [], gateway_upstream_models=models)
    data |= {"gateway_upstream_services": services}
    if services is None:
        del data["gateway_upstream_services"]
    assert "gateway_upstream_services: " in mistakes(gate=data)


def test_members_of_a_group_have_clients_with_its_model() -> None:
    files = [{"path": "model.safetensors", "sha256": "1" * 64}]
    brain = {"name": "brain", "service": "vllm", "source": "hf:a/b", "revision": "1" * 40}
    data = {
        "services": ["vllm"],
        "models": [{**brain, "files": files}],
        "vllm_gpu": [0],
        "engine_group_members": {"a": "10.9.0.1", "b": "10.9.0.2"},
        "engine_group_head": "a",
        "engine_group_interface": "eth1",
        "engine_group_token": "env:GROUP_TOKEN",
        "api_clients": [client(["brain"])],
    }
    assert mistakes(a=data, b=data) == ""
    other = mistakes(a=data, b={**data, "api_clients": [client(["other"])]})
    assert "'other', which is neither" in other


def test_name_of_a_host_selects_one_host() -> None:
    groups = {"llm_servers": ["llm-1", "llm-2"], "brain": ["brain", "brain2"], "gate": ["gate"]}
    found = [*group_mistakes(groups, groups, "llm-1")]
    assert [each.partition(":")[0] for each in found] == ["llm-1", "brain"]
    assert "--limit llm-1 selects 5 hosts" in found[0]
    assert "--limit brain selects 2 hosts" in found[1]
    assert not [*group_mistakes({"g": ["llm"]}, {"g": ["llm"]}, "llm")]
