"""The check before the first change."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from pyinfra import host
from pyinfra.api import Host, StringCommand
from pyinfra.api.exceptions import FactProcessError

from llmhost.docker.containerd import refused_moves
from llmhost.docker.packages import other_engine
from llmhost.facts.docker import EngineRootsFact, OtherContainers
from llmhost.facts.listeners import Listeners
from llmhost.facts.model_store import ShareState
from llmhost.facts.network import HostNetworking, SilentPeers
from llmhost.facts.nginx import OtherSites
from llmhost.facts.system import HostIdentityFact, HostTime
from llmhost.facts.upstreams import SilentUpstreams
from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.nvidia.plan import DriverPolicy, impossible
from llmhost.nvidia.state import NvidiaState
from llmhost.operations.changes import note, refuse
from llmhost.operations.connection_arguments import connection_arguments
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.host_channel import LOST
from llmhost.operations.nvidia_packages import nvidia_question, read_state
from llmhost.preflight import (
    Requirements,
    apart,
    findings,
    in_swarm,
    not_in_group,
    occupied,
    replaced_engine,
    unanswered,
    unlike_members,
    unreachable,
    without_share,
)
from llmhost.system.listeners import taken


@dataclass(frozen=True)
class GatewayPlan:
    """A gateway that a host will run: `directory` is that of its configuration, with the marks of
    drained servers; `servers` are the addresses and ports behind it, by name."""

    directory: str
    replaces_nginx: bool
    servers: Mapping[str, tuple[str, int]]


@dataclass(frozen=True)
class GroupPlan:
    """An engine group of a host. `address` must be there, and `peers`, addresses by name, must
    answer on the interface; both without what the deploy itself will set. `members` are the others,
    which compute with equal GPUs; `driver`: the site installs their drivers."""

    interface: str
    address: IPv4Address | None
    peers: Mapping[str, str]
    members: tuple[str, ...]
    request: GpuRequest
    driver: bool = False


def _prefetch(
    requirements: Requirements,
    *,
    paths: list[str],
    receipt: str,
    roots: tuple[str, str] | None = None,
    gateway: GatewayPlan | None = None,
    group: GroupPlan | None = None,
    share: str = "",
    **_: object,
) -> list[Question]:
    """Not the clock, which is compared with the controller's."""
    questions = [ask(HostIdentityFact, paths=paths, receipt=receipt)]
    questions += [_roots_question(*roots)] if roots else []
    questions += [_containers_question(requirements)] if requirements.docker_source else []
    if requirements.ports:
        questions.append(_listeners_question(requirements))
    questions += _questions_of_group(group) if group else []
    questions += [ask(ShareState, share=share)] if share else []
    if gateway and not gateway.replaces_nginx:
        questions.append(_sites_question(gateway))
    if gateway and gateway.servers:
        questions.append(_silent_question(gateway))
    return questions


def _questions_of_group(group: GroupPlan) -> list[Question]:
    of_host = [ask(HostNetworking)] if group.address else []
    return [*of_host, _peers_question(group), nvidia_question(wanted=True)]


def _peers_question(group: GroupPlan) -> Question:
    return ask(SilentPeers, interface=group.interface, peers=group.peers)


def _roots_question(docker: str, containerd: str) -> Question:
    return ask(EngineRootsFact, docker=docker, containerd=containerd)


def _containers_question(requirements: Requirements) -> Question:
    return ask(OtherContainers, package=other_engine(requirements.docker_source))


def _listeners_question(requirements: Requirements) -> Question:
    return ask(Listeners, ports=sorted({each.port for each in requirements.ports}))


def _sites_question(gateway: GatewayPlan) -> Question:
    return ask(OtherSites, directory=gateway.directory)


def _silent_question(gateway: GatewayPlan) -> Question:
    return ask(SilentUpstreams, servers=gateway.servers, marks=gateway.directory)


