"""Made models in the lock file: what was made of which source, with which tools and accuracy. Pure.

`llmhost model make` writes an entry; a deploy then takes the result as a file on the controller.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from llmhost.models.lock import lock_key
from llmhost.options.derive import Derive

MADE = "models.made"
"""Directory of results, beside the lock file."""

_ORIGIN_ONLY = ("revision", "sha256", "files", "include", "token")
"""Options of a record that are about its source."""

_TYPE_AT_END = re.compile(r"[-._](f16|bf16|f32|fp16|fp32)$", re.IGNORECASE)

Record = Mapping[str, Any]
Entry = Mapping[str, Any]


def made_directory(lock_file: Path) -> Path:
    """Where results are, for a lock file."""
    return lock_file.with_name(MADE)


def derive_of(record: Record) -> Derive | None:
    """What a record declares; none if it declares nothing, or a mistake."""
    try:
        return Derive.model_validate(record["derive"]) if record.get("derive") else None
    except ValidationError:
        return None  # the reader of settings reports it


def made_key(record: Record, derive: Derive) -> str:
    """The key of a record's entry in the lock file; models of one source and recipe share it."""
    return f"{lock_key(record)} > {derive.recipe}"


def with_known_evaluations(entry: Entry, old: Entry | None) -> dict[str, Any]:
    """A new entry with further evaluations of the same result, for other models with it."""
    found = list(entry["evaluations"])
    measured = {(each["measure"], each["reference"]) for each in found}
    if old and result_digest(old) == result_digest(entry):
        found += [
            each
            for each in old.get("evaluations", ())
            if (each["measure"], each["reference"]) not in measured
        ]
    return {**entry, "evaluations": found}


def input_digest(pinned: Record) -> str:
    """Digest of the pins of a source: the file's SHA-256, or that of what `sha256sum` would print
    for all files. Empty if it is not pinned."""
    if pinned.get("sha256"):
        return str(pinned["sha256"])
    files = pinned.get("files") or ()
    lines = sorted(f"{each['sha256']}  {each['path']}\n" for each in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else ""


def file_name(source: str, recipe: str) -> str:
    """Name of a result: that of its source, and its quantization; of a directory for vLLM, which
    reads a whole repository. Policies judge it as any other
    name of a file."""
    path = PurePosixPath(source.removeprefix("hf:"))
    if recipe.startswith("onnx"):
        # An app finds it under the last two parts, its name at the hub.
        names = [part for part in path.parts if part not in ("/", "..")]
        return "/".join([recipe, *names[-2:]]) if names else f"{recipe}/model"
    name = path.stem if path.suffix == ".gguf" else path.name
    name = _TYPE_AT_END.sub("", re.sub(r"[^A-Za-z0-9_.-]", "-", name))
    quantization = recipe.split()[0]
    if recipe.startswith("compress-"):
        return f"{name}-{quantization.removeprefix('compress-')}"
    return f"{name}-{quantization}.gguf"


def outdated(entry: Entry, pinned: Record, derive: Derive) -> str:
    """Why an entry is not what a record declares; empty if it is."""
    if entry.get("input") != input_digest(pinned):
        return "its source has changed"
    found = {
        (each.get("measure"), each.get("reference")): each.get("value")
        for each in entry.get("evaluations", ())
    }
    for wanted in derive.evaluate:
        value = found.get((wanted.measure, wanted.reference))
        if not isinstance(value, int | float):
            return f"its {wanted.measure} on {wanted.reference} was not measured"
        if missed := wanted.shortfall(value):
            return f"its {wanted.measure} {missed}"
    return ""


def as_made(pinned: Record, lock: Mapping[str, Entry], directory: Path) -> dict[str, Any]:
    """A record whose source is the result, if it was made as declared; else the same record."""
    derive = derive_of(pinned)
    entry = lock.get(made_key(pinned, derive)) if derive else None
    if derive is None or entry is None or outdated(entry, pinned, derive):
        return dict(pinned)
    left = {key: value for key, value in pinned.items() if key not in _ORIGIN_ONLY}
    left |= {key: entry[key] for key in ("sha256", "files") if key in entry}
    place = str(directory / str(entry["file"]))
    made = {"made_from": pinned.get("source"), "made_from_sha256": entry["input"]}
    return {**left, "source": place, **made}


def result_digest(entry: Entry) -> str:
    """Digest of a result: of its file, or of all its files."""
    return input_digest(entry)
