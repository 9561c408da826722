"""nginx and its configuration."""

from pyinfra import host
from pyinfra.api import StringCommand

from llmhost.facts.nginx import Nginx
from llmhost.filetree import File
from llmhost.nginx import Tree, activate_script, candidate_archive, install_script, service_drift
from llmhost.operations.changes import Commands, declared, explain


@declared
def configuration(*files: File, directory: str, status_port: int) -> Commands:
    """Make nginx run exactly this configuration: nginx.conf, and `directory` beside it.

    Nothing else remains in `directory`. The tree is tested whole before a file of it becomes live;
    if nginx refuses it, the operation fails with nginx's own words and the old one goes on running.
    The running nginx serves the digest of what it has loaded on `status_port` of 127.0.0.1, so a
    run that was killed between the files and the reload is healed by the next.
    """
    tree = Tree(files, directory, status_port)
    paths = [file.path for file in tree.all_files]
    state = host.get_fact(Nginx, paths=paths, under=directory, status_port=status_port)
    wrong, drift = tree.wrong(state), service_drift(state, tree.digest)
    if wrong or drift:
        explain([*wrong.values(), *drift])
    if wrong:
        yield StringCommand(install_script(tree, wrong), _stdin=candidate_archive(tree))
    if wrong or drift:
        yield StringCommand(activate_script(status_port, tree.digest))
