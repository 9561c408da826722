"""Everything about a host's firewall, in one round trip."""

from itertools import groupby

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.system.ufw import (
    AFTER_RULES,
    NORMAL_FORM,
    PATHS,
    RECORD,
    SOURCES,
    USER_RULES,
    UfwState,
    parse_connection,
)

_MARK = "=== llmhost: "
_TEXTS = (*USER_RULES.values(), *AFTER_RULES.values())

# Files and netfilter are read directly: `ufw status` starts Python and asks for less.
_SCRIPT = rf"""
for file in {" ".join(_TEXTS)}; do echo '{_MARK}'$file; cat $file 2>/dev/null; echo; done
echo '{_MARK}facts'
# sudo drops SSH_CONNECTION; the shell that sshd started still has it.
connection=$SSH_CONNECTION process=$$
while [ -z "$connection" ] && [ "${{process:-0}}" -gt 1 ]; do
  connection=$(tr '\0' '\n' </proc/$process/environ 2>/dev/null | sed -n 's/^SSH_CONNECTION=//p')
  process=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$process/status 2>/dev/null)
done
echo "connection $connection"
# The links that systemctl would look at, without waiting for it.
[ -h /etc/systemd/system/multi-user.target.wants/ufw.service ] &&
  [ ! -h /etc/systemd/system/ufw.service ] && echo "starts-at-boot yes"
[ -e {RECORD}/sources ] && echo "recorded yes" &&
  {{ [ "$(sha256sum {SOURCES} 2>/dev/null)" = "$(cat {RECORD}/sources)" ] || echo "edited yes"; }}
awk '$2 == "00000000" {{ print "uplink", $1 }}' /proc/net/route
awk '$1 ~ /^0+$/ && $2 == "00" {{ print "uplink", $NF }}' /proc/net/ipv6_route 2>/dev/null
case $(iptables --version 2>/dev/null) in *legacy*) other=nft ;; *) other=legacy ;; esac
if [ $other = nft ] || grep -qs filter /proc/net/ip_tables_names; then
  iptables-$other-save -t filter 2>/dev/null | grep -q '^-A INPUT -j ufw' &&
    echo "other-backend iptables-$other"
fi
echo '{_MARK}live'
for family in ip ip6; do
  $family"tables-save" -t filter 2>/dev/null | {NORMAL_FORM} |
    diff -N {RECORD}/$family - | sed -n "s/^[<>] /$family &/p"
done; true
"""


class Ufw(FactBase[UfwState]):
    """State of ufw's files and of the rules that are loaded.

    Sources: the files in /etc, the record of what was loaded last, `iptables-save` and
    `ip6tables-save`, and the environment of the shell that sshd started. The default state is
    that of a host without ufw.
    """

    @staticmethod
    def default() -> UfwState:
        return UfwState()

    def command(self) -> str:
        states = PathStates().command(list(PATHS))
        return f"PATH=$PATH:/usr/sbin:/sbin; {states}; {_SCRIPT}"

    def process(self, output: list[str]) -> UfwState:
        return parse_state(output)


def parse_state(output: list[str]) -> UfwState:
    """From the lines of the fact's command: path states, then parts that begin with a mark."""
    parts: dict[str, list[str]] = {"": []}
    for line in output:
        if line.startswith(_MARK):
            parts[line.removeprefix(_MARK)] = []
        else:
            parts[next(reversed(parts))].append(line)
    pairs = sorted(line.split(" ", 1) for line in parts.get("facts", []))
    facts = {key: [value for _, value in group] for key, group in groupby(pairs, lambda p: p[0])}
    return UfwState(
        paths=parse_states(parts[""]),
        texts={path: "\n".join(parts[path]) for path in _TEXTS if path in parts},
        starts_at_boot="starts-at-boot" in facts,
        connection=parse_connection(facts.get("connection", [""])[0]),
        recorded="recorded" in facts,
        edited="edited" in facts,
        live=parts.get("live", []),
        uplinks=facts.get("uplink", []),
        other_backend=facts.get("other-backend", [""])[0],
    )
