"""Parts of a bundle while it is created: finished parts survive an interruption."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from llmhost.bundle.manifest import Part
from llmhost.system.whole_file import write_file

_RECORD = "parts.json"
_CHUNK = 1 << 20


class Parts:
    """A directory of parts, with a record of the complete ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._record = directory / _RECORD
        self._known = self._read()
        self._compared: set[str] = set()

    def finished(self, path: str) -> Part | None:
        """A part that an earlier run completed, if it still matches the record."""
        known, file = self._known.get(path), self.directory / path
        if known is None or not file.is_file() or file.stat().st_size != known.bytes:
            return None
        # Reading an image takes minutes: read it once in a run.
        if path not in self._compared and _sha256(file) != known.sha256:
            return None
        self._compared.add(path)
        return known

    def obtain(self, path: str, make: Callable[[BinaryIO], None]) -> Part:
        """A finished part, or a new one: `make` writes it to the file that it gets."""
        if found := self.finished(path):
            return found
        draft = self.directory / f"{path}.part"
        draft.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            make(file)
        draft.replace(self.directory / path)
        return self.adopt(path)

    def keep(self, path: str, data: bytes) -> Part:
        """A small part with this content."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return self.adopt(path)

    def adopt(self, path: str) -> Part:
        """Record a complete file that another program wrote."""
        file = self.directory / path
        part = Part(path, file.stat().st_size, _sha256(file))
        self._known[path] = part
        self._compared.add(path)
        self._write()
        return part

    def remove(self) -> None:
        """Remove all parts; they are in a bundle now."""
        shutil.rmtree(self.directory)

    def _read(self) -> dict[str, Part]:
        try:
            records = json.loads(self._record.read_text())
            return {path: Part(path, *record) for path, record in records.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # every part is created again

    def _write(self) -> None:
        records = {path: [part.bytes, part.sha256] for path, part in self._known.items()}
        write_file(self._record, json.dumps(records))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
