"""A server without any way out, deployed from a bundle that a connected machine made.

Two machines on one LAN: the builder reaches packages and the registry, the server has no route but
to the LAN. The tests run in the order of the file: the bundle is made, refused, and applied.
"""

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.bundle.manifest import DIRECTORY
from llmhost.gateway.keys import digest, new_key
from llmhost.inventory.reader import read_settings
from llmhost.stack.project import service_images
from testbed import Client, Lan, Machine
from tests.integration.docker_site import docker_site

pytestmark = [pytest.mark.machines, pytest.mark.airgap]

ROOT = Path(__file__).parents[2]
# Only the LAN itself is left, as where a cable was never plugged in; and no package that other
# machines have downloaded.
CUT = (
    "apt-get clean; rm -rf /var/lib/apt/lists/*;"
    " ip route del default; ip -6 route flush default; : >/etc/resolv.conf; true"
)
REACHES_OUT = "apt-get -q update 2>&1 | grep -q '^Err' && exit 1; apt-get -q update"


@dataclass(frozen=True)
class Site:
    """The server to be, its inventory, and the directory of the bundle and its keys."""

    server: Machine
    client: Client
    data: dict[str, Any]
    key: str
    place: Path

    @property
    def bundle(self) -> Path:
        return self.place / "site.bundle"

    @property
    def inventory(self) -> Path:
        return self.place / "inventory.py"

    def apply(self, file: Path) -> "subprocess.CompletedProcess[str]":
        public = str(self.place / "keys/bundle.pub")
        return llmhost("bundle", "apply", str(file), str(self.inventory), "--key", public)

    def traces(self) -> str:
        """What a deploy or an upload would have changed on the server."""
        look = f"dpkg-query -W | sha256sum; ls -d {DIRECTORY} /etc/nginx 2>&1; ls -lR /etc/apt"
        return self.server.ssh(look, check=False).stdout


