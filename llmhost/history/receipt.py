"""The record of what was deployed, written anew only when something in it but the time differs.

Pure: what stands on the host comes from facts/receipt.py, operations/receipt.py writes.
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
"""Packages whose versions are recorded, of whichever source they are."""

KEPT = 10
"""Earlier receipts that are kept."""


@dataclass(frozen=True)
class ReceiptState:
    """What is on the host: versions by component, image ids by reference, the text of the newest
    receipt, empty if there is none, names of the earlier ones, names of the deploys that are kept
    for a rollback, and the states of the newest receipt and its directory."""

    versions: Mapping[str, str]
    images: Mapping[str, str]
    newest: str
    earlier: tuple[str, ...]
    kept: tuple[str, ...] = ()
    paths: Mapping[str, PathState] = field(default_factory=dict)


def content(record: Mapping[str, Any], found: ReceiptState) -> dict[str, Any]:
    """A receipt without its time: what was asked for and what it became."""
    return {
        **record,
        "versions": dict(sorted(found.versions.items())),
        "images": dict(sorted(found.images.items())),
    }


def reasons(wanted: Mapping[str, Any], newest: str) -> list[str]:
    """Why the newest receipt is not true any more; empty if it is."""
    recorded = parse(newest)
    if recorded is None:
        return ["the receipt can not be read" if newest else "there is no receipt yet"]
    keys = sorted({*wanted, *recorded} - {"time"})
    changed = [key for key in keys if wanted.get(key) != recorded.get(key)]
    return [f"the receipt tells other {key}" for key in changed]


def parse(text: str) -> dict[str, Any] | None:
    """A receipt from its text; None if it is not one."""
    try:
        receipt = json.loads(text)
    except ValueError:
        return None
    return receipt if isinstance(receipt, dict) else None


def text(receipt: Mapping[str, Any]) -> str:
    """A receipt as it is written; its `time`, in ISO 8601, names it once it is an earlier one."""
    return json.dumps(receipt, indent=2) + "\n"


def misplaced(path: str, found: ReceiptState) -> dict[Entry, str]:
    """What of a true receipt and its directory belongs to others or lets them write, with the
    reason."""
    directory = Directory(str(PurePosixPath(path).parent))
    return differences([directory, File(path, found.newest)], found.paths)


def entries(path: str, text: str, found: ReceiptState) -> list[Entry]:
    """The new receipt in its place, the one before it among the earlier ones, the oldest gone."""
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
    """What a receipt is called among the earlier ones, without its suffix."""
    return re.sub(r"[^\w-]", "", str(record.get("time")), flags=re.ASCII) or "unknown"


def _superfluous(names: Sequence[str]) -> Sequence[str]:
    return names[: max(0, len(names) - KEPT)]
