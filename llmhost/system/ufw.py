"""ufw: firewall rules as declared, on disk and in the kernel.

Pure: the state comes from facts/ufw.py, the commands are run by operations/ufw.py.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from llmhost.resources import script_text
from llmhost.system.files import File, PathState, differences

STAGE = "/run/llmhost-firewall"
"""Directory of new rules during their trial; on a tmpfs, so that a reboot ends the trial."""

RECORD = "/var/lib/llmhost/firewall"
"""The rules loaded last: `ip` and `ip6` in normal form, `sources` the digests of ufw's files."""

UNDO_UNIT = "llmhost-firewall-undo"
"""The timer that ends a trial."""

USER_RULES = {4: "/etc/ufw/user.rules", 6: "/etc/ufw/user6.rules"}
AFTER_RULES = {4: "/etc/ufw/after.rules", 6: "/etc/ufw/after6.rules"}
DEFAULTS = "/etc/default/ufw"
CONFIGURATION = "/etc/ufw/ufw.conf"
PATHS = (*USER_RULES.values(), *AFTER_RULES.values(), DEFAULTS, CONFIGURATION)
"""All files that llmhost writes; ufw.conf, which enables ufw, comes last."""

SOURCES = "/etc/ufw/*.rules /etc/ufw/*.init /etc/ufw/sysctl.conf"
"""Shell patterns of the files that ufw loads."""

BEGIN = "# BEGIN llmhost: edit the inventory (firewall_*) instead"
END = "# END llmhost"

NORMAL_FORM = script_text("firewall/normal_form.sh")
"""Shell filter from `iptables-save` to the rules that must be as ufw loaded them.

These are its chains, DOCKER-USER, policies and jumps, and rules of others that override them: in
INPUT those that accept or that refuse everything, in FORWARD those that accept before DOCKER-USER.
Chains of other programs (fail2ban, Docker) are ignored.
"""

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Rule:
    """A port that is open to networks. `port` may be a range, such as `1024:65535`; with an
    `interface`, only packets that arrive there are admitted, and none to ports of containers."""

    port: int | str
    protocol: str
    sources: tuple[Network, ...]
    comment: str = ""
    interface: str = ""


@dataclass(frozen=True)
class Opening:
    """A port that is open to one network: one rule of ufw."""

    port: int | str
    protocol: str
    source: Network
    comment: str
    interface: str = ""

    @property
    def _source(self) -> str:
        """As ufw writes it: a single address without its prefix length."""
        one = self.source.prefixlen == self.source.max_prefixlen
        return str(self.source.network_address if one else self.source)

    @property
    def tuple(self) -> str:
        """ufw's notation, the source of `ufw status` (backend_iptables.py)."""
        anywhere = "0.0.0.0/0" if self.source.version == 4 else "::/0"
        comment = f" comment={self.comment.encode().hex()}" if self.comment else ""
        way = f"in_{self.interface}" if self.interface else "in"
        return f"allow {self.protocol} {self.port} {anywhere} any {self._source} {way}{comment}"

    @property
    def arguments(self) -> str:
        """The rule for iptables-restore, as ufw writes it."""
        way = f"-i {self.interface} " if self.interface else ""
        port = f"--dport {self.port}"
        if isinstance(self.port, str):
            port = f"-m multiport --dports {self.port}"
        return f"{way}-p {self.protocol} {port}{self._from} -j ACCEPT"

    @property
    def of_container(self) -> str:
        """The same for a port that a container has published."""
        port = f"-m conntrack --ctstate DNAT --ctorigdstport {self.port}"
        return f"-p {self.protocol}{self._from} {port} -j RETURN"

    @property
    def _from(self) -> str:
        return f" -s {self._source}" if self.source.prefixlen else ""


def openings(rules: Iterable[Rule], version: int) -> list[Opening]:
    """The rules of one IP version, in the order they are declared."""
    return [
        Opening(rule.port, rule.protocol, source, rule.comment, rule.interface)
        for rule in rules
        for source in rule.sources
        if source.version == version
    ]


@dataclass(frozen=True)
class Connection:
    """The SSH connection in use, as the host sees it."""

    client: IPv4Address | IPv6Address
    port: int


