"""llmhost itself as a wheel, built from the running checkout or installation.

https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

import base64
import hashlib
import io
import os
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from llmhost.resources import CHECKOUT, PACKAGE

_WHEEL = b"Wheel-Version: 1.0\nGenerator: llmhost\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def own_wheel() -> tuple[str, bytes]:
    """Name and content of the wheel. Equal files give equal bytes."""
    stem = f"llmhost-{distribution('llmhost').version}"
    data = io.BytesIO()
    with ZipFile(data, "w", ZIP_DEFLATED) as archive:
        record = ""
        for path, mode, content in [*_package(PACKAGE), *_metadata(f"{stem}.dist-info")]:
            archive.writestr(_member(path, mode), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
            record += f"{path},sha256={digest.rstrip(b'=').decode()},{len(content)}\n"
        name = f"{stem}.dist-info/RECORD"
        archive.writestr(_member(name, 0o644), f"{record}{name},,\n")
    return f"{stem}-py3-none-any.whl", data.getvalue()


def _package(package: Path) -> Iterator[tuple[str, int, bytes]]:
    """Path, mode and content of each file of the package. A checkout's links are followed."""
    for directory, names, files in os.walk(package, followlinks=True):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for file in sorted(Path(directory, name) for name in files):
            mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
            yield file.relative_to(package.parent).as_posix(), mode, file.read_bytes()


def _metadata(directory: str) -> Iterator[tuple[str, int, bytes]]:
    """Requirements, commands and licences. Run from a checkout, Python may find an egg-info."""
    own = distribution("llmhost")
    texts = {
        "METADATA": own.read_text("METADATA") or own.read_text("PKG-INFO"),
        "entry_points.txt": own.read_text("entry_points.txt"),
    }
    for name in own.metadata.get_all("License-File") or ():
        texts[f"licenses/{name}"] = own.read_text(f"licenses/{name}") or _checkout_text(name)
    yield f"{directory}/WHEEL", 0o644, _WHEEL
    for name, text in texts.items():
        yield f"{directory}/{name}", 0o644, (text or "").encode()


def _checkout_text(name: str) -> str | None:
    return (CHECKOUT / name).read_text() if CHECKOUT else None


def _member(path: str, mode: int) -> ZipInfo:
    info = ZipInfo(path)
    info.compress_type = ZIP_DEFLATED
    info.external_attr = mode << 16
    return info
