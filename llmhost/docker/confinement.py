"""What a container may reach, compared with its service's file.

Compose compares only hashes of its input: a container that was created by hand with its labels, or
connected to another network, counts as unchanged. Pure: the state comes from facts/compose.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_NOTHING_BY_DEFAULT = {
    "CapAdd": "capabilities",
    "Devices": "devices",
    "DeviceCgroupRules": "devices",
    "VolumesFrom": "mounts",
    "GroupAdd": "groups",
    "Sysctls": "kernel parameters",
    "Links": "links",
    "PublishAllPorts": "ports",
    "Privileged": "privileges",
    "PidMode": "namespaces",
    "UTSMode": "namespaces",
    "UsernsMode": "namespaces",
}
"""Keys of Docker's HostConfig that no service of llmhost sets, and what they add."""


@dataclass(frozen=True)
class Confinement:
    """From `docker inspect`: HostConfig, Mounts, the names of its networks, and Config.User."""

    host: Mapping[str, Any] = field(default_factory=dict)
    mounts: Sequence[Mapping[str, Any]] = ()
    networks: frozenset[str] = frozenset()
    user: str = ""


def additions(project: str, name: str, text: str, found: Confinement) -> list[str]:
    """Sentences about what a container has beyond its service's file `text`, or lacks of it.

    None if the file does not declare the service, or if nothing is known of the container.
    """
    service = (yaml.safe_load(text).get("services") or {}).get(name)
    if not service or not found.host:
        return []
    added = [*_networks(project, service, found), *_mounts(project, service, found)]
    added += [*_devices(service, found.host), *_ports(service, found.host)]
    added += [*_names(service, found.host), *_host(found.host)]
    sentences = [f"has undeclared {', '.join(added)}"] if added else []
    if lacking := [*_lacking(service, found)]:
        sentences.append(f"lacks part of its confinement: {', '.join(lacking)}")
    return sentences


def on_host_network(text: str, name: str) -> bool:
    """Whether a service, by its file, is on the network of the host."""
    service = (yaml.safe_load(text).get("services") or {}).get(name) or {}
    return bool(service.get("network_mode") == "host")


def _networks(project: str, service: Mapping[str, Any], found: Confinement) -> Iterator[str]:
    own = "host" if service.get("network_mode") == "host" else f"{project}_default"
    if others := sorted(found.networks - {own}):
        yield f"networks ({', '.join(others)})"


def _mounts(project: str, service: Mapping[str, Any], found: Confinement) -> Iterator[str]:
    declared = {_declared_mount(project, each) for each in service.get("volumes", ())}
    there = {_mount(each) for each in found.mounts if not _is_anonymous(each)}
    scratch = {each.partition(":")[0] for each in service.get("tmpfs", ())}
    added = {target for _, _, target in there - declared}
    if added := added | ((found.host.get("Tmpfs") or {}).keys() - scratch):
        yield f"mounts ({', '.join(sorted(added))})"


def _declared_mount(project: str, volume: Mapping[str, Any]) -> tuple[str, str, str]:
    source = f"{project}_{volume['source']}" if volume["type"] == "volume" else ""
    return volume["type"], source, volume["target"]


def _mount(mount: Mapping[str, Any]) -> tuple[str, str, str]:
    source = mount.get("Name") or mount.get("Source") or ""
    return mount["Type"], "" if mount["Type"] == "tmpfs" else source, mount["Destination"]


def _is_anonymous(mount: Mapping[str, Any]) -> bool:
    """Whether Docker named it: images may declare such volumes."""
    name = mount.get("Name") or ""
    return mount["Type"] == "volume" and len(name) == 64 and not set(name) - set("0123456789abcdef")


def _devices(service: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[str]:
    resources = service.get("deploy", {}).get("resources", {})
    reserved = resources.get("reservations", {}).get("devices", ())
    declared = {str(device) for each in reserved for device in each["device_ids"]}
    requests = host.get("DeviceRequests") or ()
    given = {str(device) for each in requests for device in each.get("DeviceIDs") or ("all",)}
    if added := sorted(given - declared):
        yield f"devices ({', '.join(added)})"
    if host.get("Runtime") == "nvidia":
        yield "devices (runtime nvidia)"


def _ports(service: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[str]:
    published = {
        f"{binding['HostIp']}:{binding['HostPort']}:{port.removesuffix('/tcp')}"
        for port, bindings in (host.get("PortBindings") or {}).items()
        for binding in bindings or ()
    }
    if added := sorted(published - set(service.get("ports", ()))):
        yield f"ports ({', '.join(added)})"


def _names(service: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[str]:
    hosts = {each.replace("=", ":", 1) for each in service.get("extra_hosts", ())}
    if added := sorted(set(host.get("ExtraHosts") or ()) - hosts):
        yield f"names of hosts ({', '.join(added)})"
    if added := sorted(set(host.get("Dns") or ()) - set(service.get("dns", ()))):
        yield f"name servers ({', '.join(added)})"


def _host(host: Mapping[str, Any]) -> Iterator[str]:
    for key, what in _NOTHING_BY_DEFAULT.items():
        if value := host.get(key):
            yield f"{what} ({_shown(key, value)})"
    if str(host.get("IpcMode")).startswith(("host", "container:")):
        yield f"namespaces (IpcMode {host['IpcMode']})"
    if host.get("MaskedPaths") == []:
        yield "privileges (all of /proc)"


def _shown(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(each["PathOnHost"] if key == "Devices" else each) for each in value)
    return ", ".join(value) if isinstance(value, dict) else f"{key} {value}"


def _lacking(service: Mapping[str, Any], found: Confinement) -> Iterator[str]:
    """Confinement that the file asks for and the container does not have."""
    host = found.host
    if service.get("read_only") and not host.get("ReadonlyRootfs"):
        yield "its root file system is writable"
    if missing := set(service.get("cap_drop", ())) - set(host.get("CapDrop") or ()):
        yield f"capabilities are not dropped ({', '.join(sorted(missing))})"
    if set(service.get("dns", ())) - set(host.get("Dns") or ()):
        yield "it looks up names outside the stack"
    options = host.get("SecurityOpt") or ()
    if set(service.get("security_opt", ())) != set(options):
        yield f"its security options are {', '.join(options) or 'none'}"
    if "logging" in service and not _logs(service["logging"], host.get("LogConfig") or {}):
        yield "the size of its log is not limited as declared"
    if "user" in service and found.user != str(service["user"]):
        yield f"its user is {found.user or 'root'}"


def _logs(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether Docker keeps a container's log as declared."""
    options = {key: str(value) for key, value in wanted["options"].items()}
    kept = (found.get("Config") or {}).items()
    return bool(found.get("Type") == wanted["driver"] and options.items() <= kept)
