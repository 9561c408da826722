"""What nginx is told, and what an operator is told before nginx is."""

import re
from dataclasses import replace
from typing import Any

import pytest

from llmhost.gateway.nginx import (
    NginxState,
    Tree,
    candidate_archive,
    install_script,
    parse_state,
    service_drift,
)
from llmhost.gateway.policy import key_maps, policies_of
from llmhost.gateway.routes import exposed_routes, grants
from llmhost.gateway.tree import NginxPaths, configuration
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.services import catalogue
from llmhost.services.base import AnyService, Route, Service, ServiceOptions
from llmhost.settings import Settings
from llmhost.system.files import PathState

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


class ToyOptions(ServiceOptions):
    """A second service for these tests."""

    image: str = "toy"
    port: int = 8099


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = (Route("/ask", ("POST",)), Route("/drop", ("DELETE", "POST"), scope="admin"))
    toy: AnyService = Service("toy", ToyOptions, container_port=8080, routes=routes)
    monkeypatch.setitem(catalogue(), "toy", toy)


def inventory(*clients: dict[str, Any], **changes: Any) -> dict[str, Any]:
    model = {"name": "m", "source": "https://x/m.gguf", "sha256": ONE}
    return {
        "services": ["llamacpp", "toy"],
        "models": [model],
        "api_clients": list(clients) or [{"name": "a", "sha256": ONE}],
        **changes,
    }


def settings(*clients: dict[str, Any], **changes: Any) -> Settings:
    return read_settings(inventory(*clients, **changes))


def test_first_service_answers_at_the_root_and_others_below_their_names() -> None:
    paths = {route.path: route.upstream_path for route in exposed_routes(settings())}
    assert paths["/v1/models"] == "/v1/models"
    assert paths["/toy/ask"] == "/ask"
    assert "/ask" not in paths


@pytest.mark.parametrize(
    ("fields", "policies", "ends"),
    [
        ({}, ["1"], [""]),
        ({"sources": ["10.0.0.0/8"]}, ["$gateway_policy_1"], [""]),
        ({"expires": "2040-01-01T00:00:00Z"}, ["$gateway_ending_policy_1"], ["2208988800"]),
        ({"revoked": True}, ['""'], ["revoked"]),
        (
            {"previous_sha256": TWO, "previous_until": "2001-09-09T01:46:40Z"},
            ["1", "$gateway_ending_policy_1"],
            ["", "1000000000"],
        ),
        (
            # The whole client ends before its previous key would.
            {
                "previous_sha256": TWO,
                "previous_until": "2041-01-01T00:00:00Z",
                "expires": "2040-01-01T09:00:00+09:00",
            },
            ["$gateway_ending_policy_1"] * 2,
            ["2208988800"] * 2,
        ),
    ],
)
def test_each_key_leads_to_its_client_policy_and_end(
    fields: dict[str, Any], policies: list[str], ends: list[str]
) -> None:
    maps = key_maps(settings({"name": "app", "sha256": ONE, **fields}).api_clients)
    lines = {file: text.splitlines()[1:] for file, text in maps.items()}
    digests = list(enumerate([ONE, TWO][: len(policies)], start=1))
    assert lines["keys.map"] == [f"{digest} {number};" for number, digest in digests]
    assert lines["clients.map"] == [f"{number} app;" for number, _ in digests]
    assert lines["policies.map"] == [f"{n} {policy};" for n, policy in enumerate(policies, 1)]
    assert lines["until.map"] == [f"{n} {end};" for n, end in enumerate(ends, 1) if end]


def test_clients_of_equal_limits_share_a_policy() -> None:
    clients = [{"name": f"c{i}", "sha256": f"{i:064x}"} for i in range(1, 4)]
    clients[2]["scope"] = "admin"
    assert len(policies_of(settings(*clients).api_clients)) == 2


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("inference", {"/v1/models", "/toy/ask"}),
        ("admin", {"/v1/models", "/toy/ask", "/toy/drop"}),
        (["toy"], {"/toy/ask"}),
        (["llamacpp"], {"/v1/models"}),
    ],
)
def test_scope_grants_its_routes_and_no_others(scope: Any, granted: set[str]) -> None:
    given = settings({"name": "a", "sha256": ONE, "scope": scope})
    paths = {path for _, _, path in grants(policies_of(given.api_clients), exposed_routes(given))}
    assert paths & {"/v1/models", "/toy/ask", "/toy/drop"} == granted


