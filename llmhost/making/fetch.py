"""Fetching the pinned source of a model to the controller. What is there and whole is kept."""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import httpx

from llmhost.making.tools import MakingError
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
        _download(at_mirror(url, known), headers, file, sha256, say)
    return place


def _download(url: str, headers: Mapping[str, str], target: Path, sha256: str, say: Say) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.part")
    digest, done, begun = hashlib.sha256(), 0, time.monotonic()
    said = begun
    try:
        with (
            httpx.stream(
                "GET", url, headers=dict(headers), follow_redirects=True, timeout=60
            ) as it,
            draft.open("wb") as file,
        ):
            if it.is_error:
                raise MakingError(f"cannot be fetched: {_host(url)} answered {it.status_code}")
            size = int(it.headers.get("Content-Length", 0))
            for block in it.iter_bytes(_BLOCK):
                file.write(block)
                digest.update(block)
                done += len(block)
                if time.monotonic() - said > _REPORT_SECONDS:
                    said = time.monotonic()
                    say(f"fetching {target.name}: {so_far(said - begun, done, size)}")
    except httpx.HTTPError as error:
        raise MakingError(f"cannot be fetched from {_host(url)}: {reason(error)}") from None
    if digest.hexdigest() != sha256:
        draft.unlink()
        raise MakingError(f"is refused: {target.name} has another SHA-256 than its pin")
    draft.replace(target)


def _host(url: str) -> str:
    return urlsplit(url).hostname or url
