"""A member of an engine group: its rendered container, with the real vLLM and Ray."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmhost.settings import Settings
from llmhost.stack.engine_group import PROGRAM
from llmhost.stack.project import compose_project, service_images
from testbed import real_ray, real_vllm
from tests.multihost.network import Place

_RUN = Path(__file__).with_name("run.sh")
_SHIM = Path(__file__).with_name("shim")
_SYSTEM = ("/usr", "/etc")
_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}


@dataclass
class Member:
    """A host with the container of the engine; `home` has its root and its log."""

    place: Place
    settings: Settings
    home: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def declared(self) -> dict[str, Any]:
        """The service in its rendered Compose file."""
        text = compose_project(self.settings).services["vllm"]
        return dict(yaml.safe_load(text)["services"]["vllm"])

    @property
    def log(self) -> str:
        path = self.home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def starts(self) -> int:
        """How often the container was started."""
        path = self.home / "starts"
        return len(path.read_text().split()) if path.exists() else 0

    def start(self) -> None:
        """Start the container, and again whenever it ends."""
        declared, root = self.declared, self.home / "root"
        environment = image_environment() | declared["environment"]
        variables = [f"{name}={value}".replace("$$", "$") for name, value in environment.items()]
        words = [*declared["entrypoint"], *declared["command"]]
        binds = " ".join(f"{source}={target}" for source, target in _binds(self.settings).items())
        inside = [
            "ip",
            "netns",
            "exec",
            self.place.namespace,
            "unshare",
            "--mount",
            "--",
            str(_RUN),
        ]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*inside, str(root), binds, str(self.home / "starts"), *variables]
                + [word.replace("$$", "$") for word in words],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Stop the container for good, as a host that loses its power."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def kill(self) -> None:
        """Kill the container's first process; it is started again."""
        assert self.process
        (container,) = _children(self.process.pid, "unshare")
        os.kill(container, signal.SIGKILL)

    def is_healthy(self) -> bool:
        """What the rendered health check says."""
        kind, *command = self.declared["healthcheck"]["test"]
        command = [word.replace("$$", "$") for word in command]
        if kind == "CMD-SHELL":
            command = ["/bin/sh", "-c", *command]
        return self.run(*command).returncode == 0

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A program in the container, as `docker exec` runs it."""
        first = [
            child
            for container in _children(self.process.pid if self.process else 0, "unshare")
            for child in _children(container)
        ]
        if not first:
            return subprocess.CompletedProcess(command, 1, "", "the container does not run")
        environment = image_environment() | self.declared["environment"]
        variables = [f"{name}={value}".replace("$$", "$") for name, value in environment.items()]
        enter = ["nsenter", "--target", str(first[0]), "--mount", "--net", "--pid", "--"]
        user = ["chroot", "--userspec=10001:10001", str(self.home / "root"), "env", "-i"]
        return subprocess.run(
            [*enter, *user, *variables, *command], capture_output=True, text=True, timeout=60
        )


def image_environment() -> dict[str, str]:
    """What the image of the engine has; vLLM for CPUs needs the shim to run over several hosts."""
    path = f"{real_vllm.installed() / 'bin'}:/usr/bin:/bin"
    return {"PATH": path, "HOME": "/", "PYTHONPATH": "/opt/shim"}


def _binds(settings: Settings) -> Mapping[str, str]:
    (image,) = service_images(settings)
    (model,) = {Path(file.source).parent for each in image.models for file in each.files}
    (inside,) = {str(Path(file.path).parent) for each in image.models for file in each.files}
    own = {str(real_vllm.installed()): str(real_vllm.installed())}
    python = (real_vllm.installed() / "bin/python").resolve().parents[1]
    places = {path: path for path in (*_SYSTEM, str(python)) if path != "/usr"} | {"/usr": "/usr"}
    ray = {str(real_ray.installed()): "/opt/llmhost/ray", str(_SHIM): "/opt/shim"}
    return {**places, **own, **ray, str(model): inside}


@contextmanager
def member(place: Place, settings: Settings, home: Path) -> Iterator[Member]:
    """A host with the files of the engine's image; the container is not started yet."""
    root = home / "root"
    for name in ("dev", "proc", "sys", "tmp", "var/cache/vllm"):
        (root / name).mkdir(parents=True)
    for target in _binds(settings).values():
        (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    (image,) = service_images(settings)
    context = {file.path: file.data for file in image.context}
    dockerfile = context["Dockerfile"].decode()
    assert re.search(rf"^COPY engine_group.py {PROGRAM}$", dockerfile, re.MULTILINE)
    (root / PROGRAM.lstrip("/")).write_bytes(context["engine_group.py"])
    found = Member(place, settings, home)
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(root)


def _children(pid: int, name: str = "") -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task/{pid}").glob("children"):
        for child in map(int, path.read_text().split()):
            command = Path(f"/proc/{child}/comm")
            if not name or (command.exists() and command.read_text().strip() == name):
                found.append(child)
    return found


def wait_for(condition: Any, seconds: float, member: Member) -> float:
    """Seconds until the condition holds; the member's log if it does not in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds, member.log[-4000:]
        time.sleep(0.2)
    return time.monotonic() - begun
