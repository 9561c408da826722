"""A host's addresses, in one round trip."""

import base64
import re
from collections import defaultdict
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.resources import script
from llmhost.system.addresses import PATHS, Address, LiveAddress, NetworkState
from llmhost.system.virtualization import is_wsl

_MARK = "=== llmhost: network"


class HostNetworking(FactBase[NetworkState]):
    """Interfaces, addresses, default routes, what manages them, and its configuration files.

    Sources: /sys/class/net, `ip`, netplan's files, `networkctl`, /etc/network/interfaces, `nmcli`,
    and the environment of the shell that sshd started.
    """

    @staticmethod
    def default() -> NetworkState:
        return NetworkState()

    def command(self) -> str:
        states = PathStates().command([*PATHS])
        scripts = f"{script('network/connection.sh')}; {script('network/state.sh')}"
        return f"PATH=$PATH:/usr/sbin:/sbin; {states}; echo '{_MARK}'; {scripts}"

    def process(self, output: list[str]) -> NetworkState:
        return parse_state(output)


class SilentPeers(FactBase[dict[str, str]]):
    """Members of an engine group that do not answer on its interface: `silent`, `unrouted`, or
    `via` with another interface, by name. `peers` are addresses by name."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, interface: str, peers: Mapping[str, str]) -> str:
        words = [word for peer in peers.items() for word in peer]
        return script("network/peers.sh", interface, *words)

    def process(self, output: list[str]) -> dict[str, str]:
        found = (line.partition(" ") for line in sorted(output))
        return {name: why for name, _, why in found}


def parse_state(output: list[str]) -> NetworkState:
    """Parse the output of the command: path states, then lines that begin with their kind."""
    mark = output.index(_MARK)
    lines: dict[str, list[list[str]]] = defaultdict(list)
    for line in output[mark + 1 :]:
        kind, *words = line.split()
        lines[kind].append(words)
    managers = defaultdict(list)
    for interface, manager in lines["manager"]:
        managers[interface].append(manager)
    return NetworkState(
        macs={words[0]: " ".join(words[1:]) for words in lines["link"]},
        addresses=[_address(words) for words in lines["address"]],
        routes=[route for words in lines["route"] if (route := _route(words))],
        server=_server(lines["connection"][0] if lines["connection"] else []),
        netplan={path: _text(*text) for path, *text in lines["netplan"]},
        managers=managers,
        paths=parse_states(output[:mark]),
        is_wsl=any(is_wsl(*words) for words in lines["kernel"]),
        has_ip="without-ip" not in lines,
    )


def _address(words: list[str]) -> LiveAddress:
    """`2: eth0 inet 192.0.2.5/24 brd … scope global dynamic eth0\\ …`."""
    return LiveAddress(words[1].partition("@")[0], ip_interface(words[3]), "dynamic" in words)


def _route(words: list[str]) -> tuple[str, str] | None:
    """`default via 192.0.2.1 dev eth0 …`: interface and router, empty on a point-to-point link."""
    found = re.search(r"(?:via (\S+) )?dev (\S+)", " ".join(words))
    return (found[2], found[1] or "") if found else None


def _server(words: list[str]) -> Address | None:
    """The third word of SSH_CONNECTION (ssh(1))."""
    if len(words) != 4 or words[2] == "UNKNOWN":
        return None
    return ip_address(words[2].partition("%")[0])


def _text(encoded: str = "") -> str:
    return base64.b64decode(encoded).decode(errors="replace")
