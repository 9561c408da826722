"""The servers behind a gateway without services, and those that are drained.

Whether a server is drained is state of the gateway's host, in a file next to nginx's configuration:
it must survive the next deploy, also by another person. Pure.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from llmhost.gateway.models import ModelUpstream
from llmhost.gateway.nginx import NginxState, Tree
from llmhost.options.upstream import UpstreamServer
from llmhost.system.files import File
from llmhost.template import render

UPSTREAMS = "upstreams.conf"
AUTHORITY = "upstream-ca.crt"
MARK = ".drained"
_MARK_TEXT = "# managed by llmhost: created by `llmhost drain`, removed by `llmhost drain --undo`\n"


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


def with_pool(tree: Tree, pool: Pool, drained: Collection[str], certificate: bytes) -> Tree:
    """The tree with its servers, and marks of declared servers that are drained."""
    directory = tree.directory
    text = render(
        f"gateway/{UPSTREAMS}.j2", servers=pool.servers, models=dict(pool.models), drained=drained
    )
    files = [File(f"{directory}/{UPSTREAMS}", text)]
    files += [
        File(mark_path(directory, name), _MARK_TEXT) for name in pool.names if name in drained
    ]
    if certificate:
        files.append(File(f"{directory}/{AUTHORITY}", certificate))
    return replace(tree, files=(*tree.files, *files))


def drain_refusal(pool: Pool, drained: Collection[str], server: str) -> str:
    """Why a server cannot be drained; empty if it can."""
    if not set(pool.names) - {*drained, server}:
        return (
            f"{server} is the last server that takes requests: add another one first, with"
            " llmhost drain --undo SERVER INVENTORY"
        )
    for _, step in pool.models:
        names = {place.name for place in step.places}
        if server in names and not names - {*drained, server}:
            return f"{server} is the last server that takes requests for the model {step.model}"
    return ""
