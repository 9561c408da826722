"""A server that drifts: converged by the whole deploy, planned and verified as an operator does."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmhost.gateway.keys import digest, new_key
from testbed import Client, Lan, Machine
from testbed.engine import push_engine, root_archive
from testbed.image_registry import ImageRegistry
from testbed.profiles import tiny
from testbed.stand_ins import options_of
from tests.doubles.apt_repository import serving
from tests.doubles.nvidia.engine import push_gpu_engine
from tests.doubles.nvidia.flavours import FLAVOURS, build_site, dress, site_data

ROOT = Path(__file__).parents[3]
PACKAGES_PORT = 5001
SECRET = "LLMHOST_DRIFT_TOKEN"
"""Environment variable with the secret of the site's own app."""
_INVENTORY = """\
import json
from pathlib import Path

servers = [tuple(each) for each in json.loads(Path(__file__).with_name("site.json").read_text())]
"""
_APP = """\
FROM {image}
USER 10001:10001
WORKDIR /srv/notes
ENTRYPOINT ["/usr/bin/busybox", "sleep", "30d"]
"""
_FLAVOUR = {"ui": "plain", "minimal": "plain", "minimal-gpu": "gpu"}
"""Kinds that are no flavours: with Open WebUI, and with as few packages as boot."""
Finished = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Server:
    """A machine, the inventory that describes it, and a client with a key beside it."""

    lan: Lan
    machine: Machine
    client: Client
    home: Path
    key: str

    @property
    def inventory(self) -> Path:
        return self.home / "inventory.py"

    def declare(self, data: dict[str, Any]) -> None:
        """Write the inventory, for the deploy and for the server tests."""
        (self.home / "site.json").write_text(json.dumps([[self.machine.name, data]]))
        (self.home / "merged.json").write_text(json.dumps({self.machine.name: data}))
        self.inventory.write_text(_INVENTORY)

    def afresh(self) -> "Server":
        """The same with a bare machine in place of this one."""
        self.machine.destroy()
        return replace(self, machine=self.lan.machine(self.machine.name))

    @property
    def deployment(self) -> list[str]:
        """The command that an operator runs to correct a server."""
        program = str(Path(sys.executable).with_name("pyinfra"))
        return [program, str(self.inventory), "deploy.py", "-y"]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, SECRET: "pa$$word", "LLMHOST_API_KEY": self.key}

    def deploy(self) -> Finished:
        """Run it."""
        return self.run(*self.deployment)

    def plan(self) -> tuple[int, dict[str, Any]]:
        """Exit status of `llmhost plan` and what it says of this host."""
        command = ("-m", "llmhost.cli", "plan", str(self.inventory), "--json")
        ran = self.run(sys.executable, *command)
        assert ran.stdout, ran.stderr
        told: dict[str, Any] = json.loads(ran.stdout)["hosts"][0]
        return ran.returncode, told

    def check(self, *tests: str) -> Finished:
        """Run server tests (pytest's ids) with a view from outside."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        command += ["--site", str(self.home / "merged.json")]
        return self.run(*command, "--outside", shlex.join(self.client.command([])))

    def run(self, *command: str) -> Finished:
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=900
        )


@contextmanager
def converged_server(home: Path, kind: str, **options: object) -> Iterator[Server]:
    """A declared server that was deployed."""
    with declared_server(home, kind, **options) as server:
        deployed = server.deploy()
        assert deployed.returncode == 0, deployed.stderr
        yield server


@contextmanager
def declared_server(home: Path, kind: str, **options: object) -> Iterator[Server]:
    """A machine, and what it is installed from; removed in the end. `kind` is its flavour, or one
    of `_FLAVOUR`. `options` are added to the inventory.

    With LLMHOST_DRIFT=DIRECTORY in the environment it is kept there, and used again.
    """
    kept = os.environ.get("LLMHOST_DRIFT")
    home = Path(kept, kind) if kept else home
    flavour = FLAVOURS[_FLAVOUR.get(kind, kind)]
    home.mkdir(parents=True, exist_ok=True)
    name = f"drift-{kind}"
    with _lan(home / "lan", name, keep=bool(kept)) as lan, ExitStack() as stack:
        if new := name not in lan.machines:
            lan.client("client")
            lan.machine(name, minimal=kind.startswith("minimal"))
        machine = lan.machines[name]
        machine.start()
        registry = stack.enter_context(ImageRegistry(lan.gateway, home / "registry"))
        server = Server(lan, machine, lan.clients["client"], home, _key(home))
        data = _declared(server, registry, lan)
        if kind == "ui":
            data |= _with_ui(registry, home)
        if flavour.has_gpu:
            fingerprints = build_site(home / "packages")
            url = stack.enter_context(serving(home / "packages", lan.gateway, PACKAGES_PORT))
            if new:
                dress(machine, flavour, home / "packages", url)
            data |= site_data(flavour, fingerprints, url)
            data |= {"llamacpp_image": push_gpu_engine(registry), "apps": []}
            data |= {"nvidia_driver_power_limit_watts": 250}
        server.declare(data | options)
        yield server


@contextmanager
def _lan(state: Path, name: str, *, keep: bool) -> Iterator[Lan]:
    if keep:
        yield Lan.open(state) if state.exists() else Lan.create(name, state, detached=True)
    else:
        with Lan.create(name, state) as lan:
            yield lan


def _key(home: Path) -> str:
    path = home / "key"
    if not path.exists():
        path.write_text(new_key())
    return path.read_text()


def _declared(server: Server, registry: ImageRegistry, lan: Lan) -> dict[str, Any]:
    """Of every component something that can drift."""
    machine, home = server.machine, server.home
    offered = "apt-get -qq update >/dev/null; apt-cache madison docker.io | cut -d'|' -f2"
    version = machine.ssh(f"{offered} | head -n 1").stdout.strip()
    asked = machine.ssh("sed -n 's/^nameserver //p' /etc/resolv.conf").stdout.split()
    return {
        "ssh_config_file": str(machine.ssh_config),
        "preflight_min_memory_gib": 1.0,
        "preflight_min_free_disk_gib": 3.0,
        "system_timezone": "Asia/Seoul",
        "system_sysctl": {"net.ipv4.tcp_keepalive_time": 600},
        "network_hostname": "drifting",
        "network_hosts": {"files.example": "192.0.2.7"},
        "network_dns": asked,
        "docker_version": version,
        "docker_insecure_registries": [registry.name],
        "firewall_rules": [
            {"port": 9100, "sources": [lan.subnet], "comment": "metrics"},
            {"port": 9200, "protocol": "udp", "sources": [lan.subnet]},
        ],
        "gateway_ca_directory": str(home / "ca"),
        "services": ["llamacpp"],
        "stack_egress": "deny",
        "llamacpp_image": push_engine(registry),
        "models": [{"name": "tiny", "service": "llamacpp", **tiny(home)}],
        "apps": [_app(home / "notes", registry)],
        "api_clients": [{"name": "test", "sha256": digest(server.key)}],
    }


def _with_ui(registry: ImageRegistry, home: Path) -> dict[str, Any]:
    options = options_of("open_webui", registry, home)
    return {
        "services": ["llamacpp", "open_webui"],
        "apps": [],
        "open_webui_engine_urls": ["http://llamacpp:8080/v1"],
        **{f"open_webui_{option}": value for option, value in options.items()},
    }


def _app(context: Path, registry: ImageRegistry) -> dict[str, Any]:
    """A program of the site's own that has what no service here has: a volume and a secret."""
    packages = ("busybox-static", "base-files", "base-passwd")
    image = registry.push("box", "1", root_archive("box", packages, "trixie"))
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(_APP.format(image=image))
    return {
        "name": "notes",
        "context": str(context),
        "container_port": 8000,
        "health": ["/usr/bin/busybox", "true"],
        "environment": {"PLAIN": "yes"},
        "secrets": {"TOKEN": f"env:{SECRET}"},
        "volumes": {"data": "/srv/notes"},
    }
