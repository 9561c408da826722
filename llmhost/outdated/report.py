"""What is older than what its source offers, and what an update would change. Pure.

`OutdatedReport` is what `llmhost outdated --json` prints; docs/outdated.schema.json describes it. A
change of these classes changes the schema: increase SCHEMA.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import Literal

from llmhost.inventory.site import SiteHost
from llmhost.nvidia.branches import below_floor, unmaintained
from llmhost.nvidia.data import MATRIX, version
from llmhost.options.container_toolkit import vulnerable

SCHEMA = 1
Kind = Literal["engine", "model", "driver", "toolkit", "docker", "llmhost"]

BAKE = "Stack | Bake the models into the services' images"
RUN = "Stack | Run the declared services"
DRIVER = "NVIDIA driver | Install the NVIDIA driver, load it and hold it"
TOOLKIT = "Container toolkit | Install the NVIDIA container toolkit and configure Docker for it"
"""Steps of `llmhost plan`; a unit test compares them with the tasks."""

PACKAGES: Mapping[Kind, tuple[str, ...]] = {
    "driver": ("nvidia-driver*", "nvidia-open*", "cuda-drivers*", "nvidia-headless*"),
    "toolkit": ("nvidia-container-toolkit",),
    "docker": ("docker-ce", "docker.io", "containerd.io", "containerd"),
}
"""Patterns of packages by what they belong to."""


@dataclass(frozen=True)
class Outdated:
    """Something with a newer version. `hosts` use it; `changes` are steps of `llmhost plan` after
    an update, with what they are about; `update` says how to update; `security` is what is known of
    holes in the current version, or empty. `latest` is empty if only such a note is known."""

    kind: Kind
    name: str
    hosts: tuple[str, ...]
    current: str
    latest: str
    update: str
    changes: tuple[str, ...]
    security: str = ""


@dataclass(frozen=True)
class OutdatedReport:
    """The output of `llmhost outdated --json`. `time` is ISO 8601, UTC. `unreachable` says by
    source, such as a registry or a host, why nothing is known of what it offers. `notes` are
    sentences about the age of what was compared with, such as a host's package lists."""

    schema: int
    time: str
    outdated: tuple[Outdated, ...]
    unreachable: Mapping[str, str]
    notes: tuple[str, ...]


