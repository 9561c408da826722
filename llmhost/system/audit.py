"""Paths whose changes the kernel reports to auditd, as declared and as loaded.

Pure: the state comes from facts/audit.py, the commands are run by operations/audit.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llmhost.system.files import PathState

DIRECTORY = "/etc/audit/rules.d"


@dataclass(frozen=True)
class AuditState:
    """`available`: the host has a kernel of its own. `existing` are those of the asked paths that
    exist, `loaded` those that the kernel watches for a component."""

    available: bool = False
    installed: bool = False
    running: bool = False
    existing: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    paths: Mapping[str, PathState] = field(default_factory=dict)


def rules_path(component: str) -> str:
    """The file of a component's rules."""
    return f"{DIRECTORY}/60-llmhost-{component}.rules"


def key(component: str) -> str:
    """The key of a component's rules, for ausearch(8)."""
    return f"llmhost-{component}"


def render(paths: Iterable[str], component: str) -> str:
    """Text of a file of rules, as in audit.rules(7): writes and changes of attributes."""
    lines = "".join(f"-w {path} -p wa -k {key(component)}\n" for path in paths)
    return f"# Managed by llmhost: edit the inventory instead.\n{lines}"


def parse_state(lines: Sequence[str], paths: Mapping[str, PathState]) -> AuditState:
    """Lines of files/system/audit.sh."""
    pairs = [line.partition(" ") for line in lines]
    found: dict[str, set[str]] = {"exists": set(), "rule": set()}
    for word, _, value in pairs:
        if word in found:
            found[word].add(value)
    words = {word for word, _, _ in pairs}
    return AuditState(
        available="available" in words,
        installed="installed" in words,
        running="running" in words,
        existing=frozenset(found["exists"]),
        loaded=frozenset(_watched(rule) for rule in found["rule"]),
        paths=paths,
    )


def _watched(rule: str) -> str:
    """The path of a rule of `auditctl -l`: `-w PATH …`, or with fields `dir=` or `path=`."""
    words = rule.split()
    if words[:1] == ["-w"]:
        return words[1].rstrip("/")
    fields = dict(word.split("=", 1) for word in words if "=" in word)
    return fields.get("dir", fields.get("path", rule)).rstrip("/")
