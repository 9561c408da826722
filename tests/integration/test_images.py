"""Images under the real Docker: what is built, what is not, and what is refused."""

import hashlib
import json
import shlex
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile
from llmhost.operations import images
from llmhost.settings import Settings
from llmhost.stack.project import service_images
from llmhost.system.files import File
from llmhost.units import gib
from testbed import Lan, Machine
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.file_server import FileServer, file_server
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

UPLOADS = "/opt/llmhost/uploads"


@pytest.fixture(scope="module")
def site(
    lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerSite]:
    with docker_site(lan, machine, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(autouse=True)
def _clean(site: DockerSite) -> None:
    site.forget_images()


def bake(settings: Settings) -> None:
    images.built(*service_images(settings), uploads=settings.stack.uploads, name="Bake")


def _images(site: DockerSite) -> list[str]:
    listed = site.machine.ssh("docker image ls --format '{{.Repository}}:{{.Tag}}' 'llmhost/*'")
    return sorted(listed.stdout.split())


def _layers(site: DockerSite, reference: str) -> list[str]:
    layers = site.machine.ssh(
        f"docker image inspect --format '{{{{json .RootFS.Layers}}}}' {reference}"
    )
    return list(json.loads(layers.stdout))


def _baked_sha256(site: DockerSite, reference: str, path: str) -> str:
    """Digest of a file in an image, read without running anything of it."""
    script = (
        f"id=$(docker create {reference} none) && docker cp -q $id:{path} - | tar -xO | sha256sum;"
        " docker rm $id >/dev/null"
    )
    return site.machine.ssh(script).stdout.split()[0]


def test_weights_and_engine_are_in_the_image(site: DockerSite) -> None:
    settings = site.settings()
    assert converge(site.machine, bake, settings).changed == ["Bake"]
    (image,) = service_images(settings)
    (base,) = image.stages
    assert _images(site) == sorted([image.reference, image.models[0].reference, base.reference])
    assert site.machine.ssh(f"docker image inspect {site.engine}", check=False).returncode == 1
    assert _baked_sha256(site, image.reference, "/models/tiny.gguf") == site.model_sha256
    assert site.machine.ssh(f"test -e {UPLOADS}", check=False).returncode == 1


def test_ordinary_user_with_sudo_can_bake(site: DockerSite) -> None:
    assert deploy(site.machine, bake, site.settings(), sudo=True).changed == ["Bake"]
    assert len(_images(site)) == 3


def test_weights_with_another_hash_are_refused_before_anything_changes(site: DockerSite) -> None:
    outcome = deploy(site.machine, bake, site.settings(model={"sha256": "12" * 32}))
    assert not outcome.succeeded
    assert f"SHA-256 {site.model_sha256} instead of {'12' * 32}" in outcome.output
    assert _images(site) == []
    assert site.machine.ssh("test -e /opt/llmhost", check=False).returncode == 1


def test_newer_engine_moves_no_weights(site: DockerSite) -> None:
    old, new = site.settings(), site.settings(llamacpp_image=site.other_engine())
    (before,), (after,) = service_images(old), service_images(new)
    weights = before.models[0].reference
    converge(site.machine, bake, old)
    made = site.machine.ssh(f"docker image inspect --format {{{{.Created}}}} {weights}").stdout
    converge(site.machine, bake, new)
    assert (
        site.machine.ssh(f"docker image inspect --format {{{{.Created}}}} {weights}").stdout == made
    )
    # The same layer on the same parent, which is none: Docker keeps it once for all three images.
    layers = _layers(site, weights)
    assert _layers(site, before.reference)[:1] == _layers(site, after.reference)[:1] == layers


def bake_pair(engine: str, model: tuple[str, str], second: tuple[str, str]) -> None:
    first = ModelImage("first", (WeightsFile(model[1], model[0], False, "/models/first.gguf"),))
    other = ModelImage("second", (WeightsFile(second[1], second[0], False, "/models/second.gguf"),))
    dockerfile = File("Dockerfile", "FROM base\n")
    images.built(
        ServiceImage("pair", engine, (first, other), (dockerfile,)),
        uploads=UPLOADS,
        name="Bake",
    )


def test_one_changed_model_of_two_is_the_only_one_made_anew(
    site: DockerSite, tmp_path: Path
) -> None:
    made = []
    for content in ("old", "new"):
        (tmp_path / content).write_text(content)
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        weights = (str(site.model), site.model_sha256), (str(tmp_path / content), sha256)
        converge(site.machine, bake_pair, site.engine, *weights)
        made.append(_images(site))
    kept, *_ = [reference for reference in made[0] if "model-first" in reference]
    assert kept in made[1]
    added = {ref.split(":")[0]: ref for ref in made[1] if ref not in made[0]}
    assert [*added] == ["llmhost/base-pair", "llmhost/pair", "llmhost/weights-pair"]
    pair = added["llmhost/pair"]
    assert _baked_sha256(site, pair, "/models/first.gguf") == site.model_sha256
    assert _baked_sha256(site, pair, "/models/second.gguf") == sha256


def bake_two(*parts: tuple[str, str, str]) -> None:
    top = (File("Dockerfile", "FROM base\n"),)
    services: list[ServiceImage] = []
    for engine, source, sha256 in parts:
        name = f"beside{len(services)}"
        model = ModelImage(name, (WeightsFile(sha256, source, False, f"/models/{name}"),))
        services.append(ServiceImage(name, engine, (model,), top))
    images.built(*services, uploads=UPLOADS, name="Bake")


def test_images_of_two_engines_are_built_at_the_same_time(site: DockerSite, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    sha256 = hashlib.sha256(b"other").hexdigest()
    first = site.engine, str(site.model), site.model_sha256
    second = site.other_engine(), str(tmp_path / "other"), sha256
    watch = f"until [ $(pgrep -fc '^sh {UPLOADS}/') -ge 2 ]; do sleep 0.05; done"
    with ThreadPoolExecutor() as pool:
        seen = pool.submit(site.machine.ssh, f"timeout 120 sh -c {shlex.quote(watch)}", check=False)
        converge(site.machine, bake_two, first, second)
    assert seen.result().returncode == 0
    built = {name.partition(":")[0] for name in _images(site)}
    assert built >= {"llmhost/beside0", "llmhost/beside1"}


def test_moved_tag_is_noticed(site: DockerSite) -> None:
    (image,) = service_images(site.settings())
    converge(site.machine, bake, site.settings())
    site.machine.ssh(f"docker tag {image.models[0].reference} {image.reference}")
    assert deploy(site.machine, bake, site.settings(), dry=True).changed == ["Bake"]
    converge(site.machine, bake, site.settings())
    assert _baked_sha256(site, image.reference, "/usr/bin/llama-server")


@pytest.mark.faults
@pytest.mark.parametrize("program", ["docker-buildx", "dockerd"])
def test_build_killed_half_way_is_healed_by_the_next_run(site: DockerSite, program: str) -> None:
    # The build waits for its killer: on a fast machine it would be over before.
    kill = (
        "until build=$(pgrep -n -f 'docker-buildx [b]uildx build'); do sleep 0.01; done;"
        f" kill -STOP $build; pkill -KILL -x {program}; kill -CONT $build || true"
    )
    site.machine.ssh("docker builder prune --all --force")  # or the build ends before its killer
    killer = threading.Thread(target=site.machine.ssh, args=(kill,))
    killer.start()
    outcome = deploy(site.machine, bake, site.settings())
    killer.join()
    # A daemon that comes back by its socket before the build asks for it is none the worse.
    assert program == "dockerd" or not outcome.succeeded
    (image,) = service_images(site.settings())
    assert (image.reference in _images(site)) == outcome.succeeded
    site.machine.ssh("systemctl reset-failed docker; systemctl start docker")
    converge(site.machine, bake, site.settings())
    assert _baked_sha256(site, image.reference, "/models/tiny.gguf") == site.model_sha256
    assert site.machine.ssh(f"test -e {UPLOADS}", check=False).returncode == 1


@pytest.mark.faults
@pytest.mark.parametrize("left", ["part", "whole"])
def test_weights_that_an_interrupted_run_left_do_no_harm(site: DockerSite, left: str) -> None:
    name = site.model_sha256 + (".part" if left == "part" else "")
    size = "1000" if left == "part" else "10M"
    site.machine.ssh(f"mkdir -p -m 0700 {UPLOADS}")
    upload = ["ssh", "-F", str(site.machine.ssh_config), site.machine.name]
    head = subprocess.run(["head", "-c", size, site.model], capture_output=True, check=True).stdout
    subprocess.run([*upload, f"cat >{UPLOADS}/{name}"], input=head, check=True)
    converge(site.machine, bake, site.settings())
    (image,) = service_images(site.settings())
    assert _baked_sha256(site, image.reference, "/models/tiny.gguf") == site.model_sha256
    assert site.machine.ssh(f"test -e {UPLOADS}", check=False).returncode == 1


@pytest.mark.faults
@pytest.mark.parametrize("resumable", [True, False])
def test_broken_download_is_gone_on_with(site: DockerSite, lan: Lan, resumable: bool) -> None:
    data = site.model.read_bytes()
    with file_server(lan.gateway, data, resumable=resumable) as server:
        settings = site.settings(model={"source": f"{server.url}/tiny.gguf"})
        site.machine.ssh(f"mkdir -p -m 0700 {UPLOADS}")
        part = f"{UPLOADS}/{site.model_sha256}.part"
        site.machine.ssh(f"curl -sS -r 0-99999 {server.url} | head -c 100000 >{part}")
        converge(site.machine, bake, settings)
    assert server.ranges[1:] == (["bytes=100000-"] if resumable else ["bytes=100000-", None])
    (image,) = service_images(settings)
    assert _baked_sha256(site, image.reference, "/models/tiny.gguf") == site.model_sha256


def test_download_of_something_else_is_refused(site: DockerSite, lan: Lan) -> None:
    with file_server(lan.gateway, b"not the weights") as server:
        settings = site.settings(model={"source": f"{server.url}/tiny.gguf"})
        outcome = deploy(site.machine, bake, settings)
    assert not outcome.succeeded
    assert f"not {site.model_sha256}" in outcome.output
    assert _images(site) == []
    assert site.machine.ssh(f"ls {UPLOADS}").stdout == ""


def test_engine_that_can_not_be_pulled_is_named(site: DockerSite) -> None:
    nowhere = f"{site.registry.name}/nothing:1@sha256:{'0' * 63}1"
    outcome = deploy(site.machine, bake, site.settings(llamacpp_image=nowhere))
    assert not outcome.succeeded
    assert f"{nowhere} could not be pulled: correct llamacpp_image" in outcome.output


def test_building_again_needs_no_registry(site: DockerSite) -> None:
    converge(site.machine, bake, site.settings())
    (image,) = service_images(site.settings())
    site.machine.ssh(f"docker image rm {image.reference}")
    site.registry.stop()
    try:
        converge(site.machine, bake, site.settings())
    finally:
        site.registry.__enter__()


@pytest.fixture
def gated(lan: Lan, site: DockerSite) -> Iterator[FileServer]:
    with file_server(lan.gateway, site.model.read_bytes(), token="hub-secret", seconds=3) as server:
        yield server


def _from(server: FileServer, **options: object) -> dict[str, object]:
    return {"source": f"{server.url}/tiny.gguf", **options}


def test_gated_weights_are_downloaded_with_a_token_that_nobody_sees(
    site: DockerSite, gated: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_TOKEN", "hub-secret")
    settings = site.settings(model=_from(gated, token="env:HUB_TOKEN"))
    # Another curl asks Docker's API.
    watch = "timeout 60 sh -c 'until pgrep -af \"[c]url .*--config\"; do :; done'"
    with ThreadPoolExecutor() as pool:
        seen = pool.submit(site.machine.ssh, watch, check=False)
        outcome = converge(site.machine, bake, settings)
    assert "--config" in seen.result().stdout and "hub-secret" not in seen.result().stdout
    assert "hub-secret" not in outcome.output
    (image,) = service_images(settings)
    assert _baked_sha256(site, image.reference, "/models/tiny.gguf") == site.model_sha256
    kept = "grep -rls hub-secret /opt /etc /root /tmp /var/lib/docker /var/log"
    assert site.machine.ssh(kept, check=False).stdout == ""


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "gated: accept their terms, and set the model's option token"),
        ("wrong", "gated, and the model's token gives no access"),
    ],
)
def test_gated_weights_need_the_right_token(
    site: DockerSite,
    gated: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    said: str,
) -> None:
    monkeypatch.setenv("HUB_TOKEN", token or "")
    options = {"token": "env:HUB_TOKEN"} if token else {}
    outcome = deploy(site.machine, bake, site.settings(model=_from(gated, **options)))
    assert not outcome.succeeded and f"The weights of tiny are {said}" in outcome.output
    assert _images(site) == []


