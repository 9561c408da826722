"""One image for the services of test machines other than engines.

Redis is Debian's, Chroma the real server from its Python package, and Qdrant its own core behind
an interface of ours; docling, Grafana, Open WebUI and the embedding model are doubles. The search
API is built on Python with pip.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from testbed.engine import root_archive
from testbed.image_registry import ImageRegistry
from testbed.wheels import unpack

ROOT = Path(__file__).parents[1]
_PACKAGES = (
    *("redis-server", "redis-tools", "python3", "python3-pip", "bash", "dash", "coreutils"),
    *("grep", "base-files", "base-passwd"),
)
# The package for x86-64.
CHROMA = (
    "chromadb==1.5.9 --hash=sha256:cc09b3df76e5a5cb386aed2715a2eea152e3949f9e1ba93c7119505377749929"
)
# For x86-64.
_QDRANT = (
    "qdrant-edge-py==0.9.0"
    " --hash=sha256:7bc734ea493d1f92e6b8af74bc68c4f903b2ca90593f899cd1b998cd12744da4"
)
_PYTHON = ("--python-version", "3.13")
"""Debian 13's."""
_CHROMA_PROGRAM = """\
#!/usr/bin/python3
import sys

import chromadb_rust_bindings

chromadb_rust_bindings.cli(sys.argv)
"""
_DOUBLE_PROGRAM = """\
#!/bin/sh
exec python3 /usr/lib/doubles/{} {}
"""
_QDRANT_PROGRAM = """\
#!/bin/sh
PYTHONPATH=/usr/lib/doubles exec python3 -m tests.doubles.qdrant 6333
"""
# pip's own certificates do not include those of the controller's proxy.
_PIP = "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\nbreak-system-packages = true\n"


@cache
def push_stores(registry: ImageRegistry) -> str:
    """Push the image to a registry; returns its full reference, pinned by digest."""
    return registry.push("stores", "1", store_archive())


@cache
def store_archive() -> Path:
    """The image's root file system as a tar archive, built if necessary."""
    with tempfile.TemporaryDirectory(prefix="llmhost-stores-") as directory:
        _lay_out(Path(directory))
        return root_archive("stores", _PACKAGES, "trixie", Path(directory))


def _lay_out(root: Path) -> None:
    """Files that are not in packages."""
    root.chmod(0o755)
    _program(root / "usr/local/bin/chroma", _CHROMA_PROGRAM)
    _program(root / "qdrant/qdrant", _QDRANT_PROGRAM)
    _program(root / "usr/local/bin/docling-serve", _DOUBLE_PROGRAM.format("docling.py", 5001))
    _program(root / "run.sh", _DOUBLE_PROGRAM.format("grafana.py", ""))
    _program(root / "app/backend/start.sh", _DOUBLE_PROGRAM.format("open_webui.py", ""))
    doubles = root / "usr/lib/doubles"
    doubles.mkdir(parents=True)
    for name in ("docling.py", "embeddings.py", "grafana.py", "open_webui.py"):
        shutil.copy(ROOT / "tests/doubles" / name, doubles)
    shutil.copytree(ROOT / "tests/doubles/qdrant", doubles / "tests/doubles/qdrant")
    certificates = root / "etc/ssl/certs"
    certificates.mkdir(parents=True)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", certificates)
    (root / "etc/pip.conf").write_text(_PIP)
    packages = root / "usr/lib/python3/dist-packages"
    # The rest of Chroma's is the client.
    unpack(CHROMA, "chromadb_rust_bindings/", packages, _PYTHON)
    unpack(_QDRANT, "qdrant_edge/", packages, _PYTHON)


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
