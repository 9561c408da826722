"""netplan's files: the definition of an interface, and settings that conflict with ours. Pure.

netplan merges all files in the order of their names: the last single value wins, but lists are
joined (netplan-generate(8)). Addresses in other files would therefore remain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import PurePosixPath
from typing import Any

import yaml

PATH = "/etc/netplan/99-llmhost.yaml"

_KINDS = ("ethernets", "bonds", "bridges", "vlans", "wifis")
_JOINED = ("addresses", "routes", "nameservers", "gateway4", "gateway6")
_SINGLE = ("dhcp4", "dhcp6", "accept-ra")

_HEADER = (
    "# llmhost removed the addresses of {key}: they are now in 99-llmhost.yaml.\n"
    "# /var/lib/llmhost/network has the original of this file.\n"
)


@dataclass(frozen=True)
class Definition:
    """Definition of an interface in netplan: kind (such as `ethernets`) and key."""

    kind: str
    key: str


def find(texts: Mapping[str, str], interface: str, mac: str) -> Definition:
    """The definition of an interface in netplan's files, or a new one."""
    for path in sorted(texts, key=_name):
        for kind in _KINDS:
            for key, body in _definitions(texts[path], kind).items():
                if path != PATH and _is_of(key, body, interface, mac):
                    return Definition(kind, key)
    return Definition("ethernets", interface)


def _is_of(key: str, body: Mapping[str, Any], interface: str, mac: str) -> bool:
    match = body.get("match") or {}
    if body.get("set-name") == interface:
        return True
    if "macaddress" in match:
        return str(match["macaddress"]).lower() == mac.lower()
    if "name" in match:
        return fnmatchcase(interface, str(match["name"]))
    return key == interface


def definition(
    where: Definition,
    addresses: Sequence[IPv4Interface | IPv6Interface],
    gateways: Sequence[IPv4Address | IPv6Address],
) -> str:
    """The text of llmhost's file."""
    body: dict[str, Any] = {"dhcp4": False, "dhcp6": False}
    if any(address.version == 6 for address in addresses):
        body["accept-ra"] = False
    body["addresses"] = [str(address) for address in addresses]
    if gateways:
        anywhere = {4: "0.0.0.0/0", 6: "::/0"}
        body["routes"] = [{"to": anywhere[g.version], "via": str(g)} for g in gateways]
    content = {"network": {"version": 2, where.kind: {where.key: body}}}
    return yaml.safe_dump(content, sort_keys=False).rstrip()


def trimmed(texts: Mapping[str, str], where: Definition) -> dict[str, str]:
    """Files that would extend or override the definition, by path, with their new texts."""
    changed = {}
    for path, text in texts.items():
        content = _parse(text)
        body = _definitions(text, where.kind).get(where.key)
        if path == PATH or body is None:
            continue
        keys = (*_JOINED, *(_SINGLE if _name(path) > _name(PATH) else ()))
        if any(key in body for key in keys):
            kept = {key: value for key, value in body.items() if key not in keys}
            content["network"][where.kind][where.key] = kept
            header = _HEADER.format(key=where.key)
            changed[path] = header + yaml.safe_dump(content, sort_keys=False)
    return changed


def _definitions(text: str, kind: str) -> dict[str, dict[str, Any]]:
    found = (_parse(text).get("network") or {}).get(kind) or {}
    return {str(key): body or {} for key, body in found.items()}


def _parse(text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}  # netplan refuses the file, and so the trial fails
    return content if isinstance(content, dict) else {}


def _name(path: str) -> str:
    return PurePosixPath(path).name