def parse_connection(text: str) -> Connection | None:
    """From SSH_CONNECTION (ssh(1)): client, its port, server, its port.

    None if it is empty, or if the connection to sshd has no network ("UNKNOWN").
    """
    fields = text.split()
    if len(fields) != 4 or fields[0] == "UNKNOWN":
        return None
    return Connection(ip_address(fields[0].partition("%")[0]), int(fields[3]))


@dataclass(frozen=True)
class UfwState:
    """The firewall of a host.

    `paths` are states of `PATHS`, `texts` contents by path, `live` the lines by which the loaded
    rules differ from the recorded ones: family, `<` (gone) or `>` (not ours), rule. `uplinks` are
    interfaces of default routes. `edited`: a file was changed since it was loaded.
    """

    paths: Mapping[str, PathState] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    starts_at_boot: bool = False
    connection: Connection | None = None
    recorded: bool = False
    edited: bool = False
    live: Sequence[str] = ()
    uplinks: Sequence[str] = ()
    other_backend: str = ""

    @property
    def outside_bridges(self) -> list[str]:
        """Uplinks whose name looks like that of a container network to DOCKER-USER."""
        return sorted({name for name in self.uplinks if re.match(r"br-|docker", name)})


def lifeline(rules: Iterable[Rule], connection: Connection | None) -> tuple[Rule, ...]:
    """The rule that admits the connection in use; none if a declared rule does."""
    if connection is None:
        return ()
    client = ip_network(connection.client)
    for rule in rules:
        here = (rule.port, rule.protocol, rule.interface)
        if here == (connection.port, "tcp", "") and any(
            _covers(source, client) for source in rule.sources
        ):
            return ()
    return (Rule(connection.port, "tcp", (client,), "llmhost: address of the last deploy"),)


def _covers(wider: Network, narrower: Network) -> bool:
    if isinstance(wider, IPv4Network) and isinstance(narrower, IPv4Network):
        return narrower.subnet_of(wider)
    if isinstance(wider, IPv6Network) and isinstance(narrower, IPv6Network):
        return narrower.subnet_of(wider)
    return False


def drift(files: Sequence[File], rules: Sequence[Rule], state: UfwState) -> list[str]:
    """Why the firewall is not as declared, in sentences; empty if it is."""
    sentences = [
        sentence
        for version, path in USER_RULES.items()
        for sentence in _rule_drift(openings(rules, version), state.texts.get(path, ""))
    ]
    wrong = differences(files, state.paths)
    sentences += [
        why for entry, why in wrong.items() if not (sentences and entry.path in USER_RULES.values())
    ]
    if not state.starts_at_boot:
        sentences.append("ufw does not start at boot")
    if not state.recorded:
        return [*sentences, "llmhost has not yet loaded rules on this host"]
    if state.edited:
        sentences.append("files of ufw were edited after they were loaded")
    return sentences + _live_drift(state.live)


def _rule_drift(wanted: Sequence[Opening], text: str) -> list[str]:
    found = re.findall(r"^### tuple ### (.+)$", text, re.MULTILINE)
    missing = [opening for opening in wanted if opening.tuple not in found]
    foreign = [rule for rule in found if rule not in {opening.tuple for opening in wanted}]
    sentences = [f"port {o.port}/{o.protocol} is not open to {o.source}" for o in missing]
    sentences += [f"the rule '{_readable(rule)}' is not declared" for rule in foreign]
    if not sentences and found != [opening.tuple for opening in wanted]:
        sentences.append("the rules are in another order")
    return sentences


def _readable(rule: str) -> str:
    """A tuple of ufw as its command writes it."""
    action, protocol, port, _to, _from_port, source, *_ = [*rule.split(), *[""] * 6]
    return f"{action} {port}/{protocol} from {source}"


def _live_drift(lines: Sequence[str], most: int = 3) -> list[str]:
    gone = [line.split(" ", 2)[2] for line in lines if " < " in line]
    foreign = [line.split(" ", 2)[2] for line in lines if " > " in line]
    sentences = [f"'{rule}' is no longer loaded" for rule in gone[:most]]
    sentences += [
        f"firewall rule '{rule}' is loaded, but ufw did not add it" for rule in foreign[:most]
    ]
    if more := max(0, len(gone) - most) + max(0, len(foreign) - most):
        sentences.append(f"{more} more loaded rules are not as ufw loaded them")
    return sentences
