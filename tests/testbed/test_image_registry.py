"""The private registry serves what was pushed to it, and is gone when it is left."""

import io
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed.image_registry import PORT, ImageRegistry
from testbed.process import MachineError, wait_until
from tests.programs import running

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(os.geteuid() != 0, reason="test machines need root"),
]

# Any address of 127.0.0.0/8 is this machine: one that nobody else's registry uses.
ROOT = Path(__file__).parents[2]
ADDRESS = "127.231.0.1"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ImageRegistry]:
    with ImageRegistry(ADDRESS, tmp_path / "storage") as registry:
        yield registry


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("hello"), io.BytesIO())
    return path


def answers() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((ADDRESS, PORT)) == 0


def test_pushed_image_is_served_under_its_digest(registry: ImageRegistry, root: Path) -> None:
    reference = registry.push("some/image", "1", root)
    name, digest = reference.split("@")
    assert name == f"{ADDRESS}:{PORT}/some/image:1"
    base = f"http://{registry.name}/v2/some/image"
    manifest = httpx.get(
        f"{base}/manifests/{digest}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    (layer,) = manifest.raise_for_status().json()["layers"]
    assert httpx.get(f"{base}/blobs/{layer['digest']}").content == root.read_bytes()


def test_equal_archives_give_equal_references(registry: ImageRegistry, root: Path) -> None:
    assert registry.push("image", "1", root) == registry.push("image", "1", root)


def test_images_outlive_the_server(tmp_path: Path, root: Path) -> None:
    with ImageRegistry(ADDRESS, tmp_path / "storage") as first:
        digest = first.push("image", "1", root).split("@")[1]
    assert not answers()
    with ImageRegistry(ADDRESS, tmp_path / "storage") as second:
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        url = f"http://{second.name}/v2/image/manifests/{digest}"
        assert httpx.get(url, headers=accept).status_code == 200


def test_somebody_elses_server_is_not_taken_for_it(registry: ImageRegistry, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="something else already listens"):
        ImageRegistry(ADDRESS, tmp_path / "other").__enter__()


def test_registry_ends_with_whoever_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from testbed.image_registry import ImageRegistry\n"
        f"with ImageRegistry({ADDRESS!r}, Path(sys.argv[1])):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "storage")]
    with running(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout and owner.stdout.readline() == "up\n"
        owner.kill()
    assert wait_until(lambda: not answers(), 5)
