"""GPUs over time, from the Prometheus of a monitoring server. Pure."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmhost.resources import FILES

SCHEMA = 1
POINTS = 96
"""Values of each GPU and figure, over the whole time."""

_FIGURES = {
    "utilization_percent": "DCGM_FI_DEV_GPU_UTIL",
    "memory_used_mib": "DCGM_FI_DEV_FB_USED",
    "temperature_celsius": "DCGM_FI_DEV_GPU_TEMP",
    "power_watts": "DCGM_FI_DEV_POWER_USAGE",
}
"""Metrics of NVIDIA's DCGM exporter, which files/monitoring/gpus.py has, too."""

Values = tuple[float | None, ...]
"""The mean of each step of the time; None where nothing is known."""


@dataclass(frozen=True)
class GpuHistory:
    """One GPU over the time of a report. `name` is its model."""

    host: str
    index: int
    uuid: str
    name: str
    utilization_percent: Values = ()
    memory_used_mib: Values = ()
    temperature_celsius: Values = ()
    power_watts: Values = ()


@dataclass(frozen=True)
class GpuHistoryReport:
    """What `llmhost gpus --json` prints. Times are in Unix seconds; value i of a GPU is the mean of
    the `step_seconds` before `begin + i * step_seconds`."""

    schema: int
    monitoring_server: str
    begin: int
    end: int
    step_seconds: int
    gpus: tuple[GpuHistory, ...] = ()


@dataclass(frozen=True)
class Span:
    """A time until `end`, in Unix seconds, in steps of at least the interval of the metrics."""

    end: int
    seconds: int
    interval_seconds: int

    @property
    def step(self) -> int:
        """Seconds between two values."""
        return max(self.interval_seconds, self.seconds // POINTS)

    @property
    def begin(self) -> int:
        """The time of the first value."""
        return self.end - self.seconds // self.step * self.step


def history_command(span: Span, port: int) -> str:
    """Shell command for the monitoring server; it prints what `gpu_histories` reads."""
    # A step has at least two samples, or a value on its edge would be missing.
    mean = max(span.step, 2 * span.interval_seconds)
    queries = {
        figure: f"max by (instance, gpu, UUID, modelName) (avg_over_time({metric}[{mean}s]))"
        for figure, metric in _FIGURES.items()
    }
    asked = {
        "port": port,
        "begin": span.begin,
        "end": span.end,
        "step": span.step,
        "queries": queries,
    }
    script = (FILES / "monitoring/query.py").read_text(encoding="utf-8")
    return f"python3 -I -c {shlex.quote(script)} {shlex.quote(json.dumps(asked))}"


def gpu_histories(span: Span, printed: str, hosts: Sequence[str]) -> tuple[GpuHistory, ...]:
    """The GPUs of these hosts, by host and number."""
    found: dict[tuple[str, int], GpuHistory] = {}
    for figure, series in json.loads(printed).items():
        for each in series:
            labels = each["metric"]
            host, index = labels["instance"], int(labels["gpu"])
            new = GpuHistory(host, index, labels.get("UUID", ""), labels.get("modelName", ""))
            known = found.get((host, index), new)
            values: dict[str, Any] = {figure: _values(span, each)}
            found[host, index] = replace(known, **values)
    return tuple(found[key] for key in sorted(found) if key[0] in hosts)


def _values(span: Span, series: Mapping[str, Any]) -> Values:
    by_time = {round(float(time)): float(value) for time, value in series["values"]}
    return tuple(by_time.get(time) for time in range(span.begin, span.end + 1, span.step))


def mean(values: Values) -> float | None:
    """The mean of what is known."""
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known else None


def highest(values: Values) -> float | None:
    """The highest of what is known."""
    return max((each for each in values if each is not None), default=None)
