"""Ports that other programs use: what the kernel says of them, and which of them are needed."""

import socket
import subprocess
import sys
from ipaddress import ip_address

import pytest

from llmhost.facts.listeners import Listeners
from llmhost.system.listeners import Listener, Needed, taken

GATEWAY = Needed("gateway_port", 443, (ip_address("::"),), ("nginx",))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_listener_of_this_machine_is_found_with_its_program(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening, socket.socket(family) as other:
        listening.bind((address, 0))
        listening.listen()
        other.bind((address, 0))  # bound, and does not listen
        port, silent = listening.getsockname()[1], other.getsockname()[1]
        fact = Listeners()
        command = ["sh", "-c", fact.command([port, silent])]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    (found,) = fact.process(said.stdout.splitlines())
    assert (found.port, found.address) == (port, ip_address(address))
    assert found.program and found.program in sys.executable + " pytest python3"


@pytest.mark.parametrize(
    ("address", "wanted", "meet"),
    [
        ("0.0.0.0", "::", True),
        ("127.0.0.1", "::", True),
        ("::", "0.0.0.0", True),
        ("::1", "0.0.0.0", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.1", True),
    ],
)
def test_only_addresses_that_meet_count(address: str, wanted: str, meet: bool) -> None:
    needed = Needed("gateway_port", 443, (ip_address(wanted),), ("nginx",))
    assert bool([*taken([needed], [Listener(443, ip_address(address), "caddy")])]) is meet


def test_own_program_and_other_ports_do_not_count() -> None:
    everywhere = ip_address("::")
    others = [Listener(443, everywhere, "nginx"), Listener(80, everywhere, "apache2")]
    # One that ended before its name was read: a worker of nginx during a reload, for example.
    others.append(Listener(443, everywhere, ""))
    assert [*taken([GATEWAY], others)] == []


def test_refusal_names_the_program_and_the_option() -> None:
    listeners = [Listener(443, ip_address("0.0.0.0"), "apache2")] * 2
    (sentence,) = taken([GATEWAY], listeners)
    assert sentence.startswith("port 443/tcp (gateway_port) is in use by apache2; stop it")
