"""The record of what was deployed; rewritten only if something other than its time differs.

Pure: facts/receipt.py reads the host's state, operations/receipt.py writes the record.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from llmhost.system.files import Absent, Directory, Entry, File, PathState, differences

PACKAGES = (
    *("docker.io", "docker-ce", "containerd", "containerd.io", "runc"),
    *("docker-buildx", "docker-buildx-plugin"),
    *("docker-compose", "docker-compose-v2", "docker-compose-plugin"),
    *("nginx", "libnginx-mod-http-js", "ufw", "nvidia-container-toolkit"),
)
"""Packages whose versions are recorded, whatever their source."""

KEPT = 10
"""Earlier receipts that are kept."""


@dataclass(frozen=True)
class ReceiptState:
    """State of the host: versions by component, image ids by reference, the text of the newest
    receipt (empty if there is none), names of earlier receipts, names of the deploys kept for a
    rollback, and the states of the newest receipt and its directory."""

    versions: Mapping[str, str]
    images: Mapping[str, str]
    newest: str
    earlier: tuple[str, ...]
    kept: tuple[str, ...] = ()
    paths: Mapping[str, PathState] = field(default_factory=dict)


def content(record: Mapping[str, Any], found: ReceiptState) -> dict[str, Any]:
    """A receipt without its time: what was declared and what was installed."""
    return {
        **record,
        "versions": dict(sorted(found.versions.items())),
        "images": dict(sorted(found.images.items())),
    }


def reasons(wanted: Mapping[str, Any], newest: str) -> list[str]:
    """Why the newest receipt is out of date; empty if it is current."""
    recorded = parse(newest)
    if recorded is None:
        return ["the receipt cannot be read" if newest else "there is no receipt yet"]
    keys = sorted({*wanted, *recorded} - {"time"})
    changed = [key for key in keys if wanted.get(key) != recorded.get(key)]
    return [f"the receipt differs in {key}" for key in changed]


def parse(text: str) -> dict[str, Any] | None:
    """A receipt from its text; None if it is not one."""
    try:
        receipt = json.loads(text)
    except ValueError:
        return None
    return receipt if isinstance(receipt, dict) else None


def text(receipt: Mapping[str, Any]) -> str:
    """A receipt as it is written. Its `time`, in ISO 8601, is its name once it is archived."""
    return json.dumps(receipt, indent=2) + "\n"


def misplaced(path: str, found: ReceiptState) -> dict[Entry, str]:
    """Differences in owner and mode of a current receipt and its directory, with the reasons."""
    directory = Directory(str(PurePosixPath(path).parent))
    return differences([directory, File(path, found.newest)], found.paths)


def entries(path: str, text: str, found: ReceiptState) -> list[Entry]:
    """Write the new receipt, archive the one before it, and remove the oldest ones."""
    directory = PurePosixPath(path).parent
    archive = directory / "receipts"
    made: list[Entry] = [Directory(str(directory)), Directory(str(archive)), File(path, text)]
    earlier = set(found.earlier)
    if before := parse(found.newest):
        name = archive_name(before) + ".json"
        made.append(File(str(archive / name), found.newest))
        earlier.add(name)
    return made + [Absent(str(archive / name)) for name in _superfluous(sorted(earlier))]


def archive_name(record: Mapping[str, Any]) -> str:
    """The file name of an archived receipt, without its suffix."""
    return re.sub(r"[^\w-]", "", str(record.get("time")), flags=re.ASCII) or "unknown"


def _superfluous(names: Sequence[str]) -> Sequence[str]:
    return names[: max(0, len(names) - KEPT)]
