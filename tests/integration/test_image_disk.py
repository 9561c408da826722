"""What images take on a host's disk, with each of Docker's image stores: engine and weights once.

A machine for each store: `script/test scale`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile
from llmhost.history.rollback import DeployPaths
from llmhost.operations import images, rollback
from llmhost.system.files import File
from testbed import Lan, Machine
from testbed.engine import root_archive
from testbed.image_registry import ImageRegistry
from tests.integration.harness import converge

pytestmark = [pytest.mark.machines, pytest.mark.scale]

UPLOADS = "/opt/llmhost/uploads"
MIB = 1 << 20
SIZES = {"engine": 60, "first": 40, "second": 30}
"""Bytes that cannot be compressed, in MiB."""

STORES = {"overlay2": ("trixie", 1), "containerd": ("forky", 2)}
"""By the image store: a release whose Docker has it, and how many copies it keeps of a layer."""

_INSTALL = (
    "apt-get -q update && apt-get -y -q --no-install-recommends install"
    " docker.io docker-cli docker-buildx && systemctl stop docker && mkdir -p /etc/docker &&"
    " cat >/etc/docker/daemon.json && systemctl start docker"
)


@dataclass(frozen=True)
class Host:
    """A machine with Docker, and a registry with two versions of an engine."""

    machine: Machine
    registry: ImageRegistry
    engines: tuple[str, str]
    engine_bytes: int
    copies: int
    files: Path

    def used_bytes(self) -> int:
        measured = self.machine.ssh("du -cxsB1 /var/lib/docker /var/lib/containerd | tail -1")
        return int(measured.stdout.split()[0])

    def most_bytes(self) -> int:
        """An engine and both models, with five percent for what Docker writes about them."""
        models = (SIZES["first"] + SIZES["second"]) * MIB
        return int(1.05 * self.copies * (self.engine_bytes + models))

    def model(self, name: str, version: str) -> tuple[str, str]:
        """Path and digest of new weights."""
        path = self.files / f"{name}-{version}"
        path.write_bytes(Random(path.name).randbytes(SIZES[name] * MIB))
        return str(path), hashlib.sha256(path.read_bytes()).hexdigest()

    def names(self) -> list[str]:
        """Tags of llmhost's images, and all that was pulled."""
        listed = self.machine.ssh("docker image ls --all --format '{{.Repository}}'").stdout
        return sorted(set(listed.split()))

    def content(self, reference: str) -> dict[str, str]:
        """Digests of the big files in an image, by path."""
        script = (
            f"id=$(docker create {reference} none) && mkdir /tmp/content &&"
            # Docker 26 keeps the layers of a container that was exported.
            " for each in opt models; do docker cp -q $id:/$each - | tar -xC /tmp/content; done;"
            " docker rm $id >/dev/null;"
            " cd /tmp/content && find * -type f -exec sha256sum {} +; rm -r /tmp/content"
        )
        lines = self.machine.ssh(script).stdout.splitlines()
        return {path: digest for digest, path in map(str.split, lines)}

    def inspect(self, reference: str, field: str) -> list[str]:
        shown = self.machine.ssh(f"docker image inspect -f '{{{{json {field}}}}}' {reference}")
        return list(json.loads(shown.stdout))


@pytest.fixture(scope="module", params=STORES)
def host(
    request: pytest.FixtureRequest, lan: Lan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    suite, copies = STORES[request.param]
    directory = tmp_path_factory.mktemp("disk")
    machine = lan.machine(f"disk-{request.param}", suite=suite)
    with ImageRegistry(lan.gateway, directory / "registry") as registry:
        options = {
            "insecure-registries": [registry.name],
            "features": {"containerd-snapshotter": request.param == "containerd"},
        }
        machine.ssh(_INSTALL, input=json.dumps(options))
        engines, sizes = [], []
        for version in ("1", "2"):
            files = directory / f"engine-{version}/opt"
            files.mkdir(parents=True)
            (files / "engine").write_bytes(Random(version).randbytes(SIZES["engine"] * MIB))
            packed = root_archive("disk", ["coreutils", "base-files"], "trixie", files.parent)
            engines.append(registry.push("engine", version, packed))
            sizes.append(packed.stat().st_size)
        yield Host(machine, registry, (engines[0], engines[1]), max(sizes), copies, directory)


def service(engine: str, first: tuple[str, str], second: tuple[str, str]) -> ServiceImage:
    models = (
        ModelImage("first", (WeightsFile(first[1], first[0], False, "/models/first"),)),
        ModelImage("second", (WeightsFile(second[1], second[0], False, "/models/second/weights"),)),
    )
    return ServiceImage("pair", engine, models, (File("Dockerfile", "FROM base\nENV A=1\n"),))


def bake(engine: str, first: tuple[str, str], second: tuple[str, str]) -> None:
    images.built(service(engine, first, second), uploads=UPLOADS, name="Bake")


def prune(declared: list[str]) -> None:
    places = DeployPaths("/var/lib/llmhost/receipt.json", "/opt/llmhost", "llmhost", 60, "/n", "c")
    rollback.pruned(declared, places=places, uploads=UPLOADS, name="Prune")


def test_engine_and_weights_are_on_the_disk_once_after_every_update(host: Host) -> None:
    before = host.used_bytes()
    first, second = host.model("first", "1"), host.model("second", "1")
    engine, other = host.engines
    converge(host.machine, bake, engine, first, second)
    built = service(engine, first, second).reference
    assert host.used_bytes() - before <= host.most_bytes()
    assert host.names() == [
        f"llmhost/{n}" for n in ("base-pair", "model-first", "pair", "weights-pair")
    ]
    content = host.content(built)
    assert content["models/first"] == first[1] and content["models/second/weights"] == second[1]

    # Other weights, and no registry: the engine comes from the image that has it.
    host.registry.stop()
    try:
        retrained = host.model("second", "2")
        outcome = converge(host.machine, bake, engine, first, retrained)
    finally:
        host.registry.__enter__()
    assert "uploading the weights of first" not in outcome.output
    updated = service(engine, first, retrained).reference
    assert host.content(updated) == content | {"models/second/weights": retrained[1]}
    assert host.inspect(updated, ".Config.Env") == host.inspect(built, ".Config.Env")

    # Another engine: no weights are uploaded or copied.
    outcome = converge(host.machine, bake, other, first, retrained)
    assert "the weights of" not in outcome.output
    newest = service(other, first, retrained).reference
    layers = [host.inspect(each, ".RootFS.Layers") for each in (updated, newest)]
    assert layers[0][:2] == layers[1][:2] and layers[0][2:] != layers[1][2:]
    assert host.content(newest)["opt/engine"] != content["opt/engine"]

    converge(host.machine, prune, [newest])
    assert host.used_bytes() - before <= host.most_bytes()
    assert host.names() == [
        f"llmhost/{n}" for n in ("base-pair", "model-first", "pair", "weights-pair")
    ]
