"""The state of one host: from the output of its probe to a report. Pure.

`HostStatus` is what `llmhost status --json` prints; docs/status.schema.json describes it. A change
of these classes changes the schema: increase SCHEMA.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from llmhost.backup import without_backup
from llmhost.inventory.site import SiteHost
from llmhost.options.gateway import ApiClient
from llmhost.settings import Settings
from llmhost.units import gib

SCHEMA = 2
EXPIRY = timedelta(days=14)
"""A certificate or key that expires within this time needs attention."""

DISK_FREE_SHARE = 0.10
"""A disk with a smaller share of free space needs attention."""


@dataclass(frozen=True)
class ServiceStatus:
    """A service. `state` is `healthy`, `unhealthy`, `starting`, `running` (it has no health check),
    `stopped` (on purpose; `stopped` says by whom and since when), `missing`, or Docker's state of a
    container that does not run. `version` is that of the declared image; `started` is ISO 8601;
    `restarts` are those by Docker since the container was created."""

    name: str
    state: str
    version: str
    models: tuple[str, ...] = ()
    started: str | None = None
    uptime_seconds: int | None = None
    restarts: int = 0
    stopped: str = ""
    error: str = ""


@dataclass(frozen=True)
class GpuStatus:
    """A GPU, as nvidia-smi reports it; null: it does not report the value."""

    index: int | None
    name: str | None
    memory_used_mib: float | None
    memory_total_mib: float | None
    utilization_percent: float | None
    temperature_celsius: float | None
    power_watts: float | None
    power_limit_watts: float | None


@dataclass(frozen=True)
class RequestsStatus:
    """Requests to the gateway in the last `seconds`. `errors`: the gateway or an engine failed, or
    the engine refused the request. `refused`: the gateway refused it. `aborted`: the client closed
    the connection early. First byte: of successful POST requests."""

    seconds: int
    answered: int
    errors: int
    refused: int
    aborted: int
    first_byte_p50_seconds: float | None
    first_byte_p95_seconds: float | None


@dataclass(frozen=True)
class DiskStatus:
    """A file system, by one of its paths."""

    path: str
    size_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class DeployStatus:
    """The last run that changed the host. `begun` is ISO 8601, UTC; `result` is `done`, `failed` or
    `cut off`. `current`: the settings in the inventory are those of the last receipt."""

    begun: str
    by: str
    result: str
    version: str
    revision: str | None
    current: bool


@dataclass(frozen=True)
class HostStatus:
    """One host. `status` is `ok`, `attention`, or `error`: the host could not be reached or read.
    `attention` are sentences about what an operator should do something about. `last_backup` is the
    time of the last successful backup by `llmhost backup`, ISO 8601."""

    host: str
    status: Literal["ok", "attention", "error"]
    role: str = ""
    attention: tuple[str, ...] = ()
    error: str = ""
    uptime_seconds: int = 0
    kernel: str = ""
    load: float = 0
    processors: int = 0
    services: tuple[ServiceStatus, ...] = ()
    gpus: tuple[GpuStatus, ...] = ()
    requests: RequestsStatus | None = None
    disks: tuple[DiskStatus, ...] = ()
    certificate_expires: str | None = None
    keys_expire: Mapping[str, str] | None = None
    last_backup: str | None = None
    reboot_pending: bool = False
    reboot_packages: tuple[str, ...] = ()
    deploy: DeployStatus | None = None
    plan: str | None = None


@dataclass(frozen=True)
class StatusReport:
    """The output of `llmhost status --json`."""

    schema: int
    hosts: tuple[HostStatus, ...]


def unreadable(host: str, error: str) -> HostStatus:
    """A host that could not be reached or read."""
    return HostStatus(host, "error", error=error)


def host_status(host: SiteHost, output: str) -> HostStatus:
    """From the output of the probe."""
    try:
        found: dict[str, Any] = json.loads(output)
    except ValueError:
        return unreadable(host.name, "the probe printed no result")
    settings, now = host.settings, datetime.fromtimestamp(found["now"], UTC)
    backup = datetime.fromtimestamp(found["backup"]["time"], UTC) if found["backup"] else None
    certificate = found["certificate_expires"]
    end = datetime.fromtimestamp(certificate, UTC) if certificate else None
    keys = _expiries(settings.api_clients)
    status = HostStatus(
        host.name,
        "ok",
        role=host.role.value,
        uptime_seconds=found["uptime_seconds"],
        kernel=found["kernel"],
        load=round(found["load"], 2),
        processors=found["processors"],
        services=tuple(_services(settings, found, now)),
        gpus=tuple(GpuStatus(*each.values()) for each in found["gpus"] or ()),
        requests=_requests(found["requests"]),
        disks=tuple(DiskStatus(**each) for each in found["disks"]),
        certificate_expires=_iso(end) if end else None,
        keys_expire={name: _iso(time) for name, time in keys.items()},
        last_backup=_iso(backup) if backup else None,
        reboot_pending=found["reboot"] is not None,
        reboot_packages=tuple(found["reboot"] or ()),
        deploy=_deploy(settings, found),
    )
    attention = [*_unit_findings(found), *_findings(status, end, keys, now)]
    late = timedelta(seconds=settings.backup.late_seconds)
    if not without_backup(host) and (backup is None or now - backup > late):
        age = f"is {(now - backup).days} days old" if backup else "has not been made yet"
        attention.append(f"the last backup {age}: llmhost backup INVENTORY {host.name}")
    return with_attention(status, attention)


def with_attention(status: HostStatus, sentences: Sequence[str]) -> HostStatus:
    """The status with further sentences that need attention."""
    if not sentences:
        return status
    return replace(status, status="attention", attention=(*status.attention, *sentences))


def _expiries(clients: Sequence[ApiClient]) -> dict[str, datetime]:
    """When the keys of clients expire, soonest first; revoked clients are left out."""
    ends = {each.name: each.expires for each in clients if each.expires and not each.revoked}
    return dict(sorted(ends.items(), key=lambda item: item[1]))


def _services(settings: Settings, found: Mapping[str, Any], now: datetime) -> list[ServiceStatus]:
    containers = {each["service"]: each for each in found["containers"] or ()}
    services = []
    for name in settings.services:
        bare = ServiceStatus(
            name,
            "unknown" if found["docker_error"] else "missing",
            _version(settings.options(name).image),
            tuple(model.name for model in settings.models_of(name)),
            stopped=found["stopped"].get(name, ""),
        )
        services.append(_service(bare, containers.get(name), now))
    return services


def _service(
    bare: ServiceStatus, container: Mapping[str, Any] | None, now: datetime
) -> ServiceStatus:
    runs = container is not None and container["state"] == "running"
    if container is None or (bare.stopped and not runs):
        return replace(bare, state="stopped" if bare.stopped else bare.state)
    if not runs:
        error = container["error"] or f"its process ended with {container['exit_code']}"
        return replace(bare, state=container["state"], error=error, restarts=container["restarts"])
    started = datetime.fromisoformat(container["started"][:19] + "+00:00")
    return replace(
        bare,
        state=container["health"] or "running",
        started=_iso(started),
        uptime_seconds=max(0, int((now - started).total_seconds())),
        restarts=container["restarts"],
    )


def _version(image: str) -> str:
    """The tag of an image reference, or the beginning of its digest."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or digest.removeprefix("sha256:")[:12]


