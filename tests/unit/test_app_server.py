"""Application servers: what they are told, and every mistake that can be told beforehand."""

import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from llmhost.facts.environment_file import EnvironmentFile
from llmhost.gateway.keys import digest
from llmhost.inventory.app_server import variables
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import LlmEndpoint, SiteHost, llm_endpoint
from llmhost.inventory.site_rules import site_problems
from llmhost.secret import read_secret
from llmhost.system import ca_certificates, environment_file, hosts_file
from llmhost.system.files import File, PathState
from llmhost.template import render

KEY, OTHER = "llmhost-" + "a" * 64, "llmhost-" + "b" * 64
MODEL = {"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}
LLM = {
    "services": ["llamacpp"],
    "models": [MODEL],
    "api_clients": [{"name": "app", "sha256": digest(KEY)}],
}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_KEY", KEY)


def llm_host(name: str = "llm-server", contact: str = "192.0.2.10", **data: Any) -> SiteHost:
    return SiteHost(name, read_settings({**LLM, **data}), frozenset({"llm_servers"}), contact)


def app_host(**data: Any) -> SiteHost:
    options = {"app_server_api_key": "env:APP_KEY", **data}
    return SiteHost("app", read_settings(options), frozenset({"app_servers"}), "192.0.2.20")


def site(*hosts: SiteHost) -> dict[str, SiteHost]:
    return {host.name: host for host in hosts}


def called(app: SiteHost, *others: SiteHost) -> LlmEndpoint:
    found = llm_endpoint(app, site(app, *others))
    assert isinstance(found, LlmEndpoint), found
    return found


def test_only_llm_server_is_called_at_its_address() -> None:
    found = called(app_host(), llm_host())
    assert (found.host.name, found.address) == ("llm-server", ip_address("192.0.2.10"))
    assert found.url == "https://llm-server:8080"


def test_declared_address_goes_before_the_one_of_ssh() -> None:
    found = called(app_host(app_server_llm_address="fd00::5"), llm_host(contact="jump.example"))
    assert found.address == ip_address("fd00::5")


def test_gateway_is_called_where_there_is_one() -> None:
    gateway = SiteHost("door", read_settings({}), frozenset({"gateways"}), "192.0.2.1")
    assert called(app_host(), llm_host(), llm_host("llm-2"), gateway).host.name == "door"


def test_gateway_that_stands_before_nobody_is_told() -> None:
    gateway = SiteHost("door", read_settings({}), frozenset({"gateways"}), "192.0.2.1")
    (problem,) = site_problems(gateway, site(gateway, llm_host()))
    assert problem.key == "gateway_upstreams"


@pytest.mark.parametrize("groups", [{"llm_servers"}, set(), {"app_servers"}])
def test_llm_server_without_services_and_apps_is_refused(groups: set[str]) -> None:
    options = {"app_server_api_key": "env:APP_KEY"} if "app_servers" in groups else {}
    host = SiteHost("bare", read_settings(options), frozenset(groups), "192.0.2.7")
    told = [problem.sentence("bare") for problem in site_problems(host, site(host, llm_host()))]
    empty = [each for each in told if each.startswith("bare: services: is empty")]
    assert bool(empty) is ("app_servers" not in groups), told


MISTAKES: dict[str, tuple[dict[str, Any], list[SiteHost], str, str]] = {
    "nobody to call": ({}, [], "app_server_llm_host", "the inventory has no valid LLM server"),
    "several to call": (
        {},
        [llm_host("one"), llm_host("two")],
        "app_server_llm_host",
        "there are several hosts to call; write one of: one, two",
    ),
    "stranger": (
        {"app_server_llm_host": "x"},
        [llm_host()],
        "app_server_llm_host",
        "is not an LLM",
    ),
    "itself": (
        {"app_server_llm_host": "app"},
        [llm_host()],
        "app_server_llm_host",
        "is not an LLM",
    ),
    "no address": (
        {},
        [llm_host(contact="llm.example")],
        "app_server_llm_address",
        "the inventory has no address of llm-server",
    ),
    "name without a certificate": (
        {},
        [llm_host(gateway_names=["llm.example"])],
        "app_server_llm_name",
        "is not a name in the certificate of llm-server",
    ),
    "no key": ({"app_server_api_key": None}, [llm_host()], "app_server_api_key", "is missing"),
    "unset variable": (
        {"app_server_api_key": "env:NOT_THERE"},
        [llm_host()],
        "app_server_api_key",
        "refers to the environment variable NOT_THERE, which is not set",
    ),
    "missing file": (
        {"app_server_api_key": "file:/nonexistent"},
        [llm_host()],
        "app_server_api_key",
        "/nonexistent, which cannot be read: No such file",
    ),
    "nobody's key": (
        {},
        [llm_host(api_clients=[{"name": "app", "sha256": digest(OTHER)}])],
        "app_server_api_key",
        "a key that is not in the api_clients of llm-server",
    ),
    "revoked key": (
        {},
        [llm_host(api_clients=[{"name": "app", "sha256": digest(KEY), "revoked": True}])],
        "app_server_api_key",
        "the key of 'app', which is revoked",
    ),
    "rotated key": (
        {},
        [
            llm_host(
                api_clients=[
                    {
                        "name": "app",
                        "sha256": digest(OTHER),
                        "previous_sha256": digest(KEY),
                        "previous_until": "2999-01-01T00:00:00Z",
                    }
                ]
            )
        ],
        "app_server_api_key",
        "the previous key of 'app', which expires",
    ),
    "services": (LLM, [llm_host()], "services", "are for LLM servers"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_beside_other_hosts_is_told_without_the_key(mistake: str) -> None:
    data, others, option, sentence = MISTAKES[mistake]
    app = app_host(**data)
    problems = [*site_problems(app, site(app, *others))]
    assert [problem.key for problem in problems] == [option], problems
    told = problems[0].sentence("app")
    assert sentence in told and KEY not in told


def test_faultless_site_has_no_problems() -> None:
    hosts = site(app_host(), llm_host())
    assert [problem for host in hosts.values() for problem in site_problems(host, hosts)] == []


@pytest.mark.parametrize("value", [KEY, "env:", "env:9", "file:", "FILE:/x", "vault:x", "env:A B"])
def test_what_is_no_reference_to_a_secret_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"app_server_api_key": value})
    (problem,) = caught.value.problems
    assert "never the secret itself" in problem.fix and KEY not in problem.sentence("app")


def test_secret_is_read_without_the_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_secret(f"file:{tmp_path / 'key'}") == read_secret("env:APP_KEY") == KEY


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_file_without_a_secret_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ValueError, match=r"refers to the file .*(empty|not text)"):
        read_secret(f"file:{tmp_path / 'key'}")


