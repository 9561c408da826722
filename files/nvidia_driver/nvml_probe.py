#!/usr/bin/env python3
"""Print what NVML knows of this host's GPUs as one JSON object.

Managed by llmhost. Needs only pynvml.py (nvidia-ml-py) beside it.

    {"driver": "580.159.03", "cuda": "13.0", "gpus": [{"index": 0, "uuid": "GPU-…", "name": "…",
     "pci": "00000000:01:00.0", "memory_total": bytes, "memory_used": bytes, "persistence": true,
     "power_limit_watts": 300.0, "mig": false, "utilisation_percent": 3,
     "processes": [{"pid": 4711, "memory": bytes, "container": "<64 hex>", "command": "…"}],
     "work": [{"pid": 4711, "percent": 40}]}]}

"work" are the processes that computed on the GPU in the last seconds, as far back as the driver
remembers, each with its highest share of the multiprocessors.

What a GPU or its driver does not tell is null; then "unavailable" gives the reason by name. Exit
status 1 and {"error": "…", "code": "NVMLError_…"} if NVML itself does not work.
"""

import json
import re
import sys
from pathlib import Path

import pynvml

# cgroup of a container: systemd driver, or cgroupfs driver.
CONTAINER = re.compile(r"docker[-/]([0-9a-f]{64})(?:\.scope)?")


def main():
    try:
        pynvml.nvmlInit()
        answer = host()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        print(json.dumps({"error": str(error), "code": type(error).__name__}))
        return 1
    print(json.dumps(answer))
    return 0


def host():
    cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    return {
        "driver": text(pynvml.nvmlSystemGetDriverVersion()),
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "gpus": [gpu(index) for index in range(pynvml.nvmlDeviceGetCount())],
    }


def gpu(index):
    """One GPU; if NVML gives no handle for it (it fell off the bus), everything is null."""
    try:
        handle, lost = pynvml.nvmlDeviceGetHandleByIndex(index), None
    except pynvml.NVMLError as error:
        handle, lost = None, error
    questions = {
        "uuid": lambda: text(pynvml.nvmlDeviceGetUUID(handle)),
        "name": lambda: text(pynvml.nvmlDeviceGetName(handle)),
        "pci": lambda: text(pynvml.nvmlDeviceGetPciInfo(handle).busId).lower(),
        "memory_total": lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).total,
        "memory_used": lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used,
        "persistence": lambda: bool(pynvml.nvmlDeviceGetPersistenceMode(handle)),
        "power_limit_watts": lambda: pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
        "mig": lambda: bool(pynvml.nvmlDeviceGetMigMode(handle)[0]),
        "utilisation_percent": lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "processes": lambda: [
            process(each) for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        ],
        "work": lambda: work(handle),
    }
    answer, unavailable = {"index": index}, {}
    for name, ask in questions.items():
        try:
            if lost:
                raise lost
            answer[name] = ask()
        except pynvml.NVMLError as error:
            answer[name], unavailable[name] = None, str(error)
    return {**answer, "unavailable": unavailable}


def process(found):
    """NVML counts pids as the host does; the container is read from the process's cgroup."""
    place = Path("/proc", str(found.pid))
    try:
        container = CONTAINER.search((place / "cgroup").read_text())
        command = (place / "comm").read_text().strip()
    except OSError:  # it has ended in the meantime
        container, command = None, None
    return {
        "pid": found.pid,
        "memory": found.usedGpuMemory,
        "container": container.group(1) if container else None,
        "command": command,
    }


def work(handle):
    """The highest share of each process, without those that did nothing."""
    shares = {}
    try:
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    except pynvml.NVMLError_NotFound:  # no samples
        samples = ()
    for each in samples:
        shares[each.pid] = max(each.smUtil, shares.get(each.pid, 0))
    return [{"pid": pid, "percent": share} for pid, share in shares.items() if share]


def text(value):
    """Older nvidia-ml-py answers with bytes."""
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    sys.exit(main())
