"""daemon.json merged with what operators and other tools wrote."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhost.docker.daemon_json import (
    BrokenConfig,
    changed_keys,
    key_paths,
    merge,
    parse_config,
    parse_owned,
    render_config,
    render_owned,
)
from llmhost.options.docker import without_rules

FOREIGN: dict[str, Any] = {"debug": True, "features": {"buildkit": True}}

leaves = st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
keys = st.sampled_from(["a", "b", "features", "log-opts"])
configs = st.dictionaries(keys, st.recursive(leaves, lambda v: st.dictionaries(keys, v)))


@pytest.mark.parametrize(
    ("existing", "wanted", "owned", "expected"),
    [
        ({}, {"ip": "127.0.0.1"}, {}, {"ip": "127.0.0.1"}),
        ({"ip": "0.0.0.0"}, {"ip": "127.0.0.1"}, {}, {"ip": "127.0.0.1"}),
        (FOREIGN, {"ip": "::1"}, {}, {**FOREIGN, "ip": "::1"}),
        # Another key of the same object is not ours.
        (
            FOREIGN,
            {"features": {"cdi": True}},
            {},
            {"debug": True, "features": {"buildkit": True, "cdi": True}},
        ),
        # Options of another log driver would be refused.
        (
            {"log-opts": {"labels": "x"}},
            {"log-opts": {"max-file": "3"}},
            {},
            {"log-opts": {"max-file": "3"}},
        ),
        # What we set earlier and no longer want goes, what others set stays.
        ({"mtu": 1400, "debug": True}, {}, {"mtu": 1400}, {"debug": True}),
        (
            {"features": {"buildkit": True, "cdi": True}},
            {},
            {"features": {"cdi": True}},
            {"features": {"buildkit": True}},
        ),
        ({"features": {"cdi": True}}, {}, {"features": {"cdi": True}}, {}),
        # Removed by hand meanwhile.
        ({}, {}, {"features": {"cdi": True}}, {}),
        ({"features": False}, {}, {"features": {"cdi": True}}, {"features": False}),
        ({"features": False}, {"features": {"cdi": True}}, {}, {"features": {"cdi": True}}),
    ],
)
def test_own_keys_win_and_foreign_keys_stay(
    existing: dict[str, Any], wanted: dict[str, Any], owned: dict[str, Any], expected: object
) -> None:
    assert merge(existing, wanted, key_paths(owned)) == expected


@given(configs, configs)
def test_merging_again_changes_nothing(existing: dict[str, Any], wanted: dict[str, Any]) -> None:
    once = merge(existing, wanted, ())
    assert merge(once, wanted, key_paths(wanted)) == once


@given(configs, configs)
def test_own_keys_leave_without_a_trace(existing: dict[str, Any], wanted: dict[str, Any]) -> None:
    foreign = {f"foreign-{key}": value for key, value in existing.items()}
    assert merge(merge(foreign, wanted, ()), {}, key_paths(wanted)) == foreign


def test_inputs_are_not_changed() -> None:
    existing: dict[str, Any] = {"features": {"buildkit": True}}
    merge(existing, {"features": {"cdi": True}}, {("features", "buildkit")})
    assert existing == {"features": {"buildkit": True}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"debug": true,\n"x"}', "is not valid JSON at line 2, column 4"),
        ("# a comment\n{}", "is not valid JSON at line 1, column 1"),
        ("[]", "must contain a JSON object"),
    ],
)
def test_broken_file_is_refused_with_the_place(text: str, sentence: str) -> None:
    with pytest.raises(BrokenConfig, match=sentence):
        parse_config(text, "/etc/docker/daemon.json")


@pytest.mark.parametrize("text", ["", "\n", "{}"])
def test_empty_file_sets_nothing(text: str) -> None:
    assert parse_config(text, "x") == {}


@given(configs)
def test_what_is_owned_is_remembered(config: dict[str, Any]) -> None:
    assert parse_owned(render_owned(key_paths(config))) == key_paths(config)


@pytest.mark.parametrize("text", ["", "{", "7", "[7]"])
def test_damaged_record_owns_nothing(text: str) -> None:
    assert parse_owned(text) == set()


@given(configs)
def test_written_file_reads_the_same(config: dict[str, Any]) -> None:
    assert parse_config(render_config(config), "x") == config


def test_changes_are_named_without_their_values() -> None:
    assert changed_keys({"a": 1, "b": 2}, {"b": 3, "c": 4}) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (
            "iptables",
            False,
            '"iptables": false: Docker then makes no rules for containers, and does',
        ),
        ("firewall-backend", "nftables", '"firewall-backend": "nftables": Docker then ignores'),
    ],
)
def test_value_without_dockers_rules_is_named_with_its_key(
    key: str, value: object, reason: str
) -> None:
    found = without_rules({key: value, "debug": True})
    assert [*found] == [key] and found[key].startswith(reason)


def test_values_that_keep_dockers_rules_stay() -> None:
    kept = {"iptables": True, "firewall-backend": "iptables", "bridge": "none"}
    assert without_rules(kept) == {} == without_rules({})
