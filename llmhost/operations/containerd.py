"""containerd's directory."""

from pathlib import PurePosixPath

from pyinfra.api import StringCommand

from llmhost.docker.containerd import CONFIG, refused_moves, with_root
from llmhost.docker.daemon_json import BrokenConfig
from llmhost.facts.docker import EngineRootsFact
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.system.files import UNPACK, File, archive, candidate_path


@declared(prefetch=lambda docker, root: [ask(EngineRootsFact, docker=docker, containerd=root)])
def rooted(docker: str, root: str) -> Commands:
    """Keep containerd's data in `root`, and Docker's in `docker`; an empty `root` is as it is.

    Data is never moved: a host that has some elsewhere is refused. Containers that run keep
    containerd where it is; without its image store, it holds no images. The configuration takes
    effect when containerd is restarted: systemd.service(…, newer_than=[CONFIG]).
    """
    found = get_fact(EngineRootsFact, docker=docker, containerd=root)
    if found.moves:
        yield refuse(refused_moves(found.moves, docker, root))
    elif root and found.containerd != root and not found.busy:
        try:
            text = with_root(found.config, root)
        except BrokenConfig as error:
            yield refuse([str(error)])
            return
        explain([f"containerd keeps its data in {found.containerd or 'its default'}, not {root}"])
        candidate = candidate_path(CONFIG)
        lines = [
            f"set -e; mkdir -p -m 0755 {PurePosixPath(CONFIG).parent}",
            UNPACK,
            f"containerd --config {candidate} config dump >/dev/null",
            f"mv -fT {candidate} {CONFIG}",
        ]
        files = {candidate: File(CONFIG, text)}
        yield StringCommand("\n".join(lines), _stdin=archive(files))
