"""nginx and its configuration."""

from collections.abc import Sequence
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
from llmhost.gateway.pool import (
    Drained,
    Marks,
    Pool,
    drain_refusal,
    marks_after,
    marks_of,
    with_pool,
)
from llmhost.gateway.returner import Returner
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
    marks = marks_of(pool, directory, state) if pool else {}
    note(map(_drained, marks, marks.values()))
    tree, renewal = desired.tree(state, marks)
    wrong, drift = tree.wrong(state), service_drift(state, tree.digest)
    if wrong or drift:
        explain([*([renewal] if renewal else []), *wrong.values(), *drift])
        yield from _apply(tree, state)


@declared(
    prefetch=lambda servers, *files, directory, status_port, **_: [
        _question(files, directory, status_port)
    ]
)
def drain(
    servers: Sequence[str],
    *files: File,
    undo: bool,
    directory: str,
    status_port: int,
    tls: Tls | None,
    pool: Pool,
    by: Drained = Drained.BY_HAND,
    returner: Returner | None = None,
) -> Commands:
    """Stop sending requests to servers of the pool, or with `undo` start again.

    Changes nothing else: a host that differs from its inventory in other ways is refused. Open
    requests are not interrupted. A roll and a training leave servers as they are that others
    drained. `returner` is started before a server is drained, and undoes it on the gateway.
    """
    desired = _DesiredState(files, directory, status_port, tls, pool)
    state = desired.state()
    before = marks_of(pool, directory, state)
    after = marks_after(before, servers, by, undo=undo)
    held = {name: before[name] for name in servers if name in before and by is not Drained.BY_HAND}
    note(_drained(name, owner) for name, owner in held.items() if owner is not by)
    tree, _ = desired.tree(state, before)
    if tree.wrong(state) or service_drift(state, tree.digest):
        yield refuse([f"{host.name} differs from its inventory: deploy it first"])
    elif not undo and (refusal := drain_refusal(pool, before, servers)):
        yield refuse([refusal])
    else:
        # First: whatever happens then, the server is returned.
        if returner and by in map(after.get, servers):
            yield StringCommand(returner.start_script, _stdin=returner.archive)
        if before != after:
            tree, _ = desired.tree(state, after)
            explain(
                _drained(name, after[name]) if name in after else f"{name} is returned to the pool"
                for name in servers
                if before.get(name) is not after.get(name)
            )
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

    def tree(self, state: NginxState, marks: Marks) -> tuple[Tree, str]:
        """The tree, and the reason for a new certificate, if there is one."""
        tree = Tree(self.files, self.directory, self.status_port)
        if self.pool:
            # A dry run creates no authority on the controller.
            create = host.state.is_executing
            directory = self.pool.authority
            authority = open_authority(directory, create=create).certificate if directory else b""
            tree = with_pool(tree, self.pool, marks, authority, marks)
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


def _drained(server: str, by: Drained) -> str:
    return f"{server} {by.value}"
