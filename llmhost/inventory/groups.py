"""The groups of an inventory file, before pyinfra merges the data of their hosts. Pure.

pyinfra ignores a group that is not a list of hosts. If a host is declared twice, it keeps the last
value of each option.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from llmhost.inventory.role import APP_SERVERS, GATEWAYS
from llmhost.options.kind import given

GROUP = (
    'a group is a list of hosts, each a name or ("llm-server", {"ssh_hostname": "192.168.0.10"})'
)
_GROUPS = ("llm_servers", APP_SERVERS, GATEWAYS)
_NAME = re.compile(r"@\S+|[^\s/@*?\[][^\s/*?\[]*")
"""Without wildcards: a limit to the host would select others, or not even itself."""


def group_mistakes(
    variables: Mapping[str, object], groups: Mapping[str, object], file: str = ""
) -> Iterator[str]:
    """Mistakes in the variables of an inventory file, of which pyinfra takes some as groups. `file`
    is its name without the ending, which pyinfra takes as a group of all hosts."""
    for name in _GROUPS:
        if name in variables and name not in groups:
            yield f"{name}: {_what(variables[name])}; {GROUP}"
    hosts = [host for name, group in groups.items() for host in _hosts(name, group)]
    for group, name, data in hosts:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            fix = (
                "write it without spaces, slashes, *, ? and [, such as 'llm-server'"
                if group in _GROUPS
                else f"if {group} is not a group, rename it to _{group}"
            )
            yield f"{group}: {name!r} is not the name of a host; {fix}"
        elif wrong := [key for key in data if not isinstance(key, str)]:
            yield f"{name}: {wrong[0]!r} is not the name of an option, such as ssh_hostname"
    yield from _declared_twice(hosts)
    yield from _named_as_groups(hosts, file)


def _named_as_groups(hosts: list[tuple[str, Any, Mapping[Any, Any]]], file: str) -> Iterator[str]:
    """Hosts whose name means several hosts in a limit, where groups have priority."""
    members: dict[str, dict[str, None]] = defaultdict(dict)
    for group, name, _ in hosts:
        if isinstance(name, str):
            members[group][name] = members["all"][name] = None
    if file:
        members.setdefault(file, members["all"])
    for name in members["all"]:
        if name in members and len(members[name]) > 1:
            what = "the inventory file" if name == file else "a group"
            yield (
                f"{name}: {what} has the same name, so that --limit {name} selects"
                f" {len(members[name])} hosts; rename {what}, or the host"
            )


def _what(variable: object) -> str:
    is_list = isinstance(variable, list | tuple)
    return "has something that is not a host" if is_list else f"is {given(variable)}"


def _hosts(name: str, group: Any) -> Iterator[tuple[str, Any, Mapping[Any, Any]]]:
    """Group, name and own data of each host."""
    for host in group[0] if isinstance(group, tuple) else group:
        if isinstance(host, str):
            yield name, host, {}
        elif len(host) == 2 and isinstance(host[1], Mapping):
            yield name, *host


def _declared_twice(hosts: list[tuple[str, Any, Mapping[Any, Any]]]) -> Iterator[str]:
    """Hosts with different values of an option; values may be secrets."""
    first: dict[str, dict[Any, Any]] = defaultdict(dict)
    for _, name, data in hosts:
        known = first[name]
        if differs := [key for key in data if key in known and known[key] != data[key]]:
            yield (
                f"{name}: is declared twice, with a different {differs[0]}; "
                "give each host a name of its own"
            )
        known |= data