def _requests(found: Mapping[str, Any] | None) -> RequestsStatus | None:
    if found is None:
        return None
    counts = {key: found[key] for key in ("seconds", "answered", "errors", "refused", "aborted")}
    return RequestsStatus(
        **counts,
        first_byte_p50_seconds=found["first_byte_p50"],
        first_byte_p95_seconds=found["first_byte_p95"],
    )


def _deploy(settings: Settings, found: Mapping[str, Any]) -> DeployStatus | None:
    run, receipt = found["run"], found["receipt"] or {}
    if not run:
        return None
    return DeployStatus(
        begun=run["begun"],
        by=run["by"],
        result=run["result"],
        version=run["version"],
        revision=run["revision"],
        current=receipt.get("settings") == settings.digest,
    )


def _unit_findings(found: Mapping[str, Any]) -> list[str]:
    sentences = [
        f"{unit.removesuffix('.service')} is not running ({state}): to see why, run llmhost"
        " plan INVENTORY"
        for unit, state in found["units"].items()
        if state != "active"
    ]
    if found["docker_error"]:
        sentences.append(f"Docker does not answer: {found['docker_error'].splitlines()[0]}")
    if found["gpu_error"]:
        sentences.append(f"nvidia-smi fails: {found['gpu_error']}")
    return sentences


def _findings(
    status: HostStatus, end: datetime | None, keys: Mapping[str, datetime], now: datetime
) -> list[str]:
    fine = ("healthy", "running", "starting", "stopped", "unknown")
    sentences = [
        f"{each.name} is {each.state}" + (f": {each.error}" if each.error else "")
        for each in status.services
        if each.state not in fine
    ]
    sentences += [
        f"{each.name} runs, although it was {each.stopped}"
        for each in status.services
        if each.stopped and each.state != "stopped"
    ]
    if end and (word := expiry(end, now)):
        sentences.append(f"the certificate {word}: a deploy renews it")
    sentences += [
        f"the key of {name} {word}: llmhost key rotate {name} FILE"
        for name, time in keys.items()
        if (word := expiry(time, now))
    ]
    sentences += [
        f"{each.path} has only {gib(each.free_bytes)} of {gib(each.size_bytes)} left"
        for each in status.disks
        if each.free_bytes < DISK_FREE_SHARE * each.size_bytes
    ]
    if status.reboot_pending:
        packages = f" ({', '.join(status.reboot_packages)})" if status.reboot_packages else ""
        sentences.append(f"a reboot is pending{packages}")
    if status.deploy is None:
        sentences.append("no deploy has changed this host yet")
    elif status.deploy.result != "done":
        how = "failed" if status.deploy.result == "failed" else "was interrupted"
        sentences.append(f"the last deploy {how}: deploy again")
    return sentences


def expiry(end: datetime, now: datetime) -> str:
    """`expires` or `has expired` and the date; empty if there is more time than EXPIRY."""
    if end - now > EXPIRY:
        return ""
    return f"{'expires' if end > now else 'has expired'} {end:%Y-%m-%d %H:%M} UTC"


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
