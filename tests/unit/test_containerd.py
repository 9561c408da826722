"""containerd's directory: its configuration, and refusals to move data."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from llmhost.docker.containerd import EngineRoots, refused_moves, with_root
from llmhost.docker.daemon_json import BrokenConfig
from llmhost.facts.docker import EngineRootsFact
from llmhost.inventory.reader import read_settings
from llmhost.resources import script_text

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


def roots(place: Path, docker: str, containerd: str, declared: tuple[str, str]) -> EngineRoots:
    """What the fact finds on a host whose programs print these."""
    for name, prints in (("docker", docker), ("containerd", containerd)):
        program = place / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{prints}'\n")
        program.chmod(0o755)
    fact = EngineRootsFact()
    command = ["sh", "-c", fact.command(*declared)]
    path = f"{place}/bin:{os.environ['PATH']}"
    ran = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=True)
    return fact.process(ran.stdout.splitlines())


def test_data_outside_the_declared_directories_is_found(tmp_path: Path) -> None:
    (tmp_path / "docker/containers/one").mkdir(parents=True)
    (tmp_path / "containerd/io.containerd.content.v1.content/blobs/sha256/ab").mkdir(parents=True)
    docker, own = f"{tmp_path}/docker", f"{tmp_path}/containerd"
    answers = (f"{docker}|[[driver-type io.containerd.snapshotter.v1]]", f'root = "{own}"')
    elsewhere = roots(tmp_path, *answers, ("/elsewhere", "/elsewhere/containerd-root"))
    assert (elsewhere.containerd, elsewhere.moves) == (own, {"docker": docker, "containerd": own})
    assert roots(tmp_path, *answers, (f"{docker}/.", own)).moves == {}
    # If any directory of containerd will do, containerd is not asked.
    assert roots(tmp_path, *answers, (docker, "")) == EngineRoots()


def test_directory_of_user_namespaces_is_no_move(tmp_path: Path) -> None:
    (tmp_path / "docker/231072.231072/containers/one").mkdir(parents=True)
    (tmp_path / "docker/containers/one").mkdir(parents=True)
    remapped = f"{tmp_path}/docker/231072.231072|[[Backing Filesystem extfs]]"
    assert roots(tmp_path, remapped, "", (f"{tmp_path}/docker", "")).moves == {}
    moved = roots(tmp_path, remapped, "", ("/elsewhere", "")).moves
    assert moved == {"docker": f"{tmp_path}/docker"}


def test_directory_that_is_declared_like_one_of_user_namespaces_is_no_move(tmp_path: Path) -> None:
    (tmp_path / "1.2/containers/one").mkdir(parents=True)
    assert roots(tmp_path, f"{tmp_path}/1.2|", "", (f"{tmp_path}/1.2", "")).moves == {}


def test_node_of_a_swarm_is_found(tmp_path: Path) -> None:
    swarm = tmp_path / "docker/swarm"
    swarm.mkdir(parents=True)
    declared = (f"{tmp_path}/docker", "")
    # The directory stays when the host leaves the swarm.
    assert not roots(tmp_path, f"{tmp_path}/docker|", "", declared).swarm
    (swarm / "docker-state.json").write_text("{}")
    assert roots(tmp_path, f"{tmp_path}/docker|", "", declared).swarm


def test_free_space_is_that_of_the_directory_with_the_images(tmp_path: Path) -> None:
    text = script_text("docker/functions.sh") + 'image_root "$1"'
    program = tmp_path / "containerd"
    program.write_text("#!/bin/sh\necho \"root = '/data/containerd'\"\n")
    program.chmod(0o755)
    for found, path in (
        ("/data/docker|[[driver-type io.containerd.snapshotter.v1]]", "/data/containerd"),
        ("/data/docker|[[Backing Filesystem extfs]]", "/data/docker"),
        ("", "/var/lib/docker"),
    ):
        command = ["sh", "-c", text, "sh", found]
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ran.stdout == f"{path}\n"
