"""Common to both comparisons: a server, its managed files, and the playbook."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmhost.gateway.keys import digest, new_key
from llmhost.settings import Settings
from llmhost.stack.project import service_images
from testbed.engine import push_engine
from testbed.image_registry import ImageRegistry
from testbed.profiles import tiny

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_FILES = "etc/apt/apt.conf.d etc/sysctl.d etc/docker/daemon.json etc/default/ufw etc/ufw"
_FILES += " etc/nginx etc/logrotate.d etc/default/mtail etc/mtail"
_FILES += " etc/systemd/system/llmhost-heal.service etc/systemd/system/llmhost-heal.timer"
_FILES += " usr/local/sbin/llmhost-heal"
_FILES += " opt/llmhost/compose.yaml opt/llmhost/services var/lib/llmhost/receipt.json"


def site_data(place: Path, registry: ImageRegistry) -> dict[str, Any]:
    """Inventory data of a server with the real llama.cpp and the tiny model."""
    return {
        "preflight_min_memory_gib": 1.0,
        "preflight_min_free_disk_gib": 3.0,
        "docker_insecure_registries": [registry.name],
        "gateway_tls": "off",
        "services": ["llamacpp"],
        "llamacpp_image": push_engine(registry),
        "models": [{"name": "tiny", "service": "llamacpp", **tiny(place)}],
        "api_clients": [{"name": "demo", "sha256": digest(new_key())}],
    }


@dataclass(frozen=True)
class Server:
    """A host, by its name in an ssh_config."""

    name: str
    ssh_config: Path

    def ssh(self, command: str, stdin: bytes = b"") -> bytes:
        """Standard output of a command that must succeed."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), self.name, command],
            input=stdin,
            capture_output=True,
        )
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            sys.exit(f"error: `{command}` failed on {self.name}:\n{said}")
        return done.stdout


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def timed(command: Sequence[str], **environment: str) -> tuple[float, str]:
    """Seconds of wall-clock time and output of a command that must succeed."""
    variables = os.environ | environment
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has compiled modules
    begun = time.perf_counter()
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if result.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return seconds, result.stdout


def declare(server: Server, settings: Settings, tree: Path) -> None:
    """Copy the files of a server that llmhost deployed, for the other tools.

    These are its managed files below etc, opt, usr and var, and below images the parts of its
    service's image: `model.tar`, the build context `service`, and their names in `names`.
    """
    packed = server.ssh(f"tar -C / -czp {_FILES}")
    subprocess.run(["tar", "-xzp", "-C", str(tree)], input=packed, check=True)
    (image,) = service_images(settings)
    (model,) = image.models
    (weights,) = model.files
    images = tree / "images"
    for file in image.build_files:
        place = images / "service" / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.data)
    model_file = weights.path.lstrip("/")
    place = images / "model" / model_file
    place.parent.mkdir(parents=True)
    place.write_bytes(Path(weights.source).read_bytes())
    names = {
        "model": model.reference,
        "model_file": model_file,
        "model_inputs": model.inputs,
        "service": image.reference,
        "service_inputs": image.inputs,
        "engine": image.engine,
    }
    (images / "names").write_text("".join(f"{key}={value}\n" for key, value in names.items()))


def ansible(server: Server, tree: Path, *options: str) -> tuple[float, int]:
    """Run the playbook: seconds, and the number of changes that it reports."""
    config = f"-F {server.ssh_config} -o ControlMaster=auto -o ControlPersist=60"
    names = dict(line.split("=", 1) for line in (tree / "images/names").read_text().splitlines())
    command = [program("ansible-playbook"), "-i", f"{server.name},", str(HERE / "playbook.yml")]
    command += ["-e", json.dumps({"tree": str(tree), "images": names}), *options]
    seconds, report = timed(
        command,
        ANSIBLE_PIPELINING="1",
        ANSIBLE_SSH_ARGS=config,
        ANSIBLE_PYTHON_INTERPRETER="/usr/bin/python3",
    )
    counted = re.search(r"changed=(\d+)\s", report)
    assert counted, report
    return seconds, int(counted[1])