def test_token_that_is_not_there_is_missed_before_anything_changes(
    site: DockerSite, gated: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUB_TOKEN", raising=False)
    settings = site.settings(model=_from(gated, token="env:HUB_TOKEN"))
    outcome = deploy(site.machine, bake, settings)
    assert not outcome.succeeded
    told = "The token of tiny refers to the environment variable HUB_TOKEN, which is not set"
    assert told in outcome.output
    assert site.machine.ssh("test -e /opt/llmhost", check=False).returncode == 1


@pytest.mark.parametrize("remote", [False, True])
def test_disk_that_is_too_small_is_told_before_anything_is_sent(
    site: DockerSite, lan: Lan, remote: bool
) -> None:
    small = "mkdir -p /opt/llmhost && mount -t tmpfs -o size=256k tmpfs /opt/llmhost"
    with file_server(lan.gateway, site.model.read_bytes()) as server:
        model = _from(server) if remote else {}
        site.machine.ssh(small)
        try:
            outcome = deploy(site.machine, bake, site.settings(model=model))
            left = site.machine.ssh("ls -A /opt/llmhost").stdout
        finally:
            site.machine.ssh("umount /opt/llmhost")
    assert not outcome.succeeded and left == ""
    assert "baking the models needs about" in outcome.output
    assert server.ranges == []
    assert _images(site) == []


def test_what_takes_long_is_told_while_it_goes_on(site: DockerSite, lan: Lan) -> None:
    data = site.model.read_bytes()
    with file_server(lan.gateway, data, seconds=18) as server:
        outcome = converge(site.machine, bake, site.settings(model=_from(server)))
    lines = [line for line in outcome.output.splitlines() if "downloading the weights" in line]
    assert len(lines) == 3, outcome.output
    assert all(f" of {gib(len(data))}, " in line and " left" in line for line in lines[:2])
    assert "downloading the weights of tiny: done in " in lines[2]