def test_equal_limits_share_a_zone() -> None:
    limits = {"requests_per_minute": 60, "burst": 5, "concurrent_streams": 2}
    clients = [{"name": f"c{i}", "sha256": f"{i:064x}", **limits} for i in range(1, 101)]
    main = configuration(settings(*clients), NginxPaths())[0].data.decode()
    assert main.count("limit_req_zone") == 2  # the clients', and the strangers'
    assert main.count("limit_conn_zone") == 1


def test_only_a_client_with_a_quota_has_a_counter() -> None:
    free: dict[str, Any] = {"name": "a", "sha256": ONE}
    limited = settings(
        free, {"name": "b", "sha256": TWO, "tokens_per_day": 5}, gateway_count_tokens=True
    )
    main = configuration(limited, NginxPaths())[0].data.decode()
    limits = main.partition("$gateway_token_limit {")[2].partition("}")[0]
    assert limits.split() == ["default", '"";', "2", "5;"]
    assert '"pass|used" 429;' in main and '"pass|" 503;' in main
    plain = configuration(settings(free, gateway_count_tokens=True), NginxPaths())
    assert "quota" not in plain[0].data.decode()


@pytest.mark.parametrize(
    ("clients", "changes", "sentence"),
    [
        (
            [{"sha256": "ABC"}],
            {},
            "[0].sha256: is text of 3 characters; write 64",
        ),
        ([{}, {"name": "b"}], {}, "api_clients[0].sha256: is declared more than once"),
        ([{}, {}], {}, "'a' is declared 2 times"),
        ([{"expires": "2001-01-01T00:00:00Z"}], {}, "api_clients[0].expires: 'a' has expired"),
        (
            [{"expires": "2040-01-01T00:00:00"}],
            {},
            "[0].expires: has no time zone; add",
        ),
        ([{"sources": []}], {}, "api_clients[0].sources: is an empty list"),
        (
            [{"sources": ["10.0.0.0/8", "10.1.0.0/16"]}],
            {},
            "which 10.0.0.0/8 covers already",
        ),
        ([{"sources": ["10.0.0.1/8"]}], {}, "api_clients[0].sources"),
        (
            [{"sources": ["10.0.0.0/8"]}],
            {"gateway_sources": ["192.168.0.0/16"]},
            "'a' may call from a network that cannot reach the gateway",
        ),
        (
            [{"scope": ["ollama"]}],
            {},
            "'a' may call 'ollama', which is neither a service nor a model",
        ),
        (
            [{"previous_sha256": TWO}],
            {},
            "previous_until: is missing",
        ),
        ([{"requests_per_minute": 0}], {}, "api_clients[0].requests_per_minute"),
        ([{"tokens_per_day": 0}], {"gateway_count_tokens": True}, "api_clients[0].tokens_per_day"),
        (
            [{"tokens_per_day": 5}],
            {},
            "'a' has a quota of tokens, which the gateway does not",
        ),
        ([], {"gateway_sources": []}, "gateway_sources: is an empty list"),
        ([], {"gateway_status_port": 8080}, "gateway_port and gateway_status_port are both 8080"),
        ([], {"toy_port": 8081}, "are both 8081"),
        ([], {"gateway_certificate_days": 30}, "gateway_renew_days: is 90, and a certificate is"),
    ],
)
def test_mistake_is_a_sentence(
    clients: list[dict[str, Any]], changes: dict[str, Any], sentence: str
) -> None:
    records = [{"name": "a", "sha256": ONE, **client} for client in clients]
    with pytest.raises(SettingsError) as caught:
        read_settings(inventory(*records, **changes))
    told = [problem.sentence("host") for problem in caught.value.problems]
    assert any(sentence in line for line in told), told


