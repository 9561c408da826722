"""containerd's directory: its configuration, and refusals to move data."""

import tomllib

import pytest

from llmhost.docker.containerd import refused_moves, with_root
from llmhost.docker.daemon_json import BrokenConfig
from llmhost.inventory.reader import read_settings

ROOT = "/data/docker/containerd-root"
DEBIAN = 'version = 2\n\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    root = "x"\n'


@pytest.mark.parametrize(
    "text",
    ["", "version = 3\n", DEBIAN, 'root = "/old"\n' + DEBIAN, 'root="/a"\nimports = [\n "b",\n]\n'],
)
def test_everything_but_the_directory_stays(text: str) -> None:
    changed = tomllib.loads(with_root(text, ROOT))
    assert changed.pop("root") == ROOT
    before = tomllib.loads(text)
    before.pop("root", None)
    assert changed == (before or {"version": 2})


@pytest.mark.parametrize("text", ["version =", 'x = """\nroot = 1\n"""\n'])
def test_configuration_that_cannot_be_edited_is_refused(text: str) -> None:
    with pytest.raises(BrokenConfig, match=r"config\.toml"):
        with_root(text, ROOT)


def test_containerd_follows_docker_unless_docker_is_where_it_always_is() -> None:
    assert read_settings({}).docker.containerd_root == ""
    moved = read_settings({"docker_data_root": "/data/docker"}).docker
    assert moved.containerd_root == ROOT


def test_refusal_has_the_steps() -> None:
    moves = {"docker": "/var/lib/docker", "containerd": "/var/lib/containerd"}
    docker, containerd = refused_moves(moves, "/data/docker", ROOT)
    assert "cp -a /var/lib/docker/. /data/docker/; " in docker
    assert '"data-root": "/data/docker" in /etc/docker/daemon.json' in docker
    assert f"cp -a /var/lib/containerd/. {ROOT}/; " in containerd
    assert f'root = "{ROOT}" as the first line of /etc/containerd/config.toml' in containerd
    assert [*refused_moves({}, "/data/docker", ROOT)] == []
