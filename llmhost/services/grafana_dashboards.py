"""Grafana's dashboards as code: hosts, GPUs, the gateway by client, models.

Each is a list of panels with queries of Prometheus, rendered as Grafana stores a dashboard
(grafana/grafana, kinds/dashboard/dashboard_kind.cue). Pure.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from llmhost.system.files import File

SOURCE = {"type": "prometheus", "uid": "prometheus"}
SCHEMA = 39
"""schemaVersion of Grafana 11; newer versions read it."""

_COLUMNS, _HEIGHT = 24, 8
_AT = 'instance=~"$instance"'
_DISK = 'fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|fuse.*|9p"'
_NIC = 'device!~"lo|veth.*|br-.*|docker.*|virbr.*"'
_LLAMA = "{{instance}} llama.cpp {{model}}"
"""Several models of a host have the label `model`; a single one has none."""
_IDLE = ',mode="idle"'
_RATE = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """Curves, or current values as numbers. `queries` are expressions with legends; `unit` is one
    of Grafana's."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    maximum: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Dashboard:
    """A page of panels, for the hosts that are chosen at its top."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def _p95(histogram: str, by: str, more: str = "") -> str:
    return _quantile(0.95, histogram, by, more)


def _quantile(share: float, histogram: str, by: str, more: str = "") -> str:
    rate = f"rate({histogram}_bucket{{{_AT}{more}}}[{_RATE}])"
    return f"histogram_quantile({share}, sum by (le, {by}) ({rate}))"


def _rate(counter: str, by: str = "", more: str = "") -> str:
    rate = f"rate({counter}{{{_AT}{more}}}[{_RATE}])"
    return f"sum by ({by}) ({rate})" if by else rate


_HOST, _GPU, _MODEL = "{{instance}}", "{{instance}} {{gpu}}", "{{instance}} {{model_name}}"

HOSTS = Dashboard(
    "llmhost-hosts",
    "Hosts",
    (
        Panel("Alerts", (('sum(ALERTS{alertstate="firing"}) or vector(0)', ""),), kind="stat"),
        Panel(
            "Backups: time since the last one",
            ((f"time() - (llmhost_backup_last_success_seconds{{{_AT}}} > 0)", _HOST),),
            "s",
            "stat",
        ),
        Panel(
            "Certificates: time left",
            ((f"llmhost_certificate_expires_seconds{{{_AT}}} - time()", _HOST),),
            "s",
            "stat",
        ),
        Panel(
            "Healthy services",
            ((f"llmhost_service_healthy{{{_AT}}}", "{{instance}} {{service}}"),),
            "bool_yes_no",
            "stat",
            width=24,
        ),
        Panel(
            "Processors",
            ((f"1 - avg by (instance) ({_rate('node_cpu_seconds_total', more=_IDLE)})", _HOST),),
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Memory",
            (
                (
                    f"1 - node_memory_MemAvailable_bytes{{{_AT}}}"
                    f" / node_memory_MemTotal_bytes{{{_AT}}}",
                    _HOST,
                ),
            ),
            "percentunit",
            maximum=1,
        ),
        Panel("Load", ((f"node_load1{{{_AT}}}", _HOST),)),
        Panel(
            "Free disk space",
            (
                (
                    f"node_filesystem_avail_bytes{{{_AT},{_DISK}}}"
                    f" / node_filesystem_size_bytes{{{_AT},{_DISK}}}",
                    "{{instance}} {{mountpoint}}",
                ),
            ),
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Disks",
            (
                (_rate("node_disk_read_bytes_total", "instance"), f"{_HOST} read"),
                (_rate("node_disk_written_bytes_total", "instance"), f"{_HOST} written"),
            ),
            "Bps",
        ),
        Panel(
            "Network",
            (
                (
                    _rate("node_network_receive_bytes_total", "instance", f",{_NIC}"),
                    f"{_HOST} received",
                ),
                (
                    _rate("node_network_transmit_bytes_total", "instance", f",{_NIC}"),
                    f"{_HOST} sent",
                ),
            ),
            "Bps",
        ),
    ),
)

GPUS = Dashboard(
    "llmhost-gpus",
    "GPUs",
    (
        Panel("GPUs that answer", ((f"llmhost_gpus{{{_AT}}}", _HOST),), kind="stat", width=24),
        Panel(
            "Memory",
            (
                (
                    f"DCGM_FI_DEV_FB_USED{{{_AT}}}"
                    f" / (DCGM_FI_DEV_FB_USED{{{_AT}}} + DCGM_FI_DEV_FB_FREE{{{_AT}}})",
                    _GPU,
                ),
            ),
            "percentunit",
            maximum=1,
        ),
        Panel("Computing", ((f"DCGM_FI_DEV_GPU_UTIL{{{_AT}}}", _GPU),), "percent", maximum=100),
        Panel(
            "Memory accesses",
            ((f"DCGM_FI_DEV_MEM_COPY_UTIL{{{_AT}}}", _GPU),),
            "percent",
            maximum=100,
        ),
        Panel("Temperature", ((f"DCGM_FI_DEV_GPU_TEMP{{{_AT}}}", _GPU),), "celsius"),
        Panel("Power", ((f"DCGM_FI_DEV_POWER_USAGE{{{_AT}}}", _GPU),), "watt"),
        Panel("Clock", ((f"DCGM_FI_DEV_SM_CLOCK{{{_AT}}} * 1000000", _GPU),), "hertz"),
        Panel(
            "Slowed down by",
            ((f"llmhost_gpu_throttled{{{_AT}}}", f"{_GPU} {{{{reason}}}}"),),
            width=24,
            text="1 while it keeps the GPU below the clocks that were requested.",
        ),
    ),
)

GATEWAY = Dashboard(
    "llmhost-gateway",
    "Gateway",
    (
        Panel(
            "Requests by client",
            ((_rate("gateway_requests_total", "client"), "{{client}}"),),
            "reqps",
        ),
        Panel(
            "Answers by status",
            ((_rate("gateway_requests_total", "status"), "{{status}}"),),
            "reqps",
        ),
        Panel(
            "Refused requests by client",
            (
                (
                    _rate("gateway_refusals_total", "client, refusal"),
                    "{{client}} {{refusal}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Tokens by client",
            (
                (
                    _rate("gateway_tokens_total", "client, direction"),
                    "{{client}} {{direction}}",
                ),
            ),
            text="Tokens per second; with gateway_count_tokens only.",
        ),
        Panel(
            "Tokens by model",
            ((_rate("gateway_tokens_total", "model, direction"), "{{model}} {{direction}}"),),
            text="Tokens per second; with gateway_count_tokens only.",
        ),
        Panel(
            "Sent by client",
            ((_rate("gateway_sent_bytes_total", "client"), "{{client}}"),),
            "Bps",
        ),
        Panel(
            "Time to the first byte",
            (
                (_quantile(0.5, "gateway_first_byte_seconds", "route"), "{{route}} median"),
                (_p95("gateway_first_byte_seconds", "route"), "{{route}} 95 %"),
            ),
            "s",
            width=12,
            text="The first token of llama.cpp and Ollama; vLLM sends its headers earlier.",
        ),
        Panel(
            "Time to the end",
            (
                (_quantile(0.5, "gateway_request_seconds", "route"), "{{route}} median"),
                (_p95("gateway_request_seconds", "route"), "{{route}} 95 %"),
            ),
            "s",
            width=12,
        ),
    ),
)

MODELS = Dashboard(
    "llmhost-models",
    "Models",
    (
        Panel(
            "Requests at work",
            (
                (f"vllm:num_requests_running{{{_AT}}}", _MODEL),
                (f"llamacpp:requests_processing{{{_AT}}}", _LLAMA),
            ),
        ),
        Panel(
            "Queue",
            (
                (f"vllm:num_requests_waiting{{{_AT}}}", _MODEL),
                (f"llamacpp:requests_deferred{{{_AT}}}", _LLAMA),
            ),
        ),
        Panel(
            "Cache in use",
            ((f"vllm:kv_cache_usage_perc{{{_AT}}}", _MODEL),),
            "percentunit",
            maximum=1,
            text="llama.cpp does not report it.",
        ),
        Panel(
            "Tokens written per second",
            (
                (_rate("vllm:generation_tokens_total", "instance, model_name"), _MODEL),
                (
                    _rate("llamacpp:tokens_predicted_total", "instance, model"),
                    _LLAMA,
                ),
            ),
        ),
        Panel(
            "Tokens read per second",
            (
                (_rate("vllm:prompt_tokens_total", "instance, model_name"), _MODEL),
                (_rate("llamacpp:prompt_tokens_total", "instance, model"), _LLAMA),
            ),
        ),
        Panel(
            "Prompts found in the cache",
            (
                (
                    f"{_rate('vllm:prefix_cache_hits_total', 'instance, model_name')}"
                    f" / {_rate('vllm:prefix_cache_queries_total', 'instance, model_name')}",
                    _MODEL,
                ),
            ),
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Time to the first token",
            (
                (
                    _quantile(0.5, "vllm:time_to_first_token_seconds", "instance, model_name"),
                    f"{_MODEL} median",
                ),
                (
                    _p95("vllm:time_to_first_token_seconds", "instance, model_name"),
                    f"{_MODEL} 95 %",
                ),
                (
                    _p95("gateway_first_byte_seconds", "instance, route"),
                    "{{instance}} {{route}} 95 %, at the gateway",
                ),
            ),
            "s",
            width=12,
        ),
        Panel(
            "Time between two tokens",
            (
                (
                    _p95("vllm:inter_token_latency_seconds", "instance, model_name"),
                    f"{_MODEL} 95 %",
                ),
                (
                    f"{_rate('llamacpp:tokens_predicted_seconds_total')}"
                    f" / {_rate('llamacpp:tokens_predicted_total')}",
                    f"{_LLAMA} mean",
                ),
            ),
            "s",
            width=12,
        ),
        Panel(
            "Searches",
            ((_rate("search_requests_total", "instance, outcome"), "{{instance}} {{outcome}}"),),
            "reqps",
        ),
        Panel(
            "Time of a search, 95 %",
            (
                (_p95("search_request_duration_seconds", "instance"), "{{instance}} in total"),
                (
                    _p95("search_stage_duration_seconds", "instance, stage"),
                    "{{instance}} {{stage}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Qdrant",
            (
                (_rate("rest_responses_total", "instance, status"), "{{instance}} {{status}}"),
                (f"collections_total{{{_AT}}}", "{{instance}} collections"),
            ),
        ),
    ),
)

DASHBOARDS = (HOSTS, GPUS, GATEWAY, MODELS)


def files() -> tuple[File, ...]:
    """A file for each dashboard, in the build context of the image."""
    return tuple(
        File(f"dashboards/{each.uid}.json", json.dumps(document(each), indent=1) + "\n")
        for each in DASHBOARDS
    )


def document(dashboard: Dashboard) -> dict[str, object]:
    """A dashboard as Grafana stores it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["llmhost"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_hosts()]},
        "links": [
            {
                "title": "llmhost",
                "type": "dashboards",
                "icon": "external link",
                "tooltip": "",
                "url": "",
                "tags": ["llmhost"],
                "asDropdown": False,
                "targetBlank": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": [*_placed(dashboard.panels)],
    }


def _hosts() -> dict[str, object]:
    return {
        "name": "instance",
        "label": "Host",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(up, instance)", "refId": "hosts"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"], "selected": True},
        "options": [],
    }


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, object]]:
    """From left to right, then the next row."""
    left, top, below = 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        height = _HEIGHT // 2 if panel.kind == "stat" else _HEIGHT
        if left + panel.width > _COLUMNS:
            left, top = 0, top + below
        below = height
        yield {
            "id": number,
            "type": panel.kind,
            "title": panel.title,
            "description": panel.text,
            "datasource": SOURCE,
            "gridPos": {"h": height, "w": panel.width, "x": left, "y": top},
            "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
            "options": _options(panel),
            "targets": [*_targets(panel)],
        }
        left += panel.width


def _targets(panel: Panel) -> Iterator[dict[str, object]]:
    for index, (expression, legend) in enumerate(panel.queries):
        yield {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": expression,
            "legendFormat": legend,
            "instant": panel.kind == "stat",
            "range": panel.kind == "timeseries",
        }


def _defaults(panel: Panel) -> dict[str, object]:
    found: dict[str, object] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        found["min"] = 0
    if panel.maximum is not None:
        found["max"] = panel.maximum
    return found


def _options(panel: Panel) -> dict[str, object]:
    if panel.kind == "stat":
        return {
            "colorMode": "none",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "value_and_name",
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
