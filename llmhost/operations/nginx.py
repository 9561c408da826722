"""nginx and its configuration."""

from dataclasses import replace

from pyinfra import host
from pyinfra.api import StringCommand

from llmhost.authority import open_authority
from llmhost.facts.nginx import Nginx
from llmhost.filetree import File
from llmhost.gateway_tls import CERTIFICATE, Tls, certified, name_files, served_names
from llmhost.nginx import (
    NginxState,
    Tree,
    activate_script,
    candidate_archive,
    install_script,
    service_drift,
)
from llmhost.operations.changes import Commands, declared, explain


@declared
def configuration(
    *files: File, directory: str, status_port: int, tls: Tls | None = None
) -> Commands:
    """Make nginx run exactly this configuration: nginx.conf, and `directory` beside it.

    Nothing else remains in `directory`. The tree is tested whole before a file of it becomes live;
    if nginx refuses it, the operation fails with nginx's own words and the old one goes on running.
    The running nginx serves the digest of what it has loaded on `status_port` of 127.0.0.1, so a
    run that was killed between the files and the reload is healed by the next. With `tls` the
    configuration may include names.conf and other-names.conf, and its certificate is kept valid.
    """
    state = host.get_fact(
        Nginx,
        paths=[file.path for file in files],
        under=directory,
        status_port=status_port,
        certificate=f"{directory}/{CERTIFICATE}",
    )
    tree, renewal = _with_tls(Tree(files, directory, status_port), tls, state)
    wrong, drift = tree.wrong(state), service_drift(state, tree.digest)
    if wrong or drift:
        explain([*([renewal] if renewal else []), *wrong.values(), *drift])
    if wrong:
        yield StringCommand(install_script(tree, wrong), _stdin=candidate_archive(tree))
    if wrong or drift:
        yield StringCommand(activate_script(status_port, tree.digest))


def _with_tls(tree: Tree, tls: Tls | None, state: NginxState) -> tuple[Tree, str]:
    """The tree with all that TLS needs, and why the certificate is a new one, if it is."""
    if tls is None:
        return tree, ""
    names = served_names(tls, host.name, state)
    tree = replace(tree, files=(*tree.files, *name_files(tree, tls, names, state.version)))
    if tls.authority is None:
        return tree, ""
    # A dry run leaves nothing behind on the controller either.
    authority = open_authority(tls.authority, create=host.state.is_executing)
    return certified(tree, tls, names, state, authority)
