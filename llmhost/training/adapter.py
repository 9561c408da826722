"""A trained adapter on the controller: judged, written with its card, converted for llama.cpp."""

import io
import json
import math
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmhost.making.fetch import Say, fetch
from llmhost.making.tools import LORA_CONVERTER, MakingError, Tools
from llmhost.models.files import sha256_of
from llmhost.models.trained import CARD, SCHEMA
from llmhost.options.adapter import ADAPTER_FILES
from llmhost.secret import read_token
from llmhost.training.job import HostJob, base_name, settings_of
from llmhost.training.report import Adapter

GGUF = "adapter.gguf"
"""An adapter for llama.cpp and Ollama, beside the files of PEFT."""

_RESULT = "result.json"


class TrainingError(Exception):
    """Why an adapter is not kept; the text continues a sentence that begins with the job."""


def unpacked(archive: bytes, place: Path) -> dict[str, Any]:
    """Write the adapter in a host's archive to a new directory; the result of the training. Raises
    TrainingError."""
    place.mkdir(parents=True)
    wanted = {f"adapter/{name}": name for name in ADAPTER_FILES} | {_RESULT: _RESULT}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member, name in wanted.items():
                content = tar.extractfile(member)
                if content is None:
                    raise KeyError(member)
                (place / name).write_bytes(content.read())
        result: dict[str, Any] = json.loads((place / _RESULT).read_text())
        result |= {loss: float(result[loss]) for loss in ("before", "after")}
    except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"has a result that cannot be read: {error}") from None
    (place / _RESULT).unlink()
    return result


def judged(host: HostJob, result: Mapping[str, Any]) -> float:
    """The loss on what was held back, with the adapter divided by that without. Raises
    TrainingError if it misses the limit."""
    before, after = float(result["before"]), float(result["after"])
    limit = host.job.evaluate.at_most
    value = after / before if before > 0 else math.inf
    if not math.isfinite(value) or value > limit:
        raise TrainingError(
            f"was trained, and its adapter is discarded: the loss on what was held back is"
            f" {after:.4f} with it and {before:.4f} without, a ratio of {value:.4f}, and at most"
            f" {limit} is allowed"
        )
    return value


def kept(
    host: HostJob, draft: Path, target: Path, result: Mapping[str, Any], record: Mapping[str, Any]
) -> Adapter:
    """Write the card of an adapter, and move it to its place. `record` is further content of the
    card: host, time, loss curve. Raises TrainingError."""
    value = judged(host, result)
    job, names = host.job, sorted(each.name for each in draft.iterdir())
    files = {name: sha256_of(draft / name) for name in names}
    card = {
        "schema": SCHEMA,
        "job": job.name,
        "base": {"source": job.base, "revision": job.revision, "digest": job.base_model.digest},
        "data": {
            "digest": host.examples.digest,
            "train": len(host.examples.train),
            "held_back": len(host.examples.held_back),
        },
        "settings": settings_of(job),
        "image": host.image,
        "result": {**result, "value": value, "limit": job.evaluate.at_most},
        "files": files,
        **record,
    }
    (draft / CARD).write_text(json.dumps(card, indent=2, default=str) + "\n", encoding="utf-8")
    (draft / "README.md").write_text(_model_card(host, result, value), encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    draft.replace(target)
    gguf = str(target / GGUF) if GGUF in files else None
    losses = float(result["before"]), float(result["after"])
    return Adapter(str(target), gguf, files, *losses, value, job.evaluate.at_most)


def convert(host: HostJob, place: Path, directory: Path, tools: Tools, say: Say) -> None:
    """Write the adapter in `place` as GGUF, too. The converter reads the settings and the tokens of
    the base, which are fetched below `directory`. Raises MakingError."""
    source = host.job.base_model
    small = tuple(each for each in source.files if not each.path.endswith(".safetensors"))
    try:
        token = read_token(source.token) if source.token else ""
    except ValueError as error:
        raise MakingError(f"cannot be converted: its token {error}") from None
    wanted = source.model_copy(update={"files": small})
    base = fetch(wanted, directory, host.settings.stack.hubs, token, say)
    target = place / GGUF
    tools.run(
        LORA_CONVERTER,
        ["--base", str(base), "--outfile", str(target), "--outtype", "f16", str(place)],
    )
    if not target.is_file():
        raise MakingError(f"cannot be converted: {LORA_CONVERTER} wrote no file")


def _model_card(host: HostJob, result: Mapping[str, Any], value: float) -> str:
    job = host.job
    counts = f"{len(host.examples.train)} examples, {len(host.examples.held_back)} held back"
    return f"""---
base_model: {base_name(job)}
library_name: peft
---

# {job.name}

A LoRA adapter for {base_name(job)}, trained on {counts}. `{CARD}` has the digests of base and data,
all settings and the loss curve.

| loss on what was held back | |
| --- | --- |
| without the adapter | {float(result["before"]):.4f} |
| with it | {float(result["after"]):.4f} |
| ratio | {value:.4f} (limit {job.evaluate.at_most}) |
"""


def curve(progress: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The loss curve for the card."""
    wanted = ("step", "loss", "held_back_loss", "seconds")
    return [{key: each.get(key) for key in wanted} for each in progress]
