"""Fetching the pinned source of a model to the controller. What is there and whole is kept."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import httpx

from llmhost.making.tools import MakingError, locked
from llmhost.models.files import sha256_of
from llmhost.options.model import Model
from llmhost.options.model_source import HUB, HubSource, at_mirror
from llmhost.units import reason, so_far

Say = Callable[[str], None]

_BLOCK = 1024 * 1024
_REPORT_SECONDS = 5


def here(source: Model) -> Path | None:
    """The source, if it is on the controller already; a file or a directory."""
    return Path(source.source).absolute() if source.kind == "file" else None


def place_of(source: Model, directory: Path) -> Path:
    """Where a source is, or will be. A repository has its own name: llama.cpp's converter writes
    the directory's name into the file."""
    if found := here(source):
        return found
    inside = directory / "inputs" / source.digest[:12]
    match source.origin:
        case HubSource(repository, file):
            return inside / PurePosixPath(file or repository).name
        case _:
            return inside / PurePosixPath(urlsplit(source.source).path).name


def fetch(source: Model, directory: Path, mirrors: Mapping[str, str], token: str, say: Say) -> Path:
    """The source below the directory, or where it is on the controller; every file has its pinned
    digest. `token` is sent to Hugging Face or its mirror only. Raises MakingError."""
    place = place_of(source, directory)
    for path, sha256 in source.baked.items():
        file = place / path.removeprefix(f"{source.path}/") if source.files else place
        if file.is_file() and sha256_of(file) == sha256:
            continue
        if source.kind == "file":
            raise MakingError(
                f"has a source whose file {file} "
                + ("has another SHA-256 than its pin" if file.is_file() else "does not exist")
            )
        url = source.places[path]
        known = {} if isinstance(source.origin, str) else mirrors
        headers = {"Authorization": f"Bearer {token}"} if token and url.startswith(HUB) else {}
        download(at_mirror(url, known), headers, file, sha256, say)
    return place


def download(url: str, headers: Mapping[str, str], target: Path, sha256: str, say: Say) -> None:
    """Write what is at the URL to a file, if it has this digest. What an interrupted download has
    left is continued. Raises MakingError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.part")
    with locked(target.parent, "fetched"):
        begun = draft.exists()
        found = _append(url, headers, draft, target.name, say)
        if begun and found != sha256:
            draft.unlink()
            found = _append(url, headers, draft, target.name, say)
        if found != sha256:
            draft.unlink()
            raise MakingError(f"is refused: {target.name} has another SHA-256 than its pin")
        draft.replace(target)


def _append(url: str, headers: Mapping[str, str], draft: Path, name: str, say: Say) -> str:
    """Write the rest of what is at the URL to the draft, or all of it if the server sends only
    whole files; the SHA-256 of the draft."""
    digest, there = hashlib.sha256(), draft.stat().st_size if draft.exists() else 0
    if there:
        with draft.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    # The range is one of the file itself, not of a compressed form.
    asked = {"Accept-Encoding": "identity", **headers}
    asked |= {"Range": f"bytes={there}-"} if there else {}
    try:
        with httpx.stream("GET", url, headers=asked, follow_redirects=True, timeout=60) as it:
            if it.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return digest.hexdigest()  # the draft is whole, or of another file
            if it.is_error:
                raise MakingError(f"cannot be fetched: {_host(url)} answered {it.status_code}")
            if there and it.status_code != httpx.codes.PARTIAL_CONTENT:
                digest, there = hashlib.sha256(), 0
            with draft.open("ab" if there else "wb") as file:
                for block in _blocks(it, there, name, say):
                    file.write(block)
                    digest.update(block)
    except httpx.HTTPError as error:
        raise MakingError(f"cannot be fetched from {_host(url)}: {reason(error)}") from None
    return digest.hexdigest()


def _blocks(it: httpx.Response, there: int, name: str, say: Say) -> Iterator[bytes]:
    """The blocks of an answer; every few seconds, how far it is. `there` bytes precede them."""
    size, done = there + int(it.headers.get("Content-Length", 0)), there
    begun = said = time.monotonic()
    for block in it.iter_bytes():
        yield block
        done += len(block)
        if time.monotonic() - said > _REPORT_SECONDS:
            said = time.monotonic()
            say(f"fetching {name}: {so_far(said - begun, done, size, there)}")


def _host(url: str) -> str:
    return urlsplit(url).hostname or url
