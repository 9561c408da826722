"""A gateway before several LLM servers: what nginx is told, and what an operator is told first."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llmhost.facts.upstreams import SilentUpstreams
from llmhost.gateway.nginx import NginxState, Tree
from llmhost.gateway.pool import (
    Drained,
    Pool,
    drain_refusal,
    drained_servers,
    mark_path,
    marks_after,
    marks_of,
    with_pool,
)
from llmhost.gateway.tree import NginxPaths, configuration, pool
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from llmhost.system.files import PathState

KEY = "llmhost-" + "a" * 64
DIRECTORY = NginxPaths().own
SERVERS = [{"name": "llm-1", "address": "10.0.0.1"}, {"name": "llm-2", "address": "fd00::2"}]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    monkeypatch.setenv("NO_KEY", "two words")


def inventory(**changes: Any) -> dict[str, Any]:
    return {
        "gateway_upstreams": SERVERS,
        "gateway_upstream_services": ["llamacpp"],
        "gateway_upstream_key": "env:GATEWAY_KEY",
        "gateway_upstream_name": "servers.example",
        "api_clients": [{"name": "app", "sha256": "1" * 64}],
        **changes,
    }


def settings(**changes: Any) -> Settings:
    return read_settings(inventory(**changes))


def tree() -> Tree:
    return Tree(configuration(settings(), NginxPaths()), DIRECTORY, 8079)


def declared_pool() -> Pool:
    found = pool(settings())
    assert found
    return found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"services": ["llamacpp"]}, "services: are for LLM servers"),
        ({"gateway_upstreams": [*SERVERS, SERVERS[0]]}, "'llm-1' is declared 2 times"),
        (
            {"gateway_upstreams": [*SERVERS, {"name": "other", "address": "10.0.0.1"}]},
            "'10.0.0.1:8080' is declared 2 times",
        ),
        (
            {"gateway_upstreams": [{"name": "a", "address": "llm-1"}]},
            "[0].address: is text of 5 characters; write an IP address",
        ),
        (
            {"gateway_upstreams": [{"name": "a", "address": "fe80::1%eth0"}]},
            "[0].address: is text of 12 characters; write an IP address",
        ),
        ({"gateway_upstreams": [{"name": "a", "address": "10.0.0.1", "port": 0}]}, ".port: "),
        (
            {"gateway_upstreams": []},
            "gateway_upstreams: is required by the other gateway_upstream_* options",
        ),
        ({"gateway_upstream_services": []}, "gateway_upstream_services: is empty"),
        ({"gateway_upstream_services": ["lamacpp"]}, "'lamacpp' is not a service"),
        ({"gateway_upstream_services": ["llamacpp"] * 2}, "'llamacpp' is declared 2 times"),
        ({"gateway_upstream_key": None}, "gateway_upstream_key: is missing"),
        ({"gateway_upstream_key": KEY}, "gateway_upstream_key: is not a reference to a secret"),
        ({"gateway_upstream_key": "env:UNSET"}, "the environment variable UNSET, which is not"),
        ({"gateway_upstream_key": "file:/nowhere"}, "the file /nowhere, which cannot be read"),
        ({"gateway_upstream_key": "env:NO_KEY"}, "refers to a value that is not an API key"),
        ({"gateway_upstream_name": None}, "gateway_upstream_name: is missing"),
        ({"gateway_upstream_name": "10.0.0.1"}, "is an address, which nginx cannot verify"),
        ({"gateway_upstream_tls": "files"}, "gateway_upstream_authority: is missing"),
        (
            {"gateway_upstream_tls": "files", "gateway_upstream_authority": "/nowhere"},
            "gateway_upstream_authority: cannot be read",
        ),
        (
            {"gateway_upstream_tls": "files", "gateway_upstream_authority": __file__},
            "gateway_upstream_authority: contains no certificate",
        ),
        ({"api_clients": []}, "api_clients: is empty, so no client may call the gateway"),
    ],
)
def test_mistake_is_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**changes)
    told = [problem.sentence("host") for problem in caught.value.problems]
    assert any(sentence in line for line in told), told
    assert not any(KEY in line for line in told)


def test_plain_http_needs_no_name() -> None:
    assert settings(gateway_upstream_tls="off", gateway_upstream_name=None).gateway.upstreams


def test_clients_may_be_bound_to_the_servers_services() -> None:
    client = {"name": "app", "sha256": "1" * 64, "scope": ["llamacpp"]}
    assert settings(api_clients=[client]).api_clients


def test_key_is_in_one_private_file_and_in_no_setting() -> None:
    holders = {file.path: file.mode for file in tree().files if KEY.encode() in file.data}
    assert holders == {f"{DIRECTORY}/upstream-key.conf": "0600"}
    assert KEY not in settings().model_dump_json()


def upstreams_file(made: Tree) -> str:
    [file] = [file for file in made.files if file.path.endswith("/upstreams.conf")]
    return file.data.decode()


def test_drained_server_is_written_as_down() -> None:
    text = upstreams_file(with_pool(tree(), declared_pool(), ["llm-2"], b"PEM"))
    lines = [line.strip() for line in text.splitlines() if "server " in line and "#" in line]
    assert lines[-2].startswith("server 10.0.0.1:8080 max_fails=2 fail_timeout=10s;")
    assert lines[-1].startswith("server [fd00::2]:8080 max_fails=2 fail_timeout=10s down;")


def test_drained_server_stays_so_and_makes_no_drift() -> None:
    path = mark_path(DIRECTORY, "llm-2")
    once = with_pool(tree(), declared_pool(), ["llm-2"], b"PEM")
    paths = {
        file.path: PathState("file", "root", "root", file.mode, 0.0, file.sha256)
        for file in once.all_files
    } | {DIRECTORY: PathState("directory", "root", "root", "0755", 0.0)}
    assert path in paths
    found = drained_servers(declared_pool(), DIRECTORY, NginxState(paths))
    assert found == ("llm-2",)
    again = with_pool(tree(), declared_pool(), found, b"PEM")
    assert again.wrong(NginxState(paths)) == {} and again.digest == once.digest
    assert again.digest != with_pool(tree(), declared_pool(), [], b"PEM").digest


def test_mark_of_a_server_that_is_gone_is_removed() -> None:
    path = mark_path(DIRECTORY, "llm-9")
    state = NginxState({path: PathState("file", "root", "root", "0644", 0.0, "")})
    drained = drained_servers(declared_pool(), DIRECTORY, state)
    wrong = with_pool(tree(), declared_pool(), drained, b"PEM").wrong(state)
    assert drained == () and f"{path} must not exist" in wrong.values()


@pytest.mark.parametrize(
    ("drained", "servers", "refused"),
    [
        ([], ["llm-1"], False),
        (["llm-2"], ["llm-1"], True),
        (["llm-1"], ["llm-1"], False),
        ([], ["llm-1", "llm-2"], True),
    ],
)
def test_last_server_is_not_drained(drained: list[str], servers: list[str], refused: bool) -> None:
    assert bool(drain_refusal(declared_pool(), drained, servers)) is refused


HAND, ROLL, TRAINING = Drained.BY_HAND, Drained.BY_ROLL, Drained.BY_TRAINING


@pytest.mark.parametrize(
    ("before", "by", "undo", "after"),
    [
        ({}, HAND, False, {"llm-1": HAND}),
        ({}, ROLL, False, {"llm-1": ROLL}),
        ({"llm-2": HAND}, ROLL, False, {"llm-2": HAND, "llm-1": ROLL}),
        ({"llm-1": HAND}, ROLL, False, {"llm-1": HAND}),
        ({"llm-1": ROLL}, HAND, False, {"llm-1": HAND}),
        ({"llm-1": ROLL}, ROLL, True, {}),
        ({"llm-1": HAND}, ROLL, True, {"llm-1": HAND}),
        ({"llm-1": ROLL}, HAND, True, {}),
        ({"llm-1": ROLL, "llm-2": ROLL}, ROLL, True, {"llm-2": ROLL}),
        ({}, TRAINING, False, {"llm-1": TRAINING}),
        ({"llm-1": TRAINING}, TRAINING, True, {}),
        ({"llm-1": HAND}, TRAINING, False, {"llm-1": HAND}),
        ({"llm-1": HAND}, TRAINING, True, {"llm-1": HAND}),
        ({"llm-1": ROLL}, TRAINING, True, {"llm-1": ROLL}),
        ({"llm-1": TRAINING}, ROLL, False, {"llm-1": TRAINING}),
        ({"llm-1": TRAINING}, ROLL, True, {"llm-1": TRAINING}),
        ({"llm-1": TRAINING}, HAND, False, {"llm-1": HAND}),
        ({"llm-1": TRAINING}, HAND, True, {}),
    ],
)
def test_only_a_person_takes_over_what_others_drained(
    before: dict[str, Drained], by: Drained, undo: bool, after: dict[str, Drained]
) -> None:
    assert marks_after(before, ["llm-1"], by, undo=undo) == after


@pytest.mark.parametrize("by", [ROLL, TRAINING])
def test_mark_shows_who_drained_a_server(by: Drained) -> None:
    marks = {"llm-1": HAND, "llm-2": by}
    made = with_pool(tree(), declared_pool(), marks, b"PEM", marks)
    paths = {
        file.path: PathState("file", "root", "root", file.mode, 0.0, file.sha256)
        for file in made.all_files
    }
    state = NginxState(paths)
    assert drained_servers(declared_pool(), DIRECTORY, state) == ("llm-1", "llm-2")
    assert marks_of(declared_pool(), DIRECTORY, state) == marks


def test_silent_server_is_named_and_a_drained_one_is_not_asked(tmp_path: Path) -> None:
    fact = SilentUpstreams()
    (tmp_path / "resting.drained").touch()
    with socket.socket() as listening, socket.socket() as bound:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        bound.bind(("127.0.0.1", 0))  # taken by nobody who would listen
        closed = bound.getsockname()[1]
        servers = {
            "answering": ("127.0.0.1", listening.getsockname()[1]),
            "silent": ("127.0.0.1", closed),
            "resting": ("127.0.0.1", closed),
        }
        command = fact.command(servers, str(tmp_path))
        said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert fact.process(said.stdout.splitlines()) == ["silent"]
