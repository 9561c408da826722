"""What `llmhost status` prints for people."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from llmhost.status.report import GpuStatus, HostStatus, RequestsStatus, ServiceStatus
from llmhost.units import MIB, duration, gib

_BAR = 20
_COLORS = {
    "healthy": "green",
    "running": "green",
    "starting": "yellow",
    "stopped": "yellow",
    "unknown": "yellow",
}


def shown(hosts: Sequence[HostStatus]) -> Group:
    """All hosts, one below the other."""
    return Group(*(part for host in hosts for part in (*_host(host), "")))


def _host(host: HostStatus) -> Iterator[RenderableType]:
    if host.status == "error":
        yield Text.from_markup(f"[bold]{escape(host.host)}[/bold]: [red]{escape(host.error)}[/red]")
        return
    yield Text.from_markup(f"[bold]{escape(host.host)}[/bold]  {escape(_summary(host))}")
    if host.services:
        yield _services(host.services)
    if host.gpus:
        yield _gpus(host.gpus)
    if host.requests:
        yield f"  {_requests(host.requests)}"
    yield f"  {escape(_limits(host))}"
    for sentence in host.attention:
        yield Text.from_markup(f"  [yellow]! {escape(sentence)}[/yellow]")


def _summary(host: HostStatus) -> str:
    parts = [host.role, f"up {duration(host.uptime_seconds)}", f"Linux {host.kernel}"]
    parts.append(f"load {host.load:.2f} on {host.processors} processors")
    if host.deploy:
        version = (host.deploy.revision or host.deploy.version)[:8]
        parts.append(f"deployed {host.deploy.begun} by {host.deploy.by} ({version})")
        if not host.deploy.current:
            parts.append("the inventory has changed since")
    if host.plan:
        parts.append(f"plan: {host.plan}")
    return ", ".join(parts)


def _services(services: Sequence[ServiceStatus]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("service", "state", "version", "models", "up", "restarts"):
        table.add_column(
            column, overflow="fold", justify="right" if column == "restarts" else "left"
        )
    for each in services:
        color = _COLORS.get(each.state, "red")
        state = each.stopped if each.state == "stopped" else each.state
        table.add_row(
            escape(each.name),
            f"[{color}]{escape(state)}[/{color}]",
            escape(each.version),
            escape(", ".join(each.models)),
            duration(each.uptime_seconds),
            str(each.restarts),
        )
    return table


def _gpus(gpus: Sequence[GpuStatus]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("GPU", "", "memory", "", "use", "temperature", "power"):
        table.add_column(column, no_wrap=True)
    for each in gpus:
        table.add_row(
            _number(each.index),
            escape(each.name or "–"),
            _bar(each.memory_used_mib, each.memory_total_mib),
            f"{_mib(each.memory_used_mib)} of {_mib(each.memory_total_mib)}",
            f"{_number(each.utilization_percent)} %",
            f"{_number(each.temperature_celsius)} °C",
            f"{_number(each.power_watts)} of {_number(each.power_limit_watts)} W",
        )
    return table


def _bar(used: float | None, total: float | None) -> str:
    if used is None or not total:
        return "–"
    full = round(_BAR * min(1.0, used / total))
    return "█" * full + "░" * (_BAR - full)


def _mib(size: float | None) -> str:
    return gib(None if size is None else size * MIB)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _requests(found: RequestsStatus) -> str:
    text = f"requests in {duration(found.seconds)}: {found.answered} answered"
    for count, word in (
        (found.errors, "errors"),
        (found.refused, "refused"),
        (found.aborted, "aborted"),
    ):
        text += f", {count} {word}" if count else ""
    if found.first_byte_p50_seconds is not None and found.first_byte_p95_seconds is not None:
        p50, p95 = found.first_byte_p50_seconds, found.first_byte_p95_seconds
        text += f"; first byte p50 {1000 * p50:.0f} ms, p95 {1000 * p95:.0f} ms"
    return text


def _limits(host: HostStatus) -> str:
    parts = [
        f"{gib(each.free_bytes)} of {gib(each.size_bytes)} free at {each.path}"
        for each in host.disks
    ]
    if host.certificate_expires:
        parts.append(f"certificate until {host.certificate_expires[:10]}")
    if host.last_backup:
        parts.append(f"backup of {host.last_backup}")
    keys = host.keys_expire or {}
    parts += [f"key of {name} until {time[:10]}" for name, time in [*keys.items()][:3]]
    parts += [f"{len(keys) - 3} more keys expire later"] if len(keys) > 3 else []
    return "; ".join(parts)
