"""`llmhost model store`: fill the site's store with the weights that an inventory pins."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer

from llmhost.cli.arguments import Limit
from llmhost.cli.errors import stop
from llmhost.cli.model import InventoryFile
from llmhost.cli.model import app as app
from llmhost.cli.model_make import make_models as make_models
from llmhost.cli.session import site_hosts
from llmhost.cli.store_client import (
    UNKNOWN,
    DirectoryStore,
    StoreError,
    WebStore,
    client,
    opened,
)
from llmhost.docker.image import WeightsFile
from llmhost.inventory.site import SiteHost
from llmhost.making.fetch import download
from llmhost.making.tools import MakingError
from llmhost.models.files import sha256_of
from llmhost.options.model_store import ModelStore
from llmhost.secret import read_token
from llmhost.stack.training import all_images
from llmhost.units import counted, gib

Wanted = Mapping[str, tuple[str, WeightsFile]]
"""By SHA-256: the name of a model, and a file of it."""


@app.command("store")
def fill_store(
    inventory: InventoryFile,
    limit: Limit = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Write to this directory of the controller instead of model_store_location",
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Also replace files that the store has")
    ] = False,
) -> None:
    """Copy the pinned weights of an inventory to the site's store, in model_store_location.

    Weights come from their sources, or from the controller, and are checked by their digests. What
    the store has is left as it is.
    """
    found = _by_store(site_hosts(inventory, limit or []))
    if not found:
        stop(f"{inventory} sets model_store_location for no host with models; set it")
    if to and len(found) > 1:
        places = " and ".join(sorted(str(store.location) for store in found))
        stop(f"--to is for one store, and {inventory} has {places}; choose hosts with --limit")
    for store, wanted in found.items():
        try:
            _fill(store, wanted, to, update=update)
        except StoreError as error:
            stop(f"{store.location}: {error}")
        except OSError as error:
            stop(f"{error.filename or store.location} cannot be written: {error.strerror}")


def _by_store(hosts: Iterable[SiteHost]) -> dict[ModelStore, dict[str, tuple[str, WeightsFile]]]:
    found: dict[ModelStore, dict[str, tuple[str, WeightsFile]]] = {}
    for host in hosts:
        for image in all_images(host.settings):
            for model in image.models:
                for file in model.files:
                    if file.store:
                        known = found.setdefault(file.store, {})
                        known.setdefault(file.sha256, (model.model, file))
    return found


def _fill(store: ModelStore, wanted: Wanted, to: Path | None, *, update: bool) -> None:
    there = 0
    silent: set[str] = set()
    with client() as http:
        target = opened(store, to, http)
        for sha256, (model, file) in wanted.items():
            if not update and _has(target, file, silent):
                there += 1
                continue
            size = _store(target, model, file)
            typer.echo(f"{model}: {Path(file.path).name}, {gib(size)}: stored as {sha256}")
    added = len(wanted) - there
    typer.echo(f"{to or store.location}: {counted(added, 'file')} stored, {there} there already")


def _has(target: DirectoryStore | WebStore, file: WeightsFile, silent: set[str]) -> bool:
    """Whether the store has the file. One that is shorter is left from an interrupted copy: it
    has another length than the source, unless that does not say its own."""
    stored = target.size(file.sha256)
    if stored in (None, UNKNOWN):
        return stored == UNKNOWN
    return _size_at_source(file, silent) in (None, stored)


def _size_at_source(file: WeightsFile, silent: set[str]) -> int | None:
    """None if it is unknown. `silent` are the hosts that do not answer, which are asked once."""
    if not file.remote:
        return Path(file.source).stat().st_size
    place = urlsplit(file.source).netloc
    if place in silent:
        return None
    try:
        headers = {"Accept-Encoding": "identity", **_authorization(file)}
        answer = httpx.head(file.source, headers=headers, follow_redirects=True, timeout=20)
    except (httpx.HTTPError, ValueError):
        silent.add(place)
        return None
    length = answer.headers.get("Content-Length", "")
    return int(length) or None if answer.is_success and length.isdecimal() else None


def _store(target: DirectoryStore | WebStore, model: str, file: WeightsFile) -> int:
    """Bytes of the file that was stored."""
    if not file.remote:
        _check(model, file)
        target.put(file.sha256, Path(file.source))
        return Path(file.source).stat().st_size
    with tempfile.TemporaryDirectory(prefix=".llmhost-", dir=target.near) as directory:
        place = Path(directory, file.sha256)
        try:
            headers = _authorization(file)
            download(file.source, headers, place, file.sha256, lambda text: _say(model, text))
        except OSError as error:
            more = "" if target.near else "; set TMPDIR to a directory with space for it"
            stop(f"{model}: {directory} cannot be written: {error.strerror}{more}")
        except ValueError as error:
            stop(f"{model}: its token {error}")
        except MakingError as error:
            stop(f"{model} {error}")
        size = place.stat().st_size
        target.put(file.sha256, place, move=True)
        return size


def _authorization(file: WeightsFile) -> dict[str, str]:
    """Raises ValueError for a token that cannot be used."""
    return {"Authorization": f"Bearer {read_token(file.token)}"} if file.token else {}


def _check(model: str, file: WeightsFile) -> None:
    if sha256_of(Path(file.source)) != file.sha256:
        stop(f"{model}: {file.source} has another SHA-256 than its pin; download it again")


def _say(model: str, text: str) -> None:
    typer.echo(f"{model}: {text}", err=True)
