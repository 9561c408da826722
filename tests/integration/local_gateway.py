"""The real nginx with a rendered configuration, on loopback, without a machine: starts in 0.1 s."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmhost.gateway.authority import open_authority
from llmhost.gateway.nginx import NginxState, Tree
from llmhost.gateway.pool import with_pool
from llmhost.gateway.tls import certified, name_files, served_names
from llmhost.gateway.tree import NginxPaths, configuration, pool, tls
from llmhost.inventory.reader import read_settings
from llmhost.services.base import UiOptions
from llmhost.settings import Settings
from llmhost.system.files import File


class ToyOptions(UiOptions):
    """Options of a service `toy` with a browser UI, which tests add to the catalogue."""

    image: str = "registry.example/toy:1@sha256:" + "1" * 64
    port: int = 1024
    ui_port: int = 8199


def toy_inventory(engine_port: int, clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An LLM server with llama.cpp, which nobody asks, and with `toy` at this port."""
    port, status, ui = free_ports(3)
    return {
        "services": ["llamacpp", "toy"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": 1025,
        "toy_port": engine_port,
        "toy_ui_port": ui,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_stranger_burst": 1000,
        "api_clients": clients,
    }


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 from 20000 up that nobody listens on now."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 400 * 20, 30_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex(("127.0.0.1", port)) and not _taken(port):
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free port")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@dataclass(frozen=True)
class LocalGateway:
    """A running gateway: where it listens and where its files are."""

    settings: Settings
    directory: Path

    @property
    def url(self) -> str:
        return self.settings.gateway.url("127.0.0.1")

    def logged(self, request_id: str) -> dict[str, Any]:
        """The access log's line on a request; it is written within a second of the answer."""
        for _ in range(200):
            for line in (self.directory / "logs/gateway.json").read_text().splitlines():
                if json.loads(line)["id"] == request_id:
                    return dict(json.loads(line))
            time.sleep(0.02)
        raise AssertionError(f"{request_id} is not in the access log")

    @property
    def log_texts(self) -> str:
        """Everything in all logs."""
        return "".join(log.read_text() for log in (self.directory / "logs").iterdir())

    def reload(self, data: Mapping[str, Any], drained: Collection[str] = ()) -> None:
        """Take up other settings, as a deploy would, or with `drained` servers."""
        write_tree(read_settings(data), self.directory, drained=drained)
        nginx(self.directory, "-s", "reload")


@contextmanager
def local_gateway(
    data: Mapping[str, Any], directory: Path, version: str = "", name: str = ""
) -> Iterator[LocalGateway]:
    """The gateway of this inventory data; its services must listen already.

    `version` is that of the nginx to write for, empty for a new one; `name` is that of the host.
    """
    settings = read_settings(data, name=name)
    (directory / "logs").mkdir(parents=True)
    counters(directory).mkdir(exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(counters(directory), "www-data", "www-data")
    write_tree(settings, directory, version)
    nginx(directory)
    try:
        yield LocalGateway(settings, directory)
    finally:
        pid = int((directory / "nginx.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        _wait_for_end(pid)
        shutil.rmtree(counters(directory))


def counters(directory: Path) -> Path:
    """Where the workers of this gateway count tokens; they may not enter pytest's directories."""
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"llmhost-counters-{name}"


def write_tree(
    settings: Settings, directory: Path, version: str = "", drained: Collection[str] = ()
) -> None:
    """Write the configuration below `directory`, and nothing of it elsewhere."""
    for file in local_tree(settings, directory, version, drained).all_files:
        path = Path(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)


def local_tree(
    settings: Settings, directory: Path, version: str = "", drained: Collection[str] = ()
) -> Tree:
    """The configuration as it is deployed, but for the places of its files.

    `version` is nginx's, empty for a new one.
    """
    places = NginxPaths(
        str(directory), f"{directory}/nginx.pid", f"{directory}/logs", str(counters(directory))
    )
    files = [_without_privileges(file) for file in configuration(settings, places)]
    tree = Tree(tuple(files), places.own, settings.gateway.status_port)
    if servers := pool(settings):
        ca = servers.authority
        trusted = open_authority(ca, create=True).certificate if ca else b""
        owners = drained if isinstance(drained, Mapping) else None
        tree = with_pool(tree, servers, drained, trusted, owners)
    if not (how := tls(settings)):
        return tree
    state = NginxState(names=("127.0.0.1",), version=version)
    names = served_names(how, "localhost", state)
    tree = replace(tree, files=(*tree.files, *name_files(tree, how, names, state.version)))
    if not how.authority:
        return tree
    return certified(tree, how, names, state, open_authority(how.authority, create=True))[0]


def _without_privileges(file: File) -> File:
    # Two workers as on the smallest server; more open files are root's to ask for.
    text = re.sub(r"(?m)^worker_rlimit_nofile .*\n", "", file.data.decode())
    text = text.replace("worker_processes auto", "worker_processes 2")
    return File(file.path, text.replace("worker_connections 16384", "worker_connections 4096"))


def nginx(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run nginx with the configuration in `directory`; its complaint is the assertion's text."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    assert program, "install nginx and libnginx-mod-http-perl for this test"
    command = [program, "-c", f"{directory}/nginx.conf", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result


def _wait_for_end(pid: int) -> None:
    """Until the process is gone, or a zombie that nobody has looked after yet."""
    for _ in range(250):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)


def leave(
    gateway: LocalGateway, engine: socket.socket, path: str, body: str, key: str, pieces: int
) -> None:
    """Send a request, and close the connection when the engine, a listening socket, has it: its own
    connection must end, too. `pieces`: 1 sends the body with the head, 2 after it."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    head += f"X-Request-ID: left\r\nContent-Length: {len(body)}\r\n\r\n"
    address = ("127.0.0.1", gateway.settings.gateway.port)
    with socket.create_connection(address, 20) as leaving:
        for piece in [head + body] if pieces == 1 else [head, body]:
            leaving.sendall(piece.encode())
            time.sleep(0.2)
        asked, _ = engine.accept()
        asked.settimeout(20)
        received = b""
        while not received.endswith(body.encode()):
            received += asked.recv(65_536)
    with asked:
        assert asked.recv(1) == b""
    line = gateway.logged("left")
    assert (line["status"], line["complete"]) == (499, "")
