"""Cuts a host off from the network, except for its clients, and records what containers try.

The cut is a separate nftables table: other filters do not change, and removing the table restores
everything at once. A timer on the host removes it in any case. Pure: cli/offline.py runs the
scripts.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmhost.resources import script
from llmhost.template import render

TABLE = "llmhost_offline"
UNIT = "llmhost-offline-restore"


@dataclass(frozen=True)
class Attempt:
    """An attempt to connect: by a container, or by the host itself if that is empty."""

    container: str
    address: str
    protocol: str
    port: int

    @property
    def sentence(self) -> str:
        """The attempt as a sentence."""
        who = self.container or "the host itself"
        what = "sent a DNS query to" if self.port in (53, 853) else "tried to reach"
        place = f"[{self.address}]" if ":" in self.address else self.address
        return f"{who} {what} {place}:{self.port} ({self.protocol})"


def cut_script(controller: str, ssh_port: int, seconds: int) -> str:
    """Cut the network for at most this many seconds; `controller` is an address, or empty."""
    rules = render("offline/rules.nft.j2", table=TABLE, controller=controller, ssh_port=ssh_port)
    return script("offline/cut.sh", TABLE, UNIT, str(seconds), rules)


def recreate_script(compose_file: str, seconds: int) -> str:
    """Recreate all containers, and wait until they are healthy."""
    up = script("docker/up.sh", compose_file, str(seconds), "--force-recreate")
    return (
        f"{up} 2>&1 || {{ echo 'not every service became healthy without a network' >&2; exit 1; }}"
    )


def request_script(port: int, path: str, body: Mapping[str, object] | None, seconds: int) -> str:
    """One request to a published port; fails unless the answer has a success status."""
    url = shlex.quote(f"http://127.0.0.1:{port}{path}")
    command = f"curl --fail-with-body --silent --show-error --max-time {seconds} {url}"
    if body is None:
        return command
    data = shlex.quote(json.dumps(body))
    return f"{command} --header 'Content-Type: application/json' --data {data}"


def attempts_script() -> str:
    """Print the addresses of containers, and the sets of the table as JSON."""
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}"
    return f"""docker ps --all --quiet | xargs -r docker inspect --format '{{{{.Name}}}}|{networks}'
nft --json list table inet {TABLE}"""


def restore_script() -> str:
    """Remove the cut and its timer, if they exist."""
    return f"""nft delete table inet {TABLE} 2>/dev/null || true
systemctl stop {UNIT}.timer 2>/dev/null || true"""


def parse_attempts(output: str) -> tuple[Attempt, ...]:
    """The output of `attempts_script`. Raises ValueError if there was no table."""
    *lines, listed = output.strip().splitlines()
    names = dict(_addresses(lines))
    found = []
    for entry in json.loads(listed)["nftables"]:
        if "set" not in entry:
            continue
        by_container = entry["set"]["name"].startswith("containers")
        for parts in _elements(entry["set"]):
            source = str(parts.pop(0)) if by_container else ""
            who = names.get(source, f"a container that is gone ({source})") if source else ""
            address, protocol, port = parts
            found.append(Attempt(who, str(address), str(protocol), int(port)))
    return tuple(found)


def _addresses(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, addresses = line.partition("|")
        for address in addresses.split():
            yield address, name.lstrip("/")


def _elements(listed: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Elements of a set in nft's JSON, each as its parts (libnftables-json(5))."""
    for element in listed.get("elem", ()):
        value = element.get("elem", {}).get("val", element) if "elem" in element else element
        yield list(value["concat"])
