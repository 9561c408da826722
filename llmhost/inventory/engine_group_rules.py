"""Mistakes in engine groups: within one host's options, and between the members."""

from collections import Counter
from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.inventory.site import Site, SiteHost, servers_of
from llmhost.options.engine_group import EngineGroup
from llmhost.secret import read_secret
from llmhost.services.base import flag_of, is_short_for
from llmhost.services.vllm import OF_A_HOST, VllmOptions, parallel_over
from llmhost.settings import Settings
from llmhost.units import counted

_MEMBERS, _HEAD = "engine_group_members", "engine_group_head"
_TOKEN = "engine_group_token"  # noqa: S105 -- the name of an option
_LEAST_TOKEN = 32
_SAME = "declare the same group for all members"

_OF_GROUPS = (
    "--distributed-executor-backend",
    "--data-parallel",
    "-dp",
    "--nnodes",
    "-n",
    "--node-rank",
    "-r",
    "--master-",
    "--headless",
    "--host",
    "--port",
)
"""Beginnings of arguments that the group decides."""


def engine_group_problems(settings: Settings) -> Iterator[Problem]:
    """Mistakes that one host's options show."""
    group = settings.engine_group
    if not group.members:
        given = sorted(group.model_fields_set - {"members"})
        if given:
            fix = "write each member with its address, such as {'llm-a': '10.9.0.1'}"
            yield Problem(_MEMBERS, f"is missing, and engine_group_{given[0]} is declared", fix)
        return
    yield from _unfit_members(settings)
    yield from _unfit_token(group)
    if not settings.firewall.enabled:
        what = "is False, and the ports of an engine group must be closed to all but its members"
        yield Problem("firewall_enabled", what, "remove it")
    options = settings.service_options.get("vllm")
    if not isinstance(options, VllmOptions):
        what = "lack 'vllm', which is the engine of a group"
        yield Problem("services", what, "add 'vllm', or remove engine_group_members")
        return
    yield from _unfit_options(settings, options)


def _unfit_members(settings: Settings) -> Iterator[Problem]:
    group = settings.engine_group
    names = ", ".join(group.names)
    if len(group.members) < 2:
        yield Problem(_MEMBERS, "has one host", "add another one, or remove the group")
    for address, count in Counter(group.members.values()).items():
        if count > 1:
            what = f"has {address} for {counted(count, 'host')}"
            yield Problem(_MEMBERS, what, "write each host's own address")
    for name, address in group.members.items():
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            what = f"has {address} for {name}, which others cannot reach"
            yield Problem(_MEMBERS, what, "write its address on the interface that they share")
    if settings.member and settings.member not in group.members:
        what = f"lacks this host; it has {names}"
        yield Problem(_MEMBERS, what, "add it, or declare no group for it")
    if group.head is None:
        what = "is missing, so no member would answer requests"
        yield Problem(_HEAD, what, f"write one of: {names}")
    elif group.head not in group.members:
        yield Problem(_HEAD, f"'{group.head}' is not a member", f"write one of: {names}")
    if group.interface is None:
        what = "is missing, so the firewall could not tell members from others"
        fix = "write the interface that has the member's address, such as 'eth1'"
        yield Problem("engine_group_interface", what, fix)


def _unfit_token(group: EngineGroup) -> Iterator[Problem]:
    fix = "create it with: (umask 077; openssl rand -hex 32 > secrets/engine-group), and write"
    fix += " file:secrets/engine-group"
    if group.token is None:
        what = "is missing, so everyone who reaches Ray could run programs in the container"
        yield Problem(_TOKEN, what, fix)
        return
    try:
        secret = read_secret(group.token)
    except ValueError as error:
        yield Problem(_TOKEN, str(error), fix)
        return
    if len(secret) < _LEAST_TOKEN:
        what = f"has {len(secret)} characters, and {_LEAST_TOKEN} are required"
        yield Problem(_TOKEN, what, fix)


def _unfit_options(settings: Settings, options: VllmOptions) -> Iterator[Problem]:
    group = settings.engine_group
    if options.gpu_request is None:
        what = "is missing, and an engine group runs on the GPUs of its members"
        yield Problem("vllm_gpu", what, "write the GPUs of each member, such as [0, 1]")
    if options.port is None:
        what = "is missing, and the head's gateway needs it"
        yield Problem("vllm_port", what, "write a port, such as 8000")
    if group.tensor_parallel and options.tensor_parallel:
        what = "and engine_group_tensor_parallel are both set"
        yield Problem("vllm_tensor_parallel", what, "remove it")
    for argument in options.extra_arguments:
        flag = flag_of(argument)
        if flag.startswith(_OF_GROUPS) or any(is_short_for(flag, name) for name in _OF_GROUPS):
            what = f"has {argument.partition('=')[0]}, which the engine group decides"
            yield Problem("vllm_extra_arguments", what, "remove it")
    for name, others in settings.service_options.items():
        if "vllm" in others.needed_services:
            what = f"'{name}' calls 'vllm' in the stack's network, where an engine group is not"
            fix = f"set the URL of '{name}' to that of the head's gateway"
            yield Problem("services", what, fix)
    parallel, gpus = parallel_over(group, options), options.gpus * len(group.members)
    if parallel.gpus != gpus:
        what = f"use {parallel.tensor} × {parallel.pipeline} = {counted(parallel.gpus, 'GPU')}"
        yield Problem(
            "engine_group_tensor_parallel",
            f"and engine_group_pipeline_parallel {what}, and the {len(group.members)} members have"
            f" {gpus}",
            f"write numbers whose product is {gpus}, or remove both",
        )


