"""A stack whose containers may only connect to what is declared, and a neighbor that listens."""

import base64
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from llmhost.settings import Settings
from llmhost.tasks.docker import install_docker
from llmhost.tasks.egress import limit_egress
from llmhost.tasks.stack import run_stack
from testbed import Machine

ENGINE = "llmhost-llamacpp-1"
_INSIDE = f"nsenter --target $(docker inspect -f '{{{{.State.Pid}}}}' {ENGINE}) --net"


def limited_stack(settings: Settings) -> None:
    """The parts of a deploy that decide what containers reach, in its order."""
    limit_egress(settings)
    install_docker(settings)
    run_stack(settings)


@dataclass
class NameServer:
    """Answers nothing and remembers which names it was asked for."""

    asked: list[str] = field(default_factory=list)


@contextmanager
def name_server(address: str) -> Iterator[NameServer]:
    """A name server at port 53 of an address."""
    server = NameServer()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((address, 53))
        listener.settimeout(0.2)
        done = threading.Event()

        def listen() -> None:
            while not done.is_set():
                try:
                    query, client = listener.recvfrom(512)
                except TimeoutError:
                    continue
                server.asked.append(_name_in(query))
                listener.sendto(query[:2] + b"\x81\x83" + query[4:], client)  # no such name

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield server
        finally:
            done.set()
            thread.join()


def _name_in(query: bytes) -> str:
    labels, place = [], 12
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode())
        place += 1 + length
    return ".".join(labels)


def inside(machine: Machine, command: str, *, check: bool = True) -> str:
    """What a command of the machine prints in the network of the engine's container."""
    return machine.ssh(f"{_INSIDE} {command}", check=check).stdout.strip()


def connects(machine: Machine, address: str, port: int) -> bool:
    """Whether the engine's container gets a TCP connection, without waiting long for one."""
    said = inside(
        machine,
        f"timeout 5 bash -c 'exec 3<>/dev/tcp/{address}/{port} && echo connected' 2>&1",
        check=False,
    )
    return "connected" in said


def look_up(machine: Machine, name: str) -> int:
    """The code (RFC 1035) of the answer that the engine's container gets for a name."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    query = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + labels + b"\x00\x00\x01\x00\x01"
    ask = (
        f"exec 3<>/dev/udp/127.0.0.11/53; echo {base64.b64encode(query).decode()} | base64 -d >&3;"
        " timeout 9 dd bs=512 count=1 <&3 2>/dev/null | od -An -tu1 -j3 -N1"
    )
    return int(inside(machine, f"bash -c {shlex.quote(ask)}")) & 15
