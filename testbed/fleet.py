"""Many machines on one LAN, each the gateway of a server that this process simulates."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llmhost.gateway.keys import digest, new_key
from testbed import Lan, Machine

ROOT = Path(__file__).parents[1]
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


@dataclass(frozen=True)
class Run:
    """A deploy: its duration, the controller's peak memory, its output and its changes."""

    seconds: float
    peak_mib: float
    status: int
    said: str
    report: str

    @property
    def changed(self) -> dict[str, list[str]]:
        """Hosts by the operation that changed them, for a successful run with --json."""
        operations = json.loads(self.report)["results"]["operations"]
        return {each["name"]: each["success"] for each in operations if each["success"]}


@dataclass(frozen=True)
class Fleet:
    """The machines, and the inventory that declares them."""

    lan: Lan
    inventory: Path

    @property
    def names(self) -> list[str]:
        return sorted(self.lan.machines)

    def deploy(self, *options: str, hosts: Sequence[str] = ()) -> Run:
        """Deploy these hosts, or all."""
        command = [str(Path(sys.executable).with_name("pyinfra")), str(self.inventory), "deploy.py"]
        command += ["-y", *options, *(f"--limit={host}" for host in hosts)]
        begun = time.perf_counter()
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout and process.stderr
            said: list[str] = []
            reader = threading.Thread(target=said.extend, args=(process.stderr,))
            reader.start()
            report = process.stdout.read()
            reader.join()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begun
        return Run(seconds, usage.ru_maxrss / 1024, process.returncode, "".join(said), report)


@contextmanager
def fleet(place: Path, lan: Lan, hosts: int) -> Iterator[Fleet]:
    """This number of machines on the LAN, created if missing, and the server behind them."""
    with _watches_for(hosts), _server(lan.gateway) as port:
        machines = [_machine(lan, f"gate-{number:02}") for number in range(1, hosts + 1)]
        data = {
            "gateway_upstreams": [{"name": "llm", "address": lan.gateway, "port": port}],
            "gateway_upstream_services": ["llamacpp"],
            "gateway_upstream_tls": "off",
            "gateway_upstream_key": f"file:{_key(place)}",
            "gateway_ca_directory": str(place / "ca"),
            "api_clients": [{"name": "app", "sha256": digest(_key(place).read_text())}],
            "preflight_min_memory_gib": 0.5,
        }
        declared = [(each.name, {"ssh_config_file": str(each.ssh_config)}) for each in machines]
        inventory = place / "fleet.py"
        inventory.write_text(f"gateways = ({declared!r}, {data!r})\n")
        yield Fleet(lan, inventory)


@contextmanager
def _watches_for(hosts: int) -> Iterator[None]:
    """Inotify instances for the systemd of all machines: they share the limit of this root."""
    before = _INOTIFY.read_text()
    _INOTIFY.write_text(str(max(int(before), 16 * hosts)))
    try:
        yield
    finally:
        _INOTIFY.write_text(before)


def _machine(lan: Lan, name: str) -> Machine:
    machine = lan.machines.get(name) or lan.machine(name)
    machine.start()
    return machine


def _key(place: Path) -> Path:
    path = place / "key"
    if not path.exists():
        path.write_text(new_key())
        path.chmod(0o600)
    return path


@contextmanager
def _server(address: str) -> Iterator[int]:
    """A fixed port that accepts connections, which is enough for a gateway."""
    port = 9090
    with socket.create_server((address, port), backlog=64) as server:

        def answer() -> None:
            with suppress(OSError):  # closed: the end
                while True:
                    server.accept()[0].close()

        threading.Thread(target=answer, daemon=True).start()
        yield port
        server.shutdown(socket.SHUT_RDWR)
