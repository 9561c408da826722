"""nginx and its configuration."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pyinfra import host
from pyinfra.api import StringCommand

from llmhost.facts.nginx import Nginx
from llmhost.gateway.authority import open_authority
from llmhost.gateway.nginx import (
    NginxState,
    Tree,
    activate_script,
    candidate_archive,
    install_script,
    service_drift,
)
from llmhost.gateway.pool import Pool, drain_refusal, drained_servers, with_pool
from llmhost.gateway.tls import CERTIFICATE, Tls, certified, name_files, served_names
from llmhost.operations.changes import explain, note, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.system.files import File


def _question(files: Sequence[File], directory: str, status_port: int) -> Question:
    return ask(
        Nginx,
        paths=[directory, *(file.path for file in files)],
        under=directory,
        status_port=status_port,
        certificate=f"{directory}/{CERTIFICATE}",
    )


@declared(
    prefetch=lambda *files, directory, status_port, **_: [_question(files, directory, status_port)]
)
def configuration(
    *files: File,
    directory: str,
    status_port: int,
    tls: Tls | None = None,
    pool: Pool | None = None,
) -> Commands:
    """Make nginx run exactly this configuration: nginx.conf, and `directory` beside it.

    All other files in `directory` are removed. The whole tree is tested before it becomes live; if
    nginx rejects it, the operation fails with nginx's message, and the old configuration keeps
    running. The running nginx serves the digest of its configuration on `status_port` of 127.0.0.1,
    so that the next run repairs one that was killed between the files and the reload. With `tls`,
    the configuration may include names.conf and other-names.conf, and its certificate is kept
    valid; with `pool`, it may include upstreams.conf, in which drained servers stay drained.
    """
    desired = _DesiredState(files, directory, status_port, tls, pool)
    state = desired.state()
    drained = drained_servers(pool, directory, state) if pool else ()
    note(_drained(name) for name in drained)
    tree, renewal = desired.tree(state, drained)
    wrong, drift = tree.wrong(state), service_drift(state, tree.digest)
    if wrong or drift:
        explain([*([renewal] if renewal else []), *wrong.values(), *drift])
        yield from _apply(tree, state)


@declared(
    prefetch=lambda server, *files, directory, status_port, **_: [
        _question(files, directory, status_port)
    ]
)
def drain(
    server: str,
    *files: File,
    undo: bool,
    directory: str,
    status_port: int,
    tls: Tls | None,
    pool: Pool,
) -> Commands:
    """Stop sending requests to a server of the pool, or with `undo` start again.

    Changes nothing else: a host that differs from its inventory in other ways is refused. Open
    requests are not interrupted.
    """
    desired = _DesiredState(files, directory, status_port, tls, pool)
    state = desired.state()
    before = set(drained_servers(pool, directory, state))
    after = before - {server} if undo else before | {server}
    tree, _ = desired.tree(state, before)
    if tree.wrong(state) or service_drift(state, tree.digest):
        yield refuse([f"{host.name} differs from its inventory: deploy it first"])
    elif not undo and (refusal := drain_refusal(pool, before, server)):
        yield refuse([refusal])
    elif before != after:
        tree, _ = desired.tree(state, after)
        explain([f"{server} is returned to the pool" if undo else _drained(server)])
        yield from _apply(tree, state)


@dataclass(frozen=True)
class _DesiredState:
    """The declared configuration; `tree` completes it with the host's state."""

    files: tuple[File, ...]
    directory: str
    status_port: int
    tls: Tls | None
    pool: Pool | None

    def state(self) -> NginxState:
        question = _question(self.files, self.directory, self.status_port)
        return get_fact(Nginx, **question.arguments)

    def tree(self, state: NginxState, drained: Collection[str]) -> tuple[Tree, str]:
        """The tree, and the reason for a new certificate, if there is one."""
        tree = Tree(self.files, self.directory, self.status_port)
        if self.pool:
            # A dry run creates no authority on the controller.
            create = host.state.is_executing
            directory = self.pool.authority
            authority = open_authority(directory, create=create).certificate if directory else b""
            tree = with_pool(tree, self.pool, drained, authority)
        return _with_tls(tree, self.tls, state)


def _with_tls(tree: Tree, tls: Tls | None, state: NginxState) -> tuple[Tree, str]:
    """The tree with the files for TLS, and the reason for a new certificate, if there is one."""
    if tls is None:
        return tree, ""
    names = served_names(tls, host.name, state)
    tree = replace(tree, files=(*tree.files, *name_files(tree, tls, names, state.version)))
    if tls.authority is None:
        return tree, ""
    authority = open_authority(tls.authority, create=host.state.is_executing)
    return certified(tree, tls, names, state, authority)


def _apply(tree: Tree, state: NginxState) -> Commands:
    if wrong := tree.wrong(state):
        yield StringCommand(install_script(tree, wrong), _stdin=candidate_archive(tree))
    yield StringCommand(activate_script(tree.status_port, tree.digest))


def _drained(server: str) -> str:
    return (
        f"{server} is drained and gets no requests; to undo this, run llmhost drain --undo"
        f" {server} INVENTORY"
    )
