"""The servers behind a gateway without services, and those that are drained.

Whether a server is drained is state of the gateway's host, in a file next to nginx's configuration:
it must survive the next deploy, also by another person. Pure.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from llmhost.gateway.models import ModelUpstream
from llmhost.gateway.nginx import NginxState, Tree
from llmhost.options.upstream import UpstreamServer
from llmhost.system.files import File
from llmhost.template import render

UPSTREAMS = "upstreams.conf"
AUTHORITY = "upstream-ca.crt"
MARK = ".drained"
_BY_HAND = "# managed by llmhost: created by `llmhost drain`, removed by `llmhost drain --undo`\n"
_BY_ROLL = (
    "# managed by llmhost: created by `llmhost roll`, which removes it when it has succeeded\n"
)
BY_TRAINING = "# managed by llmhost: created by `llmhost train`, removed when the server answers\n"


class Drained(Enum):
    """Who has drained a server; the value is how to undo it."""

    BY_HAND = "is drained and gets no requests; to undo this, run llmhost drain --undo"
    BY_ROLL = "is drained by llmhost roll and gets no requests; to continue, run llmhost roll again"
    BY_TRAINING = (
        "trains an adapter and gets no requests; it returns by itself when the training has ended"
    )


Marks = Mapping[str, Drained]
"""Drained servers by name."""

_TEXTS = {
    Drained.BY_HAND: _BY_HAND,
    Drained.BY_ROLL: _BY_ROLL,
    Drained.BY_TRAINING: BY_TRAINING,
}


@dataclass(frozen=True)
class Pool:
    """Servers and the authority of their certificates: the one in the directory `authority` on the
    controller, or without it those in the declared files."""

    servers: tuple[UpstreamServer, ...]
    authority: Path | None = None
    models: tuple[tuple[str, ModelUpstream], ...] = ()
    """nginx's name of each step of a model's route, and the step."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(server.name for server in self.servers)


def mark_path(directory: str, server: str) -> str:
    """File that marks a server as drained."""
    return f"{directory}/{server}{MARK}"


def drained_servers(pool: Pool, directory: str, state: NginxState) -> tuple[str, ...]:
    """Names of the drained servers, in the declared order."""
    return tuple(name for name in pool.names if mark_path(directory, name) in state.paths)


def marks_of(pool: Pool, directory: str, state: NginxState) -> dict[str, Drained]:
    """The drained servers, in the declared order, with who has drained them."""
    return {
        name: _owner(state.paths[mark_path(directory, name)].sha256 or "")
        for name in drained_servers(pool, directory, state)
    }


def _owner(sha256: str) -> Drained:
    owners = (by for by, text in _TEXTS.items() if File("", text).sha256 == sha256)
    return next(owners, Drained.BY_HAND)


def marks_after(
    before: Marks, servers: Collection[str], by: Drained, *, undo: bool
) -> dict[str, Drained]:
    """The marks after servers were drained or, with `undo`, returned. A person takes over the marks
    of all others; a roll and a training change nothing about servers that others drained."""
    held = {name for name, owner in before.items() if by is not Drained.BY_HAND and owner is not by}
    ours = [name for name in servers if name not in held]
    others = {name: owner for name, owner in before.items() if name not in ours}
    return others if undo else others | dict.fromkeys(ours, by)


def with_pool(
    tree: Tree,
    pool: Pool,
    drained: Collection[str],
    certificate: bytes,
    owners: Marks | None = None,
) -> Tree:
    """The tree with its servers, and marks of declared servers that are drained: by `owners`, and
    the others by hand."""
    known = owners or {}
    directory = tree.directory
    text = render(
        f"gateway/{UPSTREAMS}.j2", servers=pool.servers, models=dict(pool.models), drained=drained
    )
    files = [File(f"{directory}/{UPSTREAMS}", text)]
    files += [
        File(mark_path(directory, name), _TEXTS[known.get(name, Drained.BY_HAND)])
        for name in pool.names
        if name in drained
    ]
    if certificate:
        files.append(File(f"{directory}/{AUTHORITY}", certificate))
    return replace(tree, files=(*tree.files, *files))


def drain_refusal(pool: Pool, drained: Collection[str], servers: Collection[str]) -> str:
    """Why these servers cannot be drained; empty if they can."""
    if not set(pool.names) - {*drained, *servers}:
        return (
            f"{_last(servers)}: add another one first, with llmhost drain --undo SERVER INVENTORY"
        )
    for _, step in pool.models:
        names = step.answering
        if (lost := names & {*servers}) and not names - {*drained, *servers}:
            return f"{_last(lost)} for the model {step.model}"
    return ""


def _last(servers: Collection[str]) -> str:
    names = " and ".join(sorted(servers))
    what = "is the last server that takes" if len(servers) == 1 else "are the last ones that take"
    return f"{names} {what} requests"