def group_problems(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Mistakes between the members, and between a group and the gateways in front of it.

    Of two members that differ, the mistake is that of the one with the later name.
    """
    yield from _computing_servers(host, site)
    group = host.settings.engine_group
    for name in group.names if host.name in group.members else ():
        if name not in site:
            what = f"has '{name}', which is not a valid host of this inventory"
            yield Problem(_MEMBERS, what, f"write names such as {', '.join(sorted(site))}")
    for other in sorted(site.values(), key=lambda each: each.name):
        theirs = other.settings.engine_group
        if other is host or not (host.name in theirs.members or other.name in group.members):
            continue
        if not group.members:
            what = f"is missing, and {other.name} has this host in its group"
            yield Problem(_MEMBERS, what, _SAME)
            return
        is_compared = other.name < host.name and theirs.members
        if is_compared and (found := [*_differences(host.settings, other)]):
            yield from found
            return


def _differences(settings: Settings, other: SiteHost) -> Iterator[Problem]:
    group, theirs = settings.engine_group, other.settings.engine_group
    if group.members != theirs.members:
        what = f"has {_names(group)}, and {other.name} {_names(theirs)}: a host is in one group"
        yield Problem(_MEMBERS, what, _SAME)
    elif group.head != theirs.head:
        what = f"is {group.head}, and {other.name} says {theirs.head}: a group has one head"
        yield Problem(_HEAD, what, _SAME)
    elif unlike := _unlike_groups(group, theirs):
        yield Problem(unlike, f"is not as {other.name} declares it", _SAME)
    else:
        yield from _unequal(settings, other)


def _names(group: EngineGroup) -> str:
    return ", ".join(f"{name} {group.members[name]}" for name in sorted(group.members))


def _unlike_groups(one: EngineGroup, other: EngineGroup) -> str:
    """The first option that must be the same and is not; empty: they are."""
    for option in EngineGroup.model_fields:
        if option != "interface" and getattr(one, option) != getattr(other, option):
            return f"engine_group_{option}"
    return ""


def _unequal(settings: Settings, other: SiteHost) -> Iterator[Problem]:
    mine, theirs = settings.service_options.get("vllm"), other.settings.service_options.get("vllm")
    if not isinstance(mine, VllmOptions) or not isinstance(theirs, VllmOptions):
        return
    if mine.gpus != theirs.gpus:
        what = f"has {counted(mine.gpus, 'GPU')}, and {other.name} {theirs.gpus}"
        yield Problem("vllm_gpu", what, "give each member equally many")
    sizes, other_sizes = settings.vram.gpus_gib, other.settings.vram.gpus_gib
    if sizes and other_sizes and sizes != other_sizes:
        what = (
            f"is {_listed(sizes)}, and that of {other.name} {_listed(other_sizes)}: each GPU gets"
        )
        yield Problem("vram_gpus_gib", f"{what} an equal part of the model", "use equal GPUs")
    driver, other_driver = settings.nvidia_driver, other.settings.nvidia_driver
    for option in ("managed", "branch", "module"):
        if getattr(driver, option) != getattr(other_driver, option):
            what = f"is not that of {other.name}, and members need equal drivers"
            yield Problem(f"nvidia_driver_{option}", what, "declare the same for all members")
    different = {*_different(mine, theirs)}
    for option in sorted(different):
        what = f"is not that of {other.name}, and members run one engine"
        yield Problem(f"vllm_{option}", what, "declare the same for all members")
    if settings.models_of("vllm") != other.settings.models_of("vllm"):
        what = f"for 'vllm' are not those of {other.name}, and members compute one model"
        yield Problem("models", what, "declare the same model, with the same pins")


def _different(one: VllmOptions, other: VllmOptions) -> Iterator[str]:
    for option in VllmOptions.model_fields:
        if option not in OF_A_HOST and getattr(one, option) != getattr(other, option):
            yield option


def _listed(sizes: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{each:g}' for each in sizes)}]"


def _computing_servers(host: SiteHost, site: Site) -> Iterator[Problem]:
    for server in host.settings.gateway.upstreams:
        for behind in servers_of(server, site):
            if head := behind.settings.only_computes_for:
                who = (
                    server.name if server.name == behind.name else f"{server.name} ({behind.name})"
                )
                what = f"has {who}, which only computes for {head}"
                yield Problem("gateway_upstreams", what, f"list {head} instead")
