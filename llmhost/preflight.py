"""Whether a host can become an LLM server: sentences, each with a fix."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from llmhost.docker.packages import DISTRIBUTION, DOCKER, other_engine, unsupported
from llmhost.nvidia.generation import is_gpu
from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.nvidia.state import NvidiaState
from llmhost.system.addresses import NetworkState
from llmhost.system.host_identity import HostIdentity
from llmhost.system.listeners import Needed
from llmhost.units import gib, gib_to_bytes

Address = IPv4Address | IPv6Address

SUPPORTED = {
    "ubuntu": ("22.04", "24.04", "26.04"),
    "debian": ("12", "13"),
}
_WITHOUT_NJS = (("ubuntu", "22.04"),)
ARCHITECTURES = ("amd64", "arm64")
# A host that already has its images needs space for a small change only.
FREE_GIB_WHEN_DEPLOYED = 1.0


@dataclass(frozen=True)
class Requirements:
    """What a host must have. `docker_source` is empty for a host that gets no Docker; `listens` are
    the addresses of its gateway, none without one. `counts_tokens`: the gateway needs njs. `ports`
    must not be in use by programs of others. `live_restore`: containers outlive the daemon."""

    docker_source: str = ""
    live_restore: bool = False
    min_memory_gib: float = 0
    min_free_disk_gib: float = 0
    max_clock_skew_seconds: float = 60
    listens: tuple[Address, ...] = ()
    counts_tokens: bool = False
    ports: tuple[Needed, ...] = ()


def findings(
    identity: HostIdentity, requirements: Requirements, *, skew_seconds: float
) -> Iterator[str]:
    """Every reason to refuse the host; none if it is suitable. `skew_seconds` is how far its
    clock is ahead of the controller's."""
    yield from _wrong_system(identity, requirements.docker_source)
    yield from _no_power(identity)
    yield from _too_small(identity, requirements.min_memory_gib, requirements.min_free_disk_gib)
    if requirements.docker_source:
        yield from _another_docker(identity)
    yield from _no_ipv6(identity, requirements.listens)
    if requirements.counts_tokens and (identity.distribution, identity.version) in _WITHOUT_NJS:
        yield (
            f"{identity.distribution} {identity.version} has no package libnginx-mod-http-js, which"
            " gateway_count_tokens needs; remove this option, or upgrade the host"
        )
    if abs(skew_seconds) > requirements.max_clock_skew_seconds:
        order = "ahead of" if skew_seconds > 0 else "behind"
        yield (
            f"the host's clock is {abs(skew_seconds):.0f} s {order} the"
            " controller's; set it with: timedatectl set-ntp true"
        )


def occupied(sites: Sequence[str]) -> Iterator[str]:
    """Refuses an nginx that serves sites of others; `sites` are their files."""
    if sites:
        yield (
            f"nginx already serves other sites on this host ({_shown(sites)}), and llmhost would"
            " replace its configuration; move them to another host, or set gateway_replaces_nginx ="
            " True to replace them"
        )


def in_swarm(*, live_restore: bool) -> Iterator[str]:
    """Refuses a node of a swarm whose daemon would not start."""
    if live_restore:
        yield (
            "the host is a node of a Docker swarm, and Docker does not start there with"
            " live-restore; leave the swarm with: docker swarm leave, or set docker_daemon_options"
            ' = {"live-restore": False}: containers then restart with the daemon'
        )


def replaced_engine(source: str, containers: Sequence[str]) -> Iterator[str]:
    """Refuses to replace an engine that has containers of others."""
    if containers:
        package = other_engine(source)
        other = DOCKER if source == DISTRIBUTION else DISTRIBUTION
        yield (
            f"{package} has containers of others ({_shown(containers)}), and docker_source ="
            f' "{source}" would replace it with an engine that may not find them; set'
            f' docker_source = "{other}", or save what they need, then run: apt-get remove'
            f" {package}"
        )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def not_in_group(interface: str, address: Address, found: NetworkState) -> Iterator[str]:
    """Why a host cannot be a member of its engine group: its interface or address is missing."""
    if not found.has_ip:
        return  # what installs it comes later
    if interface not in found.macs:
        names = ", ".join(sorted({*found.macs} - {"lo"}))
        yield (f"the host has no interface {interface} (engine_group_interface); it has: {names}")
    elif not any(
        each.interface == interface and each.address.ip == address for each in found.addresses
    ):
        yield (
            f"{interface} does not have the address {address} of engine_group_members; correct the"
            " address, or the interface, or declare it in network_addresses"
        )