@declared(prefetch=_prefetch)
def fit(
    requirements: Requirements,
    *,
    paths: list[str],
    receipt: str,
    roots: tuple[str, str] | None = None,
    gateway: GatewayPlan | None = None,
    gpus: DriverPolicy | None = None,
    group: GroupPlan | None = None,
    share: str = "",
) -> Commands:
    """Refuse the host, with all reasons, if it does not meet the requirements.

    `roots` are the directories of Docker and containerd. `gpus` are the services' requirements for
    its GPUs, which are read only if there are any. Those that cannot be met are a warning: they
    stop only what needs the GPUs (docs/decisions/0087). None: the host runs no services. `group` is
    its engine group. `share` is the directory of the site's store of weights, empty without one.
    Servers behind a gateway and members of the group that do not answer, members that differ, ports
    that other programs use, and a share that is not mounted are a warning once the host is
    deployed: its keys must remain changeable meanwhile.
    """
    identity = get_fact(HostIdentityFact, paths=paths, receipt=receipt)
    if identity is None:
        yield refuse(["the host could not be read; see the lines above for the reason"])
        return
    skew = get_fact(HostTime) - time.time()
    wrong = [*findings(identity, requirements, skew_seconds=skew)]
    wrong += _elsewhere(*roots, live_restore=requirements.live_restore) if roots else ()
    if requirements.docker_source and not identity.deployed:
        wrong += _replaced(requirements)
    warnings: list[str] = []
    found = warnings if identity.deployed else wrong
    if group:
        wrong += _without_interface(group)
        found += _unfit_members(group)
        warnings += apart([name for name in group.members if not _in_run(name)], host.name)
    found += _taken_ports(requirements)
    found += without_share(share, get_fact(ShareState, share=share)) if share else ()
    if gateway:
        if not gateway.replaces_nginx:
            wrong += occupied(get_fact(OtherSites, **_sites_question(gateway).arguments))
        found += _silent_servers(gateway)
    if wrong:
        yield refuse(wrong)
        return
    if gpus and gpus.requests and host.state.is_executing and (state := read_state(wanted=True)):
        warnings += impossible(gpus, state)
    note(warnings)


def _elsewhere(docker: str, containerd: str, *, live_restore: bool) -> Iterator[str]:
    found = get_fact(EngineRootsFact, **_roots_question(docker, containerd).arguments)
    yield from refused_moves(found.moves, docker, containerd)
    if found.swarm:
        yield from in_swarm(live_restore=live_restore)


def _replaced(requirements: Requirements) -> Iterator[str]:
    """A host that llmhost has deployed may change its source."""
    found = get_fact(OtherContainers, **_containers_question(requirements).arguments)
    return replaced_engine(requirements.docker_source, found)


def _without_interface(group: GroupPlan) -> Iterator[str]:
    if group.address:
        yield from not_in_group(group.interface, group.address, get_fact(HostNetworking))


def _unfit_members(group: GroupPlan) -> Iterator[str]:
    """Members that do not answer; and the first of those in this run that is unlike this host."""
    silent = get_fact(SilentPeers, **_peers_question(group).arguments)
    yield from unanswered(group.interface, group.peers, silent)
    mine = read_state(wanted=True)
    for name in filter(_in_run, group.members if mine else ()):
        theirs = _state_of(host.state.inventory.get_host(name))
        if mine and theirs:
            different = [*unlike_members(name, mine, theirs, group.request, driver=group.driver)]
            if different:
                yield from different
                return


def _in_run(name: str) -> bool:
    return any(each.name == name for each in host.state.active_hosts)


def _state_of(other: Host) -> NvidiaState | None:
    """The hardware of another host of this run; None if it cannot be read now."""
    question = nvidia_question(wanted=True)
    assert question.command, "it needs no program of its own"
    try:
        command = StringCommand(question.command)
        succeeded, output = other.run_shell_command(command, **connection_arguments(other))
        found: NvidiaState | None = question.value(output.stdout_lines) if succeeded else None
    except (FactProcessError, *LOST):
        return None
    return found


def _taken_ports(requirements: Requirements) -> Iterator[str]:
    if requirements.ports:
        listeners = get_fact(Listeners, **_listeners_question(requirements).arguments)
        yield from taken(requirements.ports, listeners)


def _silent_servers(gateway: GatewayPlan) -> Iterator[str]:
    if gateway.servers:
        silent = get_fact(SilentUpstreams, **_silent_question(gateway).arguments)
        yield from unreachable(silent, gateway.servers)
