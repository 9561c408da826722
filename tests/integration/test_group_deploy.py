"""An engine group on two machines with Docker: deployed, changed, rebooted, and deployed again with
nothing left to do.

Docker, Ray and its token are real; the image is built on each machine, with Ray from a package
index on the network. GPUs and vLLM are doubles: tests/multihost has the real engine.
"""

import functools
import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.resources import FILES
from testbed import Client, Lan, Machine
from testbed.double_images import DOUBLES
from testbed.engine import root_archive
from testbed.image_registry import ImageRegistry
from testbed.process import wait_until
from testbed.stand_ins import repository
from tests.doubles.apt_repository import serving
from tests.doubles.nvidia.flavours import FLAVOURS, build_site, dress, site_data

pytestmark = [pytest.mark.machines, pytest.mark.multihost, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
HEAD, WORKER = "llm-a", "llm-b"
INTERFACE = "eth0"
CONTAINER = "llmhost-vllm-1"
LOCK = FILES / "images/vllm_group/ray.lock"

# What vLLM's image has: Python with pip, what Ray needs of it, curl for a health check.
_PACKAGES = (
    *("python3", "python3-pip", "python3-click", "python3-filelock", "python3-jsonschema"),
    *("python3-packaging", "python3-protobuf", "python3-yaml", "python3-requests", "perl-base"),
    *("dash", "grep", "findutils", "coreutils", "curl", "libstdc++6", "base-files", "base-passwd"),
)


@dataclass(frozen=True)
class Site:
    """Both machines, a client on their network, and the inventory."""

    home: Path
    lan: Lan
    client: Client
    key: str
    data: dict[str, Any]

    @property
    def machines(self) -> list[Machine]:
        return [self.lan.machines[name] for name in (HEAD, WORKER)]

    def declare(self, **changes: Any) -> None:
        self.data.update(changes)
        hosts = [(m.name, {"ssh_config_file": str(m.ssh_config)}) for m in self.machines]
        (self.home / "site.py").write_text(f"llm_servers = ({hosts!r}, {self.data!r})\n")

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        env = os.environ | {"GROUP_TOKEN": "g" * 40, "LLMHOST_API_KEY": self.key}
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
        )

    def deploy(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run("pyinfra", str(self.home / "site.py"), "deploy.py", "-y", *options)

    def changed(self) -> list[str]:
        """What another deploy still changes, on either machine."""
        done = self.deploy("--json")
        assert done.returncode == 0, done.stdout + done.stderr
        operations = json.loads(done.stdout)["results"]["operations"]
        return [each["name"] for each in operations if each["success"]]

    def ask(self) -> int:
        """Status of a request from the network, through the gateway of the head."""
        url = f"http://{self.lan.machines[HEAD].address}:8080/v1/completions"
        body = json.dumps({"model": "writer", "prompt": "Hi", "max_tokens": 4})
        command = [
            *("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"),
            *("--max-time", "20", "--header", f"Authorization: Bearer {self.key}"),
            *("--header", "Content-Type: application/json", "--data", body, url),
        ]
        ran = subprocess.run(
            self.client.command(command), capture_output=True, text=True, timeout=60
        )
        return int(ran.stdout or 0)

    def starts(self) -> list[str]:
        form = "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}"
        return [
            m.ssh(f"docker inspect --format '{form}' {CONTAINER}").stdout for m in self.machines
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("group")
    key, fingerprints = new_key(), build_site(home / "apt")
    with (
        Lan.create("group") as lan,
        serving(home / "apt", lan.gateway) as url,
        ImageRegistry(lan.gateway, home / "registry") as registry,
        package_index(lan.gateway, home / "index") as index,
    ):
        addresses = {name: lan.machine(name).address for name in (HEAD, WORKER)}
        for name in addresses:
            dress(lan.machines[name], FLAVOURS["gpu"], home / "apt", url)
        driver = site_data(FLAVOURS["gpu"], fingerprints, url)
        data = {
            **{option: value for option, value in driver.items() if "llamacpp" not in option},
            "preflight_min_memory_gib": 0.5,
            "preflight_min_free_disk_gib": 1.0,
            "gateway_tls": "off",
            "services": ["vllm"],
            "vllm_image": push_engine(registry, home),
            "vllm_gpu": [0],
            "docker_insecure_registries": [registry.name],
            "models": [{"name": "writer", "service": "vllm", **repository(home / "hub")}],
            "api_clients": [{"name": "app", "sha256": digest(key)}],
            "engine_group_members": addresses,
            "engine_group_head": HEAD,
            "engine_group_interface": INTERFACE,
            "engine_group_token": "env:GROUP_TOKEN",
            "engine_group_package_index": index,
        }
        site = Site(home, lan, lan.client("outside"), key, data)
        site.declare()
        done = site.deploy()
        assert done.returncode == 0, done.stdout + done.stderr
        yield site


def push_engine(registry: ImageRegistry, home: Path) -> str:
    """vLLM's image with a double of its program; its full reference."""
    root = home / "root.tar"
    shutil.copy(root_archive("double-of-a-group", _PACKAGES, "forky"), root)
    program, authorities = home / "vllm", Path("/etc/ssl/certs/ca-certificates.crt")
    shutil.copy(DOUBLES / "vllm.py", program)
    program.chmod(0o755)
    with tarfile.open(root, "a") as archive:
        archive.add(program, "usr/local/bin/vllm")
        # Packages of the image are not configured, and without this file pip does not start.
        archive.add(authorities.resolve(), "etc/ssl/certs/ca-certificates.crt")
    return registry.push("double-of-a-group", "1", root)


@contextmanager
def package_index(address: str, place: Path) -> Iterator[str]:
    """The URL of an index with the packages of Ray's lock, for the Python of the image."""
    python = python_of(root_archive("double-of-a-group", _PACKAGES, "forky"))
    wheels = place / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    options = ["--only-binary", ":all:", "--python-version", python, "--dest", str(wheels)]
    subprocess.run([*pip, *options, "--requirement", str(LOCK)], check=True, timeout=600)
    for wheel in wheels.iterdir():
        project = place / "simple" / wheel.name.partition("-")[0].lower()
        project.mkdir(parents=True)
        wheel.rename(project / wheel.name)
    # A listing of a directory is what pip calls a simple index.
    handler = functools.partial(_Quiet, directory=str(place))
    server = http.server.ThreadingHTTPServer((address, 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}/simple"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def python_of(archive: Path) -> str:
    """The version of Python in a root file system, such as `3.13`."""
    with tarfile.open(archive) as content:
        (found,) = {
            name.rpartition("python")[2]
            for name in content.getnames()
            if "/usr/bin/python3." in f"/{name.lstrip('./')}"
        }
    return found


def test_group_answers_through_the_gateway_of_its_head(site: Site) -> None:
    assert site.ask() == 200
    worker = f"http://{site.lan.machines[WORKER].address}:8080/v1/models"
    command = [
        "curl",
        "--silent",
        "--max-time",
        "5",
        "--header",
        f"Authorization: Bearer {site.key}",
    ]
    ran = subprocess.run(
        site.client.command(
            [*command, "--write-out", "%{http_code}", "--output", "/dev/null", worker]
        ),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ran.stdout != "200", "the worker answers requests"


def test_members_have_the_same_image(site: Site) -> None:
    images = {
        m.ssh(f"docker inspect --format '{{{{.Config.Image}}}}' {CONTAINER}").stdout
        for m in site.machines
    }
    assert len(images) == 1


@pytest.mark.parametrize("port", [6379, 8000])
def test_ports_of_the_group_are_closed_to_others(site: Site, port: int) -> None:
    for machine in site.machines:
        command = ["curl", "--silent", "--max-time", "3", f"http://{machine.address}:{port}/"]
        ran = subprocess.run(site.client.command(command), capture_output=True, timeout=30)
        assert ran.returncode in (7, 28), (machine.name, port)  # refused, or no answer


def test_second_deploy_changes_nothing(site: Site) -> None:
    before = site.starts()
    assert site.changed() == []
    planned = site.run("llmhost", "plan", str(site.home / "site.py"))
    assert planned.returncode == 0, planned.stdout
    assert site.starts() == before


def test_roll_of_one_member_restarts_the_group_which_then_is_as_declared(site: Site) -> None:
    before, inventory = site.starts(), str(site.home / "site.py")
    site.declare(vllm_extra_arguments=["--enable-prefix-caching"])
    planned = site.run("llmhost", "plan", inventory)
    assert planned.returncode == 2, planned.stdout
    done = site.run("llmhost", "roll", inventory, "--limit", WORKER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{HEAD} is included" in done.stdout
    assert not {*before} & {*site.starts()}
    assert wait_until(lambda: site.ask() == 200, 120)
    assert site.changed() == []


def test_history_of_a_member_shows_runs_on_the_group_once(site: Site) -> None:
    shown = site.run("llmhost", "history", str(site.home / "site.py"), WORKER, "--json")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert [{*entry["members"]} for entry in found["group"]] == [{HEAD, WORKER}] * 2
    assert (found["apart"], found["unread"]) == ([], {})


@pytest.mark.parametrize("name", [HEAD, WORKER])
def test_rebooted_member_comes_back_and_nothing_is_left_to_do(site: Site, name: str) -> None:
    site.lan.machines[name].reboot()
    assert wait_until(lambda: site.ask() == 200, 240)
    assert wait_until(lambda: site.changed() == [], 120)


def test_lost_member_is_noticed_and_the_group_comes_back(site: Site) -> None:
    """Meanwhile the gateway of the head asks clients to come back later."""
    worker = site.lan.machines[WORKER]
    worker.ssh(f"docker stop --time 0 {CONTAINER}")
    assert wait_until(lambda: site.ask() == 503, 60)
    worker.ssh(f"docker start {CONTAINER}")
    assert wait_until(lambda: site.ask() == 200, 240)


def verified(site: Site) -> "subprocess.CompletedProcess[str]":
    outside = shlex.join(site.client.command([]))
    return site.run("llmhost", "verify", str(site.home / "site.py"), "--outside", outside)


def test_verify_proves_the_gpu_of_each_member(site: Site) -> None:
    done = verified(site)
    assert done.returncode == 0 and " 0 proven on a double" not in done.stdout, done.stdout


def test_verify_fails_for_a_member_whose_gpu_is_unused(site: Site) -> None:
    """The head answers, but the engine has no process on the other host's GPU."""
    worker, file = site.lan.machines[WORKER], "/etc/llmhost-double/failures"
    worker.ssh(f"echo nvmlDeviceGetComputeRunningProcesses_v3 0 >{file}")
    try:
        done = verified(site)
    finally:
        worker.ssh(f"rm {file}")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert done.returncode == 1 and failed, done.stdout
    assert all("test_gpu.py" in line and f"[{WORKER}" in line for line in failed), done.stdout
