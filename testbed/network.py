"""The network: a bridge for each LAN, a veth pair or tap device for each machine, and NAT.

All names contain the LAN's index, so LANs never share a name, and leftovers of an ended process can
be removed by the index alone. Interface names have at most 15 characters (IFNAMSIZ), hence the
short forms.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address
from pathlib import Path

from testbed.process import run

FIRST_HOST = 10
"""Host number of a LAN's first machine; lower numbers are for the LAN itself."""

Command = list[str]


@dataclass(frozen=True)
class Network:
    """Names and addresses of the LAN with this index (0 to 255)."""

    index: int

    @property
    def bridge(self) -> str:
        return f"lh{self.index}"

    @property
    def subnet(self) -> IPv4Network:
        # RFC 1918, and different from the ranges of Docker (172.17-31, 192.168) and libvirt
        # (192.168).
        return IPv4Network(f"10.231.{self.index}.0/24")

    @property
    def gateway(self) -> str:
        """The controller's own address on the LAN."""
        return self.address(1)

    @property
    def gateway6(self) -> str:
        return self.address6(1)

    def address(self, number: int) -> str:
        return str(self.subnet[number])

    def address6(self, number: int) -> str:
        # A unique local address (RFC 4193) whose "random" part spells the owner.
        return str(IPv6Address(f"fd6c:6c6d:686f:{self.index:x}::{number:x}"))

    def mac(self, number: int) -> str:
        return f"02:6c:68:6d:{self.index:02x}:{number:02x}"

    def port(self, number: int) -> str:
        """The interface of host ``number`` on the bridge."""
        return f"{self.bridge}p{number}"

    def namespace(self, number: int) -> str:
        return f"{self.bridge}-{number}"

    def rules(self) -> list[tuple[str, Command]]:
        """Firewall rules as (program, rule without its -I or -D), each at the top of its chain.

        The controller may drop forwarded packets (Docker sets that policy) and incoming ones (ufw),
        and with br_netfilter bridged packets pass its chains.
        """
        subnet = str(self.subnet)
        note = ["-m", "comment", "--comment", f"llmhost test LAN {self.bridge}"]
        into = ["-o", self.bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
        masquerade = ["-s", subnet, "!", "-d", subnet, *note, "-j", "MASQUERADE"]
        return [
            ("iptables", ["nat", "POSTROUTING", *masquerade]),
            ("iptables", ["filter", "FORWARD", *into, *note, "-j", "ACCEPT"]),
            ("iptables", ["filter", "FORWARD", "-i", self.bridge, *note, "-j", "ACCEPT"]),
            ("iptables", ["filter", "INPUT", "-i", self.bridge, *note, "-j", "ACCEPT"]),
            ("ip6tables", ["filter", "FORWARD", "-i", self.bridge, *note, "-j", "ACCEPT"]),
            ("ip6tables", ["filter", "INPUT", "-i", self.bridge, *note, "-j", "ACCEPT"]),
        ]

    def up(self) -> None:
        """Create the bridge and its rules, as far as they are missing."""
        if not Path("/sys/class/net", self.bridge).exists():
            run(["ip", "link", "add", self.bridge, "type", "bridge", "mcast_snooping", "0"])
        # The kernel creates a bridge without IPv6 if a container runtime disabled it.
        Path(f"/proc/sys/net/ipv6/conf/{self.bridge}/disable_ipv6").write_text("0")
        run(["ip", "address", "replace", f"{self.gateway}/24", "dev", self.bridge])
        six = f"{self.gateway6}/64"
        run(["ip", "address", "replace", six, "dev", self.bridge, "nodad"])
        run(["ip", "link", "set", self.bridge, "up"])
        for program, (table, chain, *rule) in self.rules():
            command = [program, "-w", "-t", table]
            if run([*command, "-C", chain, *rule], check=False).returncode:
                run([*command, "-I", chain, *rule])

    def down(self) -> None:
        """Remove the bridge and its rules, if they exist."""
        for program, (table, chain, *rule) in self.rules():
            command = [program, "-w", "-t", table, "-D", chain, *rule]
            while run(command, check=False).returncode == 0:
                pass  # -D removes one rule; a killed run may have left two
        run(["ip", "link", "delete", self.bridge], check=False)

    def plug_namespace(self, number: int) -> list[Command]:
        """Commands that create a new network namespace on this LAN for host ``number``.

        Commands, not calls: a machine's supervisor runs them again at every reboot. A leading
        ``-`` marks one that may fail.
        """
        space, port = self.namespace(number), self.port(number)
        inside = ["ip", "-n", space]
        return [
            *(["-", *command] for command in self.unplug(number)),
            ["ip", "netns", "add", space],
            ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space],
            ["ip", "link", "set", port, "master", self.bridge, "up"],
            ["ip", "netns", "exec", space, "sh", "-c", _AS_ON_A_BARE_HOST],
            [*inside, "link", "set", "eth0", "address", self.mac(number)],
            [*inside, "link", "set", "lo", "up"],
            [*inside, "link", "set", "eth0", "up"],
            [*inside, "address", "add", f"{self.address(number)}/24", "dev", "eth0"],
            [*inside, "address", "add", f"{self.address6(number)}/64", "dev", "eth0", "nodad"],
            [*inside, "route", "add", "default", "via", self.gateway],
        ]

    def plug_tap(self, number: int) -> list[Command]:
        """Commands that create the tap device of virtual machine ``number``."""
        port = self.port(number)
        return [
            *(["-", *command] for command in self.unplug(number)),
            ["ip", "tuntap", "add", port, "mode", "tap"],
            ["ip", "link", "set", port, "master", self.bridge, "up"],
        ]

    def unplug(self, number: int) -> list[Command]:
        """Commands that remove host ``number`` from the LAN; each may fail."""
        return [
            # The veth pair is removed with the namespace, but later; its name is needed now.
            ["ip", "link", "delete", self.port(number)],
            ["ip", "netns", "delete", self.namespace(number)],
        ]


# A namespace starts with the controller's IPv4 settings, and the controller forwards. No duplicate
# address detection: it would keep the link-local address unusable for a second.
_AS_ON_A_BARE_HOST = """
echo 0 >/proc/sys/net/ipv4/ip_forward || exit
for name in all default eth0; do
    cd /proc/sys/net/ipv6/conf/$name && echo 0 >disable_ipv6 && echo 0 >accept_dad || exit
done
"""


def free(network: Network) -> bool:
    """Whether no interface and no route of this machine overlaps ``network``."""
    if Path("/sys/class/net", network.bridge).exists():
        return False
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout)
    return not any(reaches(str(route.get("dst", "default")), network.subnet) for route in routes)


def reaches(destination: str, subnet: IPv4Network) -> bool:
    """Whether a route to ``destination``, as ip-route(8) prints it, covers a part of ``subnet``.

    Default routes do not count, nor do those to half of all addresses (0.0.0.0/1), as VPNs set.
    """
    if destination == "default":
        return False
    route = IPv4Network(destination, strict=False)
    return route.prefixlen > 7 and route.overlaps(subnet)
