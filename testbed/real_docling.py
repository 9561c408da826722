"""The real docling-serve from Python packages, with models of random weights."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

from testbed import environments, minilm
from testbed.rootfs import cache

VERSION = environments.version("docling", "docling-serve")
_PROGRAM = Path(__file__).with_name("tiny_docling.py")


def installed() -> Path:
    """The environment with docling-serve: 7 GB, about four minutes the first time."""
    return environments.installed("docling")


def models() -> Path:
    """The models that testbed/tiny_docling.py writes, in the cache."""
    key = hashlib.sha256(_PROGRAM.read_bytes() + VERSION.encode()).hexdigest()[:12]
    home = cache() / f"docling-models-{key}"
    cache().mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be writing them
        if not home.exists():
            draft = home.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            program = [str(installed() / "bin/python"), str(_PROGRAM), str(draft)]
            subprocess.run(program, check=True, timeout=300)
            draft.rename(home)
    return home


def declared_models() -> list[dict[str, Any]]:
    """Those that the profile rag-offline declares, from directories: two of random weights, and the
    real tokenizer."""
    sources = {
        "formulas": models() / "docling-project/CodeFormulaV2",
        "pictures": models() / "HuggingFaceTB/SmolVLM-256M-Instruct",
    }
    declared: list[dict[str, Any]] = [
        {"name": name, "service": "docling", "source": str(source), "files": _pinned(source)}
        for name, source in sources.items()
    ]
    return [*declared, tokenizer()]


def tokenizer() -> dict[str, Any]:
    """The model by whose tokenizer docling measures its chunks."""
    return {
        "name": "chunking",
        "service": "docling",
        "task": "embed",
        "source": str(minilm.repository()),
        "files": minilm.pinned_files(),
        "context_tokens": minilm.CONTEXT_TOKENS,
    }


def _pinned(home: Path) -> list[dict[str, str]]:
    return [
        {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(home.iterdir())
    ]
