"""Evidence in a file: docs/evidence/README.md."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from llmhost.checks.nvidia import Nvidia


def keep(
    directory: Path, host: Any, nvidia: Nvidia, services: Sequence[str], now: datetime
) -> Path:
    """Write the server's state right after its services answered: one file for each driver and GPU;
    its first line says whether the GPU is real."""
    names = " and ".join(dict.fromkeys(gpu["name"] for gpu in nvidia.gpus))
    said = {
        "release": ". /etc/os-release; echo $PRETTY_NAME",
        "kernel": "uname -r",
        "module": "head -n 1 /proc/driver/nvidia/version",
        "toolkit": "nvidia-ctk --version | head -n 1",
        "docker": "docker --version",
    }
    lines = [
        f"{nvidia.proof}: driver {nvidia.nvml['driver']}, {names}",
        f"{now:%Y-%m-%d %H:%M} UTC, right after a completion of {', '.join(services)}",
        *(f"{what}: {host.run(command).stdout.strip()}" for what, command in said.items()),
        "",
        json.dumps(nvidia.nvml, indent=2),
    ]
    slug = re.sub(r"[^a-z0-9]+", "-", names.lower()).strip("-")
    path = directory / f"{nvidia.nvml['driver']}-{slug}.txt"
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