def test_two_services_at_one_path_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = replace(catalogue()["toy"], routes=(Route("/llamacpp/health", ("GET",)),))
    monkeypatch.setitem(catalogue(), "toy", greedy)
    with pytest.raises(SettingsError) as caught:
        read_settings(inventory(services=["toy", "llamacpp"]))
    [problem] = caught.value.problems
    assert problem.what == "llamacpp and toy both answer at /llamacpp/health"


def test_hundreds_of_different_rates_are_refused() -> None:
    clients = [
        {"name": f"c{i}", "sha256": f"{i:064x}", "requests_per_minute": i} for i in range(1, 34)
    ]
    settings(*clients[:32])
    with pytest.raises(SettingsError) as caught:
        settings(*clients)
    [problem] = caught.value.problems
    assert problem.what.startswith("33 different pairs")


def test_expired_client_that_was_revoked_may_stay() -> None:
    settings({"name": "a", "sha256": ONE, "expires": "2001-01-01T00:00:00Z", "revoked": True})


def tree() -> Tree:
    files = configuration(settings({"name": "a", "sha256": ONE}), NginxPaths())
    return Tree(files, NginxPaths().own, 8079)


def test_connections_are_kept_only_to_engines_that_keep_them() -> None:
    given = settings({"name": "a", "sha256": ONE})
    text = "".join(file.data.decode() for file in configuration(given, NginxPaths()))
    blocks = dict(re.findall(r"upstream (llamacpp|toy) \{(.*?)\}", text, re.DOTALL))
    assert "keepalive" in blocks["toy"] and "keepalive" not in blocks["llamacpp"]


def converged(tree: Tree) -> NginxState:
    paths = {
        file.path: PathState("file", "root", "root", file.mode, 0.0, file.sha256)
        for file in tree.all_files
    }
    paths[tree.directory] = PathState("directory", "root", "root", "0755", 0.0)
    return NginxState(paths, True, "enabled", tree.digest)


def test_converged_host_has_nothing_wrong() -> None:
    state = converged(tree())
    assert tree().wrong(state) == {}
    assert service_drift(state, tree().digest) == []


def test_bare_host_lacks_everything() -> None:
    assert len(tree().wrong(NginxState())) == len(tree().all_files) + 1  # and their directory
    assert service_drift(NginxState(), "") == [
        "nginx does not start at boot",
        "nginx is not running",
    ]


def test_running_nginx_with_an_older_configuration_is_found() -> None:
    state = parse_state(
        converged(tree()).paths, ["ActiveState=active", "UnitFileState=enabled", "loaded=0"]
    )
    [sentence] = service_drift(state, tree().digest)
    assert "the running configuration of nginx is not" in sentence


def test_stray_file_is_removed() -> None:
    state = converged(tree())
    stray = "/etc/nginx/llmhost/odd name.conf"
    paths = {**state.paths, stray: PathState("file", "root", "root", "0644", 0.0, "")}
    wrong = tree().wrong(NginxState(paths, True, "enabled", tree().digest))
    assert list(wrong.values()) == [f"{stray} must not exist"]
    assert f"rm -f '{stray}'" in install_script(tree(), wrong)


def test_directory_that_others_may_write_to_is_told() -> None:
    paths = {**converged(tree()).paths}
    paths[NginxPaths().own] = PathState("directory", "root", "root", "0777", 0.0)
    assert list(tree().wrong(NginxState(paths)).values()) == ["/etc/nginx/llmhost has mode 0777"]


def test_candidate_is_tested_before_a_file_moves() -> None:
    script = install_script(tree(), tree().wrong(NginxState())).splitlines()
    test = script.index("nginx -t -q -c /etc/nginx/.llmhost-new/nginx.conf")
    assert all(script.index(line) > test for line in script if line.startswith("mv "))


def test_digest_changes_with_any_file() -> None:
    digests = {tree().digest, Tree(tree().files[1:], NginxPaths().own, 8079).digest}
    other = configuration(settings({"name": "a", "sha256": TWO}), NginxPaths())
    digests.add(Tree(other, NginxPaths().own, 8079).digest)
    assert len(digests) == 3


def test_digests_travel_on_stdin_only() -> None:
    script = install_script(tree(), tree().wrong(NginxState()))
    assert ONE not in script
    assert candidate_archive(tree())
