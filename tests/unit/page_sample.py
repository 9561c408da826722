"""A site for the tests of the page: as the commands print it, with texts that must be escaped."""

from dataclasses import asdict, replace
from typing import Any

from llmhost.status.gpu_history import SCHEMA as GPU_SCHEMA
from llmhost.status.gpu_history import GpuHistory, GpuHistoryReport
from llmhost.status.page import Overview
from llmhost.status.report import (
    DeployStatus,
    DiskStatus,
    GpuStatus,
    HostStatus,
    RequestsStatus,
    ServiceStatus,
    unreadable,
)
from llmhost.status.usage import SCHEMA, By, UsageReport, UsageRow
from llmhost.units import GIB
from llmhost.verify.report import Check, Report, Server

SCRIPT = "<script>document.title='run'</script>"

FINE = HostStatus(
    "llm-1",
    "ok",
    role="LLM server",
    uptime_seconds=864_000,
    kernel="6.12.48+deb13-amd64",
    load=1.25,
    processors=16,
    services=(
        ServiceStatus("llamacpp", "healthy", "server-b11176", ("coder", "router"), None, 86_400, 0),
        ServiceStatus("qdrant", "stopped", "v1.18", stopped="stopped by eva on 2026-12-01"),
    ),
    gpus=(
        GpuStatus(0, "NVIDIA GeForce RTX 5070 Ti", 12_288.0, 16_384.0, 87.0, 64.0, 240.0, 300.0),
        GpuStatus(1, "NVIDIA L4", None, 23_034.0, None, None, None, None),
    ),
    requests=RequestsStatus(300, 120, 1, 4, 2, 0.041, 0.18),
    disks=(DiskStatus("/", 900 * GIB, 400 * GIB), DiskStatus("/srv", 100 * GIB, 4 * GIB)),
    certificate_expires="2027-01-31T00:00:00Z",
    keys_expire={"batch": "2027-03-01T00:00:00Z"},
    last_backup="2026-12-01T02:00:00Z",
    deploy=DeployStatus(
        "2026-11-30T10:00:00Z", "eva@laptop", "done", "0.2.0", "0123abcd" * 5, True
    ),
)
ATTENTION = replace(
    FINE, host="llm-2", status="attention", attention=(f"a reboot is pending {SCRIPT}",), gpus=()
)
LOST = unreadable("llm-3", f"timed out {SCRIPT}")


def _row(name: str, requests: int) -> UsageRow:
    return UsageRow(name, requests, 1, 2, 3, 40.5, 5 * GIB, GIB, requests - 6, 123_456, 65_432)


def usage(by: By) -> dict[str, Any]:
    names = {
        By.CLIENT: ["batch", "", SCRIPT],
        By.MODEL: ["coder", "router"],
        By.DAY: ["2026-11-29", "2026-11-30", "2026-12-01"],
    }[by]
    rows = tuple(_row(name, 1000 // (place + 1)) for place, name in enumerate(names))
    return asdict(UsageReport(SCHEMA, by, {"llm-1": "2026-11-29T00:00:00+00:00"}, rows, {}, {}))


CHECKS = Report(
    "inventory/site.py",
    "2026-12-01 12:00 UTC",
    61.5,
    "0.2.0",
    (Server("llm-1"), Server("llm-2")),
    (
        Check(
            "llm-1",
            "gateway",
            "gateway-tls",
            "TLS is 1.2 or newer",
            "passed",
            proof="proven on the server",
        ),
        Check("llm-1", "gpu", "gpu-used", "the GPU is used", "not checked", reason="no GPU"),
        Check(
            "llm-2",
            "firewall",
            "firewall-closed",
            "no other port is open",
            "failed",
            seen=f"port 22 {SCRIPT}",
            expected="closed",
            todo="deploy again",
        ),
    ),
)

PLANS = (
    {"host": "llm-1", "status": "converged", "steps": [], "errors": [], "notes": []},
    {
        "host": "llm-2",
        "status": "drift",
        "steps": [
            {
                "component": "Gateway",
                "operation": "Configure nginx",
                "reasons": [f"/etc/nginx/nginx.conf differs {SCRIPT}"],
            }
        ],
        "errors": [],
        "notes": [f"qdrant is stopped {SCRIPT}"],
    },
    {
        "host": "llm-3",
        "status": "unreachable",
        "steps": [],
        "errors": ["no connection was made"],
        "notes": [],
    },
)


_USE = (*(10.0,) * 30, *(85.0,) * 40, None, None, *(95.0, 90.0) * 12)
GPUS = GpuHistoryReport(
    GPU_SCHEMA,
    "gate",
    begin=1_796_000_000,
    end=1_796_021_600,
    step_seconds=225,
    gpus=(
        GpuHistory(
            "llm-1", 0, "GPU-1", SCRIPT, _USE, tuple(None if v is None else 12_288 for v in _USE)
        ),
    ),
)


def overview(**changed: Any) -> Overview:
    """Three hosts: one is fine, one needs attention, one does not answer."""
    whole = Overview(
        inventory="inventory/site.py",
        time="2026-12-01 12:34 UTC",
        toolkit="0.2.0 (0123abcd0123)",
        hosts=[asdict(each) for each in (FINE, ATTENTION, LOST)],
        plans=PLANS,
        usage={by.value: usage(by) for by in (By.CLIENT, By.MODEL, By.DAY)},
        gpus=asdict(GPUS),
        checks=CHECKS,
    )
    return replace(whole, **changed)