@pytest.mark.parametrize("secret", ["a b", 'a"b', "a\nb", "a$b", "ä", ""])
def test_secret_that_a_shell_would_read_otherwise_is_unfit(secret: str) -> None:
    assert environment_file.unfit(secret)
    assert not environment_file.unfit(KEY)


def rendered(found: LlmEndpoint) -> list[str]:
    return render("app_server/llm.env.j2", secret=KEY, **variables(found)).splitlines()


def test_environment_names_the_gateway_and_the_key() -> None:
    lines = rendered(called(app_host(), llm_host()))
    assert {
        "OLLAMA_BASE_URL=https://llm-server:8080",
        f'OLLAMA_AUTH_HEADER="Bearer {KEY}"',
        "OPENAI_BASE_URL=https://llm-server:8080/v1",
        f"OPENAI_API_KEY={KEY}",
        "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
    } <= set(lines)


def test_environment_without_tls_names_no_authority() -> None:
    lines = rendered(called(app_host(), llm_host(gateway_tls="off")))
    assert "OPENAI_BASE_URL=http://llm-server:8080/v1" in lines
    assert not [line for line in lines if "SSL" in line]


FILE = File("/etc/llmhost/llm.env", f"# x\nA=1\nKEY={KEY}\n", mode="0600")


def shown(content: str, mode: str = "0600") -> environment_file.EnvironmentState:
    """As the fact's command would tell of a file with this content."""
    state = PathState("file", "root", "root", mode, 1.0, File("/x", content).sha256)
    lines = environment_file.digests(content.splitlines())
    return environment_file.EnvironmentState(state, lines, owner_exists=True)