def stack_changes(uses: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What a deploy does if the images of these services, by host, differ."""
    by_host: dict[str, list[str]] = {}
    for host, service in uses:
        by_host.setdefault(host, []).append(service)
    return tuple(
        f"{host}: {step} ({', '.join(dict.fromkeys(services))})"
        for host, services in by_host.items()
        for step in (BAKE, RUN)
    )


@dataclass(frozen=True)
class HostPackages:
    """A host's packages: installed and candidate version by name, the version of the loaded NVIDIA
    driver, when its package lists were updated, and the packages whose candidate is a security
    update."""

    versions: Mapping[str, tuple[str, str]]
    driver: str = ""
    lists: datetime | None = None
    security: frozenset[str] = frozenset()


def packages_of(output: str) -> HostPackages:
    """From the output of files/outdated/packages.sh."""
    versions: dict[str, tuple[str, str]] = {}
    name = installed = driver = shown = ""
    lists, security = None, set()
    for line in output.splitlines():
        if line.startswith("=driver"):
            driver = line.removeprefix("=driver").strip()
        elif line.startswith("=lists"):
            seconds = line.removeprefix("=lists").strip()
            lists = datetime.fromtimestamp(int(seconds), UTC) if seconds else None
        elif match := re.fullmatch(r"(\S+):", line):
            name = match[1]
        elif match := re.fullmatch(r" +Installed: (\S+)", line):
            installed = match[1]
        elif (match := re.fullmatch(r" +Candidate: (\S+)", line)) and match[1] != "(none)":
            versions[name] = (installed, match[1])
        elif match := re.fullmatch(r" (?:\*\*\*|   ) (\S+) -?\d+", line):
            shown = match[1]  # a version, above the archives that have it
        elif name in versions and shown == versions[name][1] and _SECURITY.search(line):
            security.add(name)
    return HostPackages(versions, driver, lists, frozenset(security))


_SECURITY = re.compile(r"^ +-?\d+ \S+ \S+-security/")
"""An archive of security updates, as Debian and Ubuntu name theirs."""


def host_findings(host: SiteHost, found: HostPackages, today: date) -> Iterator[Outdated]:
    """Packages of a host that its package lists have newer versions of."""
    kinds = _by_kind(found.versions)
    driver = _driver_security(found.driver, today)
    for kind, (name, versions) in kinds.items():
        known = {"driver": driver, "toolkit": vulnerable(versions[0])}.get(kind, "")
        if not known and name in found.security and versions[0] != versions[1]:
            known = f"{versions[1]} is a security update of the distribution"
        if known or versions[0] != versions[1]:
            yield _package(host, kind, name, versions, known)
    if driver and "driver" not in kinds:
        yield _package(host, "driver", "NVIDIA driver", (found.driver, ""), driver)


def _by_kind(
    versions: Mapping[str, tuple[str, str]],
) -> dict[Kind, tuple[str, tuple[str, str]]]:
    """A package of each kind, with both versions: the first one that has a newer version."""
    kinds: dict[Kind, tuple[str, tuple[str, str]]] = {}
    for name, both in sorted(versions.items(), key=lambda item: (len({*item[1]}) == 1, item[0])):
        kind = next((k for k, several in PACKAGES.items() if _matches(name, several)), None)
        if kind:
            kinds.setdefault(kind, (name, both))
    return kinds


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _package(
    host: SiteHost, kind: Kind, name: str, versions: tuple[str, str], security: str
) -> Outdated:
    gpu = ", ".join(host.settings.gpu_requests)
    services = ", ".join(host.settings.services)
    changes: tuple[str, ...] = ()
    if kind == "driver":
        update = "set nvidia_driver_branch, or deploy: a deploy upgrades a driver that it has to"
        changes = (f"{host.name}: {DRIVER}", f"{host.name}: services with GPUs restart ({gpu})")
    elif kind == "toolkit":
        update = "set container_toolkit_version"
        changes = (f"{host.name}: {TOOLKIT}",)
    else:
        update = f"sudo apt-get install {name} on the host, or set docker_version"
        changes = (f"{host.name}: containers restart ({services})",) if services else ()
    current, latest = versions
    newer = latest if latest != current else ""
    return Outdated(kind, name, (host.name,), current, newer, update, changes, security)


def _driver_security(driver: str, today: date) -> str:
    if not driver:
        return ""
    reasons = [below_floor(driver), unmaintained(version(driver)[0], today)]
    return "; ".join(filter(None, reasons))


def lists_note(host: str, found: HostPackages, now: datetime) -> str:
    """That the package lists of a host are old; empty if they are not."""
    if found.lists is None:
        return f"{host}: it has no package lists: apt-get update"
    days = (now - found.lists).days
    return f"{host}: its package lists are {days} days old: apt-get update" if days >= 2 else ""


def matrix_note(today: date) -> str:
    """How old the driver bulletins are that llmhost knows."""
    days = (today - MATRIX.checked).days
    text = f"NVIDIA's security bulletins are known as of {MATRIX.checked}"
    return f"{text}, {days} days ago" if days > 60 else ""


def report(
    outdated: Sequence[Outdated], unreachable: Mapping[str, str], notes: Iterable[str]
) -> OutdatedReport:
    """The whole, in the order of kinds."""
    order = ("llmhost", "engine", "model", "driver", "toolkit", "docker")
    ranked = sorted(outdated, key=lambda each: (order.index(each.kind), each.name))
    time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return OutdatedReport(SCHEMA, time, tuple(ranked), unreachable, tuple(filter(None, notes)))


def newer_release(current: str, offered: Iterable[str]) -> str:
    """The newest release among versions such as 0.3.0, if it is newer; pre-releases do not
    count."""
    releases = [each for each in offered if re.fullmatch(r"\d+(\.\d+)*", each)]
    own = tuple(map(int, re.findall(r"\d+", current.partition("+")[0])))
    newer = [each for each in releases if tuple(map(int, each.split("."))) > own]
    return max(newer, key=lambda each: tuple(map(int, each.split(".")))) if newer else ""


def titled(each: Outdated) -> tuple[str, str]:
    """What is outdated, and its versions and hosts, for display."""
    name = f"{each.kind} {each.name}" if each.name != each.kind else each.name
    versions = f"{each.current} → {each.latest}" if each.latest else each.current
    return name, f"{versions} ({', '.join(each.hosts)})" if each.hosts else versions


def announced(found: OutdatedReport) -> str:
    """The report as text."""
    count = len(found.outdated)
    lines = [f"{count} outdated" if count else "Sources of updates could not be reached"]
    for each in found.outdated:
        lines.append(f"- {': '.join(titled(each))}; update: {each.update}")
        lines += [f"  {each.security}"] if each.security else []
    lines += [f"- {source} {why}" for source, why in found.unreachable.items()]
    return "\n".join([*lines, *found.notes])