def llmhost(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = ["env", *(f"{k}={v}" for k, v in environment.items())]
    command += [sys.executable, "-m", "llmhost.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def deploy(site: Site) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("pyinfra")
    command = [str(program), str(site.inventory), "deploy.py", "-y", "--json"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Lan.create("airgap") as lan:
        yield lan


@pytest.fixture(scope="module")
def site(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Ends with the registry gone: after the bundle is made nobody has an image to offer."""
    place = tmp_path_factory.mktemp("airgap")
    builder, server, client = lan.machine("builder"), lan.machine("server"), lan.client()
    key = new_key()
    with docker_site(lan, builder, place) as docker:
        builder.ssh("apt-get -q -y install --no-install-recommends gnupg")
        data = docker.data() | {
            "api_clients": [{"name": "test", "sha256": digest(key)}],
            "gateway_tls": "off",
            "preflight_min_memory_gib": 1.0,
            "preflight_min_free_disk_gib": 3.0,
            "ssh_config_file": str(lan.ssh_config),
            # Not root, as at most sites.
            "ssh_user": "operator",
            "_sudo": True,
        }
        (place / "inventory.py").write_text(f"servers = [({server.name!r}, {data!r})]\n")
        made = Site(server, client, data, key, place)
        create(made, lan, builder)
    server.ssh(CUT)
    yield made


def create(site: Site, lan: Lan, builder: Machine) -> None:
    """Make the bundle in two goes, of which the first is stopped near its end."""
    options = ["--output", str(site.bundle), "--builder", builder.name]
    options += ["--ssh-config", str(lan.ssh_config), "--key", str(site.place / "keys")]
    command = ["bundle", "create", str(site.inventory), *options]
    first = llmhost(*command, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(site.place / "none"))
    assert first.returncode == 1, first.stdout + first.stderr
    assert "pip could not download the packages of requirements.lock" in first.stderr
    assert "building the images of server on builder" in first.stdout
    assert not site.bundle.exists()
    second = llmhost(*command)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "building" not in second.stdout and "fetching" not in second.stdout
    assert not site.place.joinpath("site.bundle.parts").exists()


def test_bundle_holds_all_that_a_deploy_would_fetch(site: Site) -> None:
    with tarfile.open(site.bundle) as tar:
        text = tar.extractfile("manifest.json")
        assert text
        manifest = json.load(text)
        names = tar.getnames()
    (image,) = service_images(read_settings(site.data))
    assert manifest["images"] == {image.reference: f"images/{image.archive}"}
    assert manifest["settings"].keys() == {"server"}
    assert manifest["release"]["architecture"] in {"amd64", "arm64"}
    for start in ("packages/pool/docker.io_", "packages/pool/nginx_", "wheels/pyinfra-"):
        assert any(name.startswith(start) for name in names), start
    for name in ("packages/InRelease", "packages/key.asc", "toolkit/requirements.lock"):
        assert name in names


def test_controller_without_network_runs_llmhost_from_the_bundle(
    site: Site, tmp_path: Path
) -> None:
    """What docs/air-gap.md says, with a pip that finds nothing but the bundle's wheels."""
    steps = f"""
        tar -xf {site.bundle} manifest.json toolkit wheels
        {sys.executable} -m venv .venv
        pip() {{ .venv/bin/pip -q --disable-pip-version-check install --no-index "$@"; }}
        pip --find-links wheels --require-hashes -r toolkit/requirements.lock
        pip --no-deps toolkit/llmhost-*.whl
        .venv/bin/llmhost bundle apply --help
    """
    isolated = {"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}
    ran = subprocess.run(
        ["sh", "-ec", steps], cwd=tmp_path, env=isolated, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Deploy the inventory from a bundle" in ran.stdout


def test_server_has_no_way_out(site: Site) -> None:
    assert site.server.ssh(REACHES_OUT, check=False).returncode != 0
    registry = site.data["llamacpp_image"].partition("/")[0]
    assert site.server.ssh(f"curl -s -m 5 http://{registry}/v2/", check=False).returncode != 0


@pytest.mark.parametrize("fault", ["cut off", "altered"])
def test_damaged_bundle_is_refused_and_nothing_changes(site: Site, fault: str) -> None:
    before = site.traces()
    damaged = site.place / "damaged.bundle"
    with site.bundle.open("rb") as whole, damaged.open("wb") as file:
        size = site.bundle.stat().st_size
        file.write(whole.read(size // 2))
        if fault == "altered":
            byte = whole.read(1)
            file.write(bytes([byte[0] ^ 1]) + whole.read())
    applied = site.apply(damaged)
    assert applied.returncode == 1
    assert f"{damaged} {'is' if fault == 'cut off' else 'was'} {fault}" in applied.stderr
    assert applied.stderr.count("error:") == 1 and "Traceback" not in applied.stderr
    assert site.traces() == before


def test_server_of_another_release_is_refused_and_nothing_changes(site: Site) -> None:
    before = site.traces()
    site.server.ssh("cp /etc/os-release /root/; sed -i 's/^VERSION_ID=.*/VERSION_ID=\"12\"/' "
                    "/etc/os-release")  # fmt: skip
    try:
        applied = site.apply(site.bundle)
    finally:
        site.server.ssh("cat /root/os-release >/etc/os-release; rm /root/os-release")
    assert applied.returncode == 1
    assert "server runs debian 12 on " in applied.stderr, applied.stderr
    assert site.traces() == before


def test_server_comes_up_from_the_bundle_alone(site: Site) -> None:
    with tarfile.open(site.bundle) as tar:
        image = next(member for member in tar if member.name.startswith("images/"))
        content = tar.extractfile(image)
        assert content
        begun = content.read(1 << 20)
    # As if an earlier upload had been interrupted.
    part = f"{DIRECTORY}/{image.name}.part"
    command = ["ssh", "-F", str(site.server.ssh_config), site.server.name]
    script = f"mkdir -p $(dirname {part}) && cat >{part}"
    subprocess.run([*command, script], input=begun, check=True)
    applied = site.apply(site.bundle)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert f"server: deployed from {site.bundle}" in applied.stdout
    assert site.server.ssh(f"test -e {DIRECTORY}", check=False).returncode == 1
    # The engine's own image is what a build would have begun with.
    listed = site.server.ssh("docker image ls --format '{{.Repository}}'").stdout.split()
    assert listed == ["llmhost/llamacpp"]
    healthy = "docker inspect --format '{{.State.Health.Status}}' llmhost-llamacpp-1"
    assert site.server.ssh(healthy).stdout.strip() == "healthy"
    assert site.server.ssh(REACHES_OUT, check=False).returncode != 0


def test_client_gets_a_completion_through_the_gateway(site: Site) -> None:
    body = json.dumps({"model": "tiny", "prompt": "Hi", "max_tokens": 8})
    url = f"http://{site.server.address}:8080/v1/completions"
    ask = ["curl", "-sS", "-m", "60", "--fail-with-body", url, "-d", body]
    ask += ["-H", f"Authorization: Bearer {site.key}", "-H", "Content-Type: application/json"]
    assert json.loads(site.client.run(ask).stdout)["choices"]


def test_plain_deploy_afterwards_changes_nothing(site: Site) -> None:
    again = deploy(site)
    assert again.returncode == 0, again.stderr
    operations = json.loads(again.stdout)["results"]["operations"]
    assert len(operations) > 10
    assert [operation["name"] for operation in operations if operation["success"]] == []


def test_bundle_applied_again_brings_no_image_and_changes_nothing(site: Site) -> None:
    again = site.apply(site.bundle)
    assert again.returncode == 0, again.stdout + again.stderr
    receipt = "docker inspect --format '{{.State.StartedAt}}' llmhost-llamacpp-1"
    started = site.server.ssh(receipt).stdout
    assert deploy(site).returncode == 0
    assert site.server.ssh(receipt).stdout == started