@pytest.mark.parametrize(
    ("state", "reasons"),
    [
        (shown(str(FILE.content)), []),
        (shown(f"# x\nA=1\nKEY={OTHER}\n"), ["KEY in /etc/llmhost/llm.env has another value"]),
        (shown(f"KEY={KEY}\nB=2\n"), ["A in", "B in"]),
        (shown(str(FILE.content), mode="0644"), ["has mode 0644"]),
        (shown(f"A=1\nKEY={KEY}\n"), ["has other content"]),
        (environment_file.EnvironmentState(), ["is missing"]),
    ],
)
def test_difference_is_named_by_its_variable(
    state: environment_file.EnvironmentState, reasons: list[str]
) -> None:
    told = environment_file.reasons(FILE, state)
    assert len(told) == len(reasons) and all(map(str.__contains__, told, reasons)), told
    assert not any(KEY in sentence or OTHER in sentence for sentence in told)


def shell(command: str) -> str:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout


def test_fact_tells_digests_and_no_values(tmp_path: Path) -> None:

    path = tmp_path / "it's.env"
    path.write_text(str(FILE.content))
    command = EnvironmentFile().command(str(path), "root")
    output = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True
    ).stdout
    assert KEY not in output
    state = EnvironmentFile().process(output.splitlines())
    assert state.owner_exists and state.path and state.path.sha256 == FILE.sha256
    assert state.digests == environment_file.digests(str(FILE.content).splitlines())
    output = shell(EnvironmentFile().command("/nonexistent", "no-such-user"))
    assert EnvironmentFile().process(output.splitlines()) == environment_file.EnvironmentState()


HOSTS = "127.0.0.1 localhost\n127.0.1.1 app\n"


def test_names_stand_in_a_block_of_their_own() -> None:
    entries = {"llm-server": "192.0.2.10"}
    text = hosts_file.with_entries(HOSTS, entries, "app_server")
    assert text.startswith(HOSTS) and "\n192.0.2.10\tllm-server\n" in text
    assert hosts_file.with_entries(text, entries, "app_server") == text
    assert hosts_file.reasons(text, entries, "app_server") == []
    assert hosts_file.with_entries(text, {}, "app_server") == HOSTS
    other = hosts_file.with_entries(text, {"db": "192.0.2.11"}, "network")
    assert "llm-server" in other
    assert hosts_file.with_entries(other, {}, "app_server").count("BEGIN") == 1


@pytest.mark.parametrize(
    ("line", "conflicts"),
    [
        ("192.0.2.99 other llm-server # old", 1),
        ("192.0.2.10 llm-server", 0),
        ("# 192.0.2.99 llm-server", 0),
        ("127.0.1.1 llm-server", 0),
    ],
)
def test_name_with_another_address_is_a_conflict(line: str, conflicts: int) -> None:
    entries = {"llm-server": "192.0.2.10"}
    told = hosts_file.conflicts(f"{HOSTS}{line}\n", entries, "app_server")
    assert len(told) == conflicts


def test_changed_address_is_no_conflict_with_our_own_block() -> None:
    text = hosts_file.with_entries(HOSTS, {"llm-server": "192.0.2.9"}, "app_server")
    entries = {"llm-server": "192.0.2.10"}
    assert hosts_file.conflicts(text, entries, "app_server") == []
    assert hosts_file.reasons(text, entries, "app_server") == [
        "/etc/hosts lacks llm-server for 192.0.2.10"
    ]


PEM = "-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\nCC==\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("certificate", "there", "bundled", "reasons"),
    [
        (PEM, True, True, 0),
        (PEM, True, False, 1),
        (PEM, False, False, 1),
        (None, False, False, 0),
        (None, True, True, 1),
    ],
)
def test_authority_is_trusted_once_the_bundle_holds_it(
    certificate: str | None, there: bool, bundled: bool, reasons: int
) -> None:
    wanted = ca_certificates.entry("llmhost", certificate)
    file = File(wanted.path, PEM)
    found = PathState("file", "root", "root", "0644", 1.0, file.sha256)
    state = ca_certificates.TrustState({wanted.path: found} if there else {}, bundled=bundled)
    assert len(ca_certificates.reasons(wanted, state)) == reasons
    assert ca_certificates.signature(PEM) == "BBBB"
