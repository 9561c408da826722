"""The servers behind a gateway that has no services of its own, and those that are drained.

That a server is drained is a state of the gateway's host, kept by a file beside nginx's
configuration: it is set in an hour of need by one person, and has to outlast the next deploy by
another. Pure, like all that makes nginx's configuration.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from llmhost.gateway.nginx import NginxState, Tree
from llmhost.options.upstream import UpstreamServer
from llmhost.system.files import File
from llmhost.template import render

UPSTREAMS = "upstreams.conf"
AUTHORITY = "upstream-ca.crt"
MARK = ".drained"
_MARK_TEXT = (
    "# managed by llmhost: taken out by `llmhost drain`, taken in by `llmhost drain --undo`\n"
)


@dataclass(frozen=True)
class Pool:
    """Servers, and whose certificates they have: of the authority in the directory `authority` on
    the controller, or, without one, of those that are among the declared files."""

    servers: tuple[UpstreamServer, ...]
    authority: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(server.name for server in self.servers)


def mark_path(directory: str, server: str) -> str:
    """File that says that a server is drained."""
    return f"{directory}/{server}{MARK}"


def drained_servers(pool: Pool, directory: str, state: NginxState) -> tuple[str, ...]:
    """Names of the drained servers, in the order that they are declared."""
    return tuple(name for name in pool.names if mark_path(directory, name) in state.paths)


def with_pool(tree: Tree, pool: Pool, drained: Collection[str], certificate: bytes) -> Tree:
    """The tree with its servers. Marks of servers that are not declared do not belong there."""
    directory = tree.directory
    text = render(f"gateway/{UPSTREAMS}.j2", servers=pool.servers, drained=drained)
    files = [File(f"{directory}/{UPSTREAMS}", text)]
    files += [
        File(mark_path(directory, name), _MARK_TEXT) for name in pool.names if name in drained
    ]
    if certificate:
        files.append(File(f"{directory}/{AUTHORITY}", certificate))
    return replace(tree, files=(*tree.files, *files))


def drain_refusal(pool: Pool, drained: Collection[str], server: str) -> str:
    """Why a server can not be taken out; empty if it can."""
    if not set(pool.names) - {*drained, server}:
        return (
            f"{server} is the last server that takes requests: take another one in first, with"
            " llmhost drain --undo"
        )
    return ""
