"""containerd's directory: it keeps the images of an engine with containerd's image store.

Docker 29 uses that store on new hosts, and `data-root` does not move it
(https://docs.docker.com/engine/daemon/#daemon-data-directory). Pure.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llmhost.docker.daemon_json import BrokenConfig

CONFIG = "/etc/containerd/config.toml"
_ROOT = re.compile(r"^\s*root\s*=.*\n?", re.MULTILINE)
_TABLE = re.compile(r"^\s*\[", re.MULTILINE)


@dataclass(frozen=True)
class EngineRoots:
    """`config` is the text of CONFIG, `containerd` the directory that it gives; both are empty
    without containerd, and if no directory of containerd is declared. `moves` are directories with
    data, by program, that are not the declared ones; `busy`: containers run; `swarm`: the host is
    a node of one."""

    config: str = ""
    containerd: str = ""
    moves: Mapping[str, str] = field(default_factory=dict)
    busy: bool = False
    swarm: bool = False


def with_root(text: str, root: str) -> str:
    """The configuration with this directory, and everything else as it is. Raises BrokenConfig."""
    text = text if text.strip() else "version = 2\n"
    first = _TABLE.search(text)
    place = first.start() if first else len(text)
    changed = f'root = "{root}"\n{_ROOT.sub("", text[:place])}{text[place:]}'
    try:
        if tomllib.loads(changed) == {**tomllib.loads(text), "root": root}:
            return changed
    except tomllib.TOMLDecodeError as error:
        raise BrokenConfig(f"{CONFIG} is not valid TOML: {error}") from None
    raise BrokenConfig(f'{CONFIG} has an unusual form; set root = "{root}" there yourself')


def refused_moves(
    moves: Mapping[str, str], docker_root: str, containerd_root: str
) -> Iterator[str]:
    """Why a host is refused whose data is elsewhere, with the steps to move it."""
    places = {
        "docker": (docker_root, f'"data-root": "{docker_root}" in /etc/docker/daemon.json'),
        "containerd": (
            containerd_root,
            f'root = "{containerd_root}" as the first line of {CONFIG}',
        ),
    }
    for program, old in moves.items():
        new, setting = places[program]
        yield (
            f"{program} keeps data in {old}, and docker_data_root puts it in {new}; llmhost does"
            " not move it. Either declare the old directory, or move it: systemctl stop"
            f" docker.socket docker containerd; mkdir -p {new}; cp -a {old}/. {new}/; set"
            f" {setting}; systemctl start containerd docker. Then deploy, and remove {old}"
        )
