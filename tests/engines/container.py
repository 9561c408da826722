"""A service started as its container would be: the rendered command, environment and files, uid
10001 without capabilities, a read-only root, and a network that has only a loopback."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from llmhost.settings import Settings
from llmhost.stack.project import compose_project, service_images
from testbed.process import ProcessId, spawn, wait_until

USER = 10001
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER = Path(__file__).with_name("enter.sh")
_FORWARD = Path(__file__).with_name("forward.py")


@dataclass(frozen=True)
class EngineImage:
    """What stands for the image of an engine: an archive of its root, or directories of this
    machine, read-only at the same paths, and links; and its environment."""

    archive: Path | None = None
    binds: Sequence[Path] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def lay_out(self, root: Path) -> None:
        if self.archive:
            with tarfile.open(self.archive) as packed:
                packed.extractall(root, filter="fully_trusted")
        for place in (*self.binds, Path("/dev"), Path("/proc"), Path("/tmp")):
            (root / place.relative_to("/")).mkdir(parents=True, exist_ok=True)
        for name, target in self.links.items():
            link = root / name.lstrip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


@dataclass(frozen=True)
class Container:
    """A service in its namespaces; `url` leads there from outside."""

    url: str
    root: Path
    declared: Mapping[str, Any]
    image_environment: Mapping[str, str]
    process: ProcessId
    log: Path

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """A program of its image, inside, as `docker exec` runs it."""
        inside = ["nsenter", "--target", str(self.process.pid), "--mount", "--net"]
        clean = ["env", "-i", *_assignments({**self.image_environment, **self.environment})]
        return subprocess.run(
            [*inside, *clean, *_chroot(self.root), *command],
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    @property
    def environment(self) -> dict[str, str]:
        return {key: str(value) for key, value in self.declared.get("environment", {}).items()}

    def is_healthy(self) -> bool:
        """What the rendered health check says."""
        kind, *command = self.declared["healthcheck"]["test"]
        command = [word.replace("$$", "$") for word in command]
        if kind == "CMD-SHELL":
            command = ["/bin/sh", "-c", *command]
        return self.run(*command).returncode == 0


@contextmanager
def container(
    settings: Settings,
    service: str,
    image: EngineImage,
    directory: Path,
    ready_seconds: float = 120,
) -> Iterator[Container]:
    """Run a declared service in its engine's root file system, with its models and files.

    It is ready when its health check passes.
    """
    root = directory / "root"
    root.mkdir(parents=True)
    image.lay_out(root)
    declared = yaml.safe_load(compose_project(settings).services[service])["services"][service]
    dockerfile = _furnish(settings, service, root)
    image_environment = {**image.environment} | {
        name: Template(value).safe_substitute(PATH=_PATH)
        for name, value in re.findall(r"^ENV (\w+)=(.*)$", dockerfile, re.MULTILINE)
    }
    entrypoint, arguments = (
        json.loads("".join(re.findall(rf"^{name} (.*)$", dockerfile, re.MULTILINE)) or "[]")
        for name in ("ENTRYPOINT", "CMD")
    )
    command = [*entrypoint, *declared.get("command", arguments)]
    variables = {**image_environment, **declared.get("environment", {})}
    process = spawn(
        [
            *("unshare", "--mount", "--net", "--"),
            *(str(_ENTER), str(root), " ".join(map(str, image.binds))),
            *(*_assignments(variables), *_chroot(root)),
            *(word.replace("$$", "$") for word in command),
        ],
        directory / "log",
    )
    (port,) = [each.container_port for each in settings.catalogue if each.name == service]
    try:
        entered = wait_until(lambda: _entered(process, root), 10)
        assert entered and process.alive(), (directory / "log").read_text()
        with _forwarded(process, port) as url:
            found = Container(url, root, declared, image_environment, process, directory / "log")
            assert wait_until(lambda: _ready(found), ready_seconds), found.log.read_text()[-3000:]
            yield found
    finally:
        if process.alive():
            os.killpg(process.pid, signal.SIGKILL)  # an engine may have children
        process.wait(10)
        shutil.rmtree(root)


def _chroot(root: Path) -> list[str]:
    return ["/usr/sbin/chroot", f"--userspec={USER}:{USER}", str(root)]


def _entered(process: ProcessId, root: Path) -> bool:
    return not process.alive() or Path(f"/proc/{process.pid}/root").readlink() == root


def _ready(found: Container) -> bool:
    assert found.process.alive(), found.log.read_text()[-3000:]
    return found.is_healthy()


def _assignments(variables: Mapping[str, object]) -> list[str]:
    given = {"PATH": _PATH, "HOME": "/", **variables}  # as Docker does
    return [f"{name}={str(value).replace('$$', '$')}" for name, value in given.items()]


def _furnish(settings: Settings, service: str, root: Path) -> str:
    """Put weights and files of the build context in their places; returns the Dockerfile."""
    (image,) = [each for each in service_images(settings) if each.service == service]
    for model in image.models:
        for file in model.files:
            target = root / file.path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.source, target)
            target.chmod(0o644)
    context = {file.path: file.data for file in image.context}
    dockerfile = context["Dockerfile"].decode()
    for source, place in re.findall(r"^COPY (\S+) (/\S+)$", dockerfile, re.MULTILINE):
        target = root / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(context[source])
    for archive in re.findall(r"^ADD (\S+\.tar) /$", dockerfile, re.MULTILINE):
        with tarfile.open(fileobj=io.BytesIO(context[archive])) as packed:
            packed.extractall(root, filter="fully_trusted")
    for place in re.findall(r"^WORKDIR (/\S+)$", dockerfile, re.MULTILINE):
        (root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        os.chown(root / place.lstrip("/"), USER, USER)
    return dockerfile


@contextmanager
def _forwarded(process: ProcessId, port: int) -> Iterator[str]:
    """The URL of a socket out here, whose connections a process in there passes on."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        there = ["nsenter", "--target", str(process.pid), "--net"]
        forward = subprocess.Popen(
            [*there, sys.executable, str(_FORWARD), str(listener.fileno()), str(port)],
            pass_fds=[listener.fileno()],
        )
        try:
            yield address
        finally:
            forward.kill()
            forward.wait()
