"""The state of a server before the checks, for the report."""

import json
from collections.abc import Mapping
from typing import Any

from llmhost.checks.nvidia import Nvidia, look
from llmhost.settings import Settings
from llmhost.units import counted
from llmhost.verify.report import ON_A_DOUBLE, LastDeploy, MemoryUse, ReportedGpu, Server

_LOOK = (
    '. /etc/os-release; echo "system ${PRETTY_NAME:-$ID $VERSION_ID}"; echo "kernel $(uname -r)";'
    ' echo "uptime_seconds $(cut -d. -f1 /proc/uptime)"; echo "processors $(nproc)";'
    " sed -n 's/^MemTotal: *\\([0-9]*\\) kB/memory_kib \\1/p' /proc/meminfo;"
    " docker ps --no-trunc --format 'container {{.ID}} {{.Names}}' 2>/dev/null;"
)


def describe(host: Any, settings: Settings, name: str) -> Server:
    """System, GPUs and receipt of a server that answers; unreadable parts are left out."""
    receipt = f" echo \"receipt $(tr -d '\\n' <{settings.receipt.path} 2>/dev/null)\""
    words = [line.partition(" ") for line in host.run(_LOOK + receipt).stdout.splitlines()]
    facts = {key: value for key, _, value in words if key != "container"}
    containers = dict(value.split(" ", 1) for key, _, value in words if key == "container")
    nvidia = look(host, settings)
    return Server(
        host=name,
        system=facts.get("system", ""),
        kernel=facts.get("kernel", ""),
        uptime_seconds=_number(facts.get("uptime_seconds")),
        memory_bytes=(_number(facts.get("memory_kib")) or 0) * 1024 or None,
        processors=_number(facts.get("processors")),
        driver=str(nvidia.nvml.get("driver", "")),
        gpu_double=nvidia.proof == ON_A_DOUBLE,
        gpus=tuple(gpu(each, containers) for each in nvidia.gpus),
        gpu_note=_gpu_note(nvidia),
        last_deploy=_last_deploy(facts.get("receipt", ""), settings),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _gpu_note(nvidia: Nvidia) -> str:
    if "error" in nvidia.nvml:
        return f"NVML does not work: {nvidia.nvml['error']}"
    if nvidia.pci and not nvidia.gpus:
        return f"{counted(len(nvidia.pci), 'NVIDIA GPU')} on the bus, but no working driver"
    return "no GPU"


def gpu(told: Mapping[str, Any], containers: Mapping[str, str]) -> ReportedGpu:
    """One GPU of the NVML probe's output, with memory by container; `containers` maps ids to
    names."""
    held: dict[str, int] = {}
    for process in told.get("processes") or ():
        owner = containers.get(process["container"] or "", process["command"] or "ended")
        held[owner] = held.get(owner, 0) + (process["memory"] or 0)
    return ReportedGpu(
        index=told["index"],
        label=told.get("name") or "GPU",
        uuid=told.get("uuid") or "",
        memory_total=told.get("memory_total"),
        memory_used=told.get("memory_used"),
        utilisation_percent=told.get("utilisation_percent"),
        shares=tuple(MemoryUse(owner, size) for owner, size in held.items() if size),
    )


def _last_deploy(text: str, settings: Settings) -> LastDeploy | None:
    try:
        receipt = json.loads(text)
        toolkit = receipt["toolkit"]
        return LastDeploy(
            time=str(receipt["time"]),
            version=str(toolkit["version"]),
            revision=str(toolkit["revision"] or "") + (", modified" * bool(toolkit["modified"])),
            same_settings=receipt["settings"] == settings.digest,
        )
    except (ValueError, KeyError, TypeError):
        return None
