"""A host's firewall, in one round trip."""

from itertools import groupby

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.resources import script
from llmhost.system.ufw import (
    AFTER_RULES,
    NORMAL_FORM,
    PATHS,
    RECORD,
    SOURCES,
    USER_RULES,
    UfwState,
    parse_connection,
)

_MARK = "=== llmhost: "
_TEXTS = (*USER_RULES.values(), *AFTER_RULES.values())


class Ufw(FactBase[UfwState]):
    """State of ufw's files and of the loaded rules.

    Sources: the files in /etc, the record of the rules loaded last, `iptables-save` and
    `ip6tables-save`, and the environment of the shell that sshd started. The default state is
    that of a host without ufw.
    """

    @staticmethod
    def default() -> UfwState:
        return UfwState()

    def command(self) -> str:
        states = PathStates().command(list(PATHS))
        state = script("firewall/state.sh", _MARK, RECORD, SOURCES, NORMAL_FORM, *_TEXTS)
        return f"PATH=$PATH:/usr/sbin:/sbin; {states}; {state}; {script('network/connection.sh')}"

    def process(self, output: list[str]) -> UfwState:
        return parse_state(output)


def parse_state(output: list[str]) -> UfwState:
    """Parse the output of the command: path states, then sections that begin with a mark."""
    parts: dict[str, list[str]] = {"": []}
    for line in output:
        if line.startswith(_MARK):
            parts[line.removeprefix(_MARK)] = []
        else:
            parts[next(reversed(parts))].append(line)
    pairs = sorted(line.split(" ", 1) for line in parts.get("facts", []))
    facts = {key: [value for _, value in group] for key, group in groupby(pairs, lambda p: p[0])}
    return UfwState(
        paths=parse_states(parts[""]),
        texts={path: "\n".join(parts[path]) for path in _TEXTS if path in parts},
        starts_at_boot="starts-at-boot" in facts,
        connection=parse_connection(facts.get("connection", [""])[0]),
        recorded="recorded" in facts,
        edited="edited" in facts,
        live=parts.get("live", []),
        uplinks=facts.get("uplink", []),
        other_backend=facts.get("other-backend", [""])[0],
    )