def unanswered(interface: str, peers: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """Members of an engine group that do not answer there, as `SilentPeers` found."""
    for name, why in found.items():
        who = f"{name} ({peers[name]}), a member of the engine group,"
        if why.startswith("via "):
            yield (
                f"{who} is reached by {why.removeprefix('via ')}, not by {interface}"
                " (engine_group_interface); correct the interface, or its network mask"
            )
        elif why == "unrouted":
            yield f"{who} is in no network of this host; correct its address or a network mask"
        else:
            yield (
                f"{who} does not answer on {interface}; switch it on, or correct its address or"
                " the network between both"
            )


def unlike_members(
    other: str, mine: NvidiaState, theirs: NvidiaState, request: GpuRequest, *, driver: bool
) -> Iterator[str]:
    """Why these hosts cannot compute one model together. `driver`: the site installs the drivers,
    so they must be compared."""
    pair = [computing_gpus(each, request) for each in (mine, theirs)]
    if not all(state.gpus for state in (mine, theirs)):
        # Without a driver, only the ids on the bus are known.
        pair = [_on_the_bus(each, request) for each in (mine, theirs)]
    if all(pair) and pair[0] != pair[1]:
        yield (
            f"its engine group would compute with {_counted(pair[0])} here and"
            f" {_counted(pair[1])} on {other}: each GPU gets an equal part of the model; use equal"
            " GPUs"
        )
    drivers = [{gpu.driver.partition(".")[0] for gpu in state.gpus} for state in (mine, theirs)]
    if driver and all(drivers) and drivers[0] != drivers[1]:
        yield (
            f"the driver is {mine.gpus[0].driver} here and {theirs.gpus[0].driver} on {other}, and"
            " members of an engine group need equal drivers; install the same branch, or set"
            " nvidia_driver_managed = True"
        )


def computing_gpus(state: NvidiaState, request: GpuRequest) -> list[str]:
    """What the engine computes with; empty if it is not known."""
    wanted = request.gpus
    found = [
        f"{gpu.product} ({gib(gpu.memory_bytes)})"
        for gpu in state.gpus
        if isinstance(wanted, int) or {str(gpu.index), gpu.uuid} & {*wanted}
    ]
    return sorted(found) if len(found) == request.count else []


def _on_the_bus(state: NvidiaState, request: GpuRequest) -> list[str]:
    found = [
        f"a GPU with the PCI id 10de:{each.device_id:04x}"
        for each in state.pci
        if is_gpu(each.pci_class)
    ]
    return sorted(found) if len(found) == request.count else []


def _counted(gpus: Sequence[str]) -> str:
    return " and ".join(f"{count} × {each}" for each, count in Counter(gpus).items())


def apart(others: Sequence[str], name: str) -> Iterator[str]:
    """Of a run without these members of the host's engine group."""
    if others:
        limits = " ".join(f"--limit {each}" for each in sorted((*others, name)))
        yield (
            f"{', '.join(others)} of its engine group is not in this run: if the engine changes, it"
            f" waits until they have it, too; to deploy all members together, use {limits}"
        )


def unreachable(silent: Iterable[str], servers: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    """Servers of a gateway that it cannot reach; `servers` are addresses and ports by name."""
    for name in silent:
        yield (
            f"{name} accepts no connection at {' port '.join(map(str, servers[name]))}: deploy the"
            " servers first (--limit), and make sure that their firewall admits this host"
        )


def without_share(share: str, state: str) -> Iterator[str]:
    """Why the site's store of weights cannot be used; `state` continues its path."""
    if state:
        yield (
            f"{share} (model_store_location) {state} on the host; mount the share there, or fill it"
            " with: llmhost model store INVENTORY"
        )


def _wrong_system(identity: HostIdentity, docker_source: str) -> Iterator[str]:
    if identity.version not in SUPPORTED.get(identity.distribution, ()):
        known = "; ".join(f"{name} {', '.join(all_)}" for name, all_ in SUPPORTED.items())
        yield (
            f"the host runs {identity.distribution} {identity.version}; reinstall it with one of:"
            f" {known}"
        )
    elif docker_source and (
        problem := unsupported(docker_source, identity.distribution, identity.version)
    ):
        yield problem
    if identity.package_architecture not in ARCHITECTURES:
        yield (
            f"the host's architecture is {identity.machine}; llmhost requires one of:"
            f" {', '.join(ARCHITECTURES)}"
        )


def _no_power(identity: HostIdentity) -> Iterator[str]:
    if identity.uid != 0:
        yield (
            f"the deploy runs as {identity.user}, not as root; connect as root, or set `_sudo=True`"
            " for the host in the inventory"
        )
    if identity.init != "systemd" and identity.is_wsl:
        yield (
            "systemd is disabled; add [boot] systemd=true to /etc/wsl.conf, run"
            " `wsl.exe --shutdown` in Windows, and start the distribution again"
        )
    elif identity.init != "systemd":
        yield f"process 1 is {identity.init}, not systemd; llmhost requires systemd as init"


def _another_docker(identity: HostIdentity) -> Iterator[str]:
    if identity.docker_of == "snap":
        yield (
            "Docker is installed as a snap, and a second engine beside it would have other"
            " containers and settings; save what its containers need, then run: snap remove docker"
        )
    elif identity.docker_of == "podman":
        yield (
            "the command docker belongs to Podman; remove it with: apt-get remove podman-docker"
            " (Podman itself may stay)"
        )


def _no_ipv6(identity: HostIdentity, listens: Sequence[Address]) -> Iterator[str]:
    wanted = [str(address) for address in listens if address.version == 6]
    if wanted and not identity.ipv6:
        others = [str(address) for address in listens if address.version == 4] or ["0.0.0.0"]  # noqa: S104
        yield (
            f"IPv6 is disabled in the host's kernel, but gateway_addresses has {wanted[0]};"
            f" set gateway_addresses = {others}, or boot without ipv6.disable=1"
        )


def _too_small(
    identity: HostIdentity, min_memory_gib: float, min_free_disk_gib: float
) -> Iterator[str]:
    memory = identity.memory_kib * 1024
    if memory < gib_to_bytes(min_memory_gib):
        yield (
            f"the host has {gib(memory)} of memory and {min_memory_gib:g} GiB are required; add"
            " memory, or lower preflight_min_memory_gib"
        )
    needed = (
        min(FREE_GIB_WHEN_DEPLOYED, min_free_disk_gib) if identity.deployed else min_free_disk_gib
    )
    for path, free_kib in identity.free_kib.items():
        free = free_kib * 1024
        if free < gib_to_bytes(needed):
            yield (
                f"{path} has {gib(free)} free, but images need {needed:g} GiB: free space, move"
                " docker_data_root, or lower preflight_min_free_disk_gib at your own risk"
            )
