"""The deploys that a host keeps, and the way back to one of them (docs/decisions/0075).

Kept are the files of stack and gateway with the receipt, in one archive a deploy that only root may
read; the images stay in Docker's store. Pure: what a host keeps comes from facts/kept.py,
operations/rollback.py runs the commands.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from llmhost.docker.compose import start_script
from llmhost.gateway.nginx import CANDIDATE, activate_script
from llmhost.gateway.tls import CERTIFICATE
from llmhost.gateway.tree import NginxPaths
from llmhost.history import receipt
from llmhost.settings import Settings
from llmhost.template import render

EARLIER = 3
"""Deploys before the present one that a host keeps."""


@dataclass(frozen=True)
class Kept:
    """A deploy that can be returned to. `name` is made of its time; `paths` are what was archived;
    `images` are ids by reference; `status_port` is that of its gateway."""

    name: str
    receipt: str
    paths: frozenset[str]
    status_port: int | None

    @property
    def record(self) -> dict[str, Any]:
        return receipt.parse(self.receipt) or {}

    @property
    def time(self) -> str:
        return str(self.record.get("time", self.name))

    @property
    def images(self) -> Mapping[str, str]:
        return _images_of(self.receipt)

    @property
    def revision(self) -> str:
        """Of the llmhost that made it, as the history shows it."""
        made_by = self.record.get("toolkit")
        made_by = made_by if isinstance(made_by, dict) else {}
        shown = str(made_by.get("revision") or made_by.get("version") or "unknown")
        return shown[:8] + ("+" if made_by.get("modified") else "")


@dataclass(frozen=True)
class Image:
    """An image of llmhost's own. `layers` are digests from the bottom up; `in_use` by a container,
    running or not."""

    id: str
    references: tuple[str, ...]
    size_bytes: int
    layers: tuple[str, ...]
    in_use: bool = False


@dataclass(frozen=True)
class KeptState:
    """What is on a host: kept deploys, the text of the present receipt, images of ours, and files
    that wait in the upload directory (names)."""

    deploys: tuple[Kept, ...] = ()
    present: str = ""
    images: tuple[Image, ...] = ()
    uploads: tuple[str, ...] = ()

    @property
    def images_of_deploys(self) -> frozenset[str]:
        """References of all images that the present deploy or a kept one runs."""
        receipts = (self.present, *(each.receipt for each in self.deploys))
        return frozenset(name for each in receipts for name in _images_of(each))

    @property
    def earlier(self) -> tuple[Kept, ...]:
        """Deploys before the present one, the newest first."""
        now = name_of(self.present)
        found = sorted(self.deploys, key=lambda each: each.name, reverse=True)
        return tuple(each for each in found if each.name < now)


@dataclass(frozen=True)
class DeployPaths:
    """Where a host has what is kept. `receipt` is the newest receipt; `gateway` is the directory of
    nginx's files beside nginx.conf; `certificate` is a file's name in it."""

    receipt: str
    stack: str
    project: str
    start_timeout_seconds: int
    gateway: str
    certificate: str

    @property
    def kept(self) -> str:
        return kept_directory(self.receipt)

    @property
    def nginx(self) -> str:
        return str(PurePosixPath(self.gateway).parent)

    @property
    def compose_file(self) -> str:
        return f"{self.stack}/compose.yaml"

    @property
    def archived(self) -> tuple[str, ...]:
        """Everything that is kept of a deploy."""
        gateway = (f"{self.nginx}/nginx.conf", self.gateway)
        return (self.compose_file, f"{self.stack}/services", *gateway)


def places_of(settings: Settings) -> DeployPaths:
    """Where a host has what is kept of its deploys."""
    return DeployPaths(
        receipt=settings.receipt.path,
        stack=settings.stack.directory,
        project=settings.stack.project,
        start_timeout_seconds=settings.stack.start_timeout_seconds,
        gateway=NginxPaths().own,
        certificate=CERTIFICATE,
    )


def kept_directory(receipt_path: str) -> str:
    """Where a host keeps its deploys."""
    return str(PurePosixPath(receipt_path).parent / "deploys")


def name_of(text: str) -> str:
    """What a deploy with this receipt is called; empty without a receipt."""
    record = receipt.parse(text)
    return receipt.archive_name(record) if record else ""


def _images_of(text: str) -> Mapping[str, str]:
    found = (receipt.parse(text) or {}).get("images")
    return found if isinstance(found, dict) else {}


def keep_script(text: str, places: DeployPaths) -> str:
    """Shell script that keeps the deploy as it is on the disk; its receipt, `text`, on stdin."""
    return render(
        "history/keep.sh.j2",
        kept=shlex.quote(places.kept),
        deploy=name_of(text),
        paths=shlex.join(path.lstrip("/") for path in places.archived),
        most=EARLIER + 1,
    )


def chosen(found: KeptState, steps: int) -> Kept | str:
    """The deploy so many steps before the present one, or why there is none to return to."""
    earlier = found.earlier
    if not found.present:
        return "there is no receipt: nothing was deployed to its end yet"
    if not earlier:
        return "no earlier deploy is kept; the next deploy that changes something keeps this one"
    if steps > len(earlier):
        many = "1 earlier deploy is" if len(earlier) == 1 else f"{len(earlier)} earlier ones are"
        return f"only {many} kept, so there is none {steps} steps back; --list shows them"
    kept = earlier[steps - 1]
    if gone := missing_images(kept, found.images):
        return (
            f"the deploy of {kept.time} needs images that are gone or are others by now:"
            f" {', '.join(gone)}; deploy its inventory (revision {kept.revision}) instead,"
            " which builds them"
        )
    return kept


def missing_images(kept: Kept, images: Sequence[Image]) -> list[str]:
    """References that do not mean the same image any more."""
    there = {reference: image.id for image in images for reference in image.references}
    return [reference for reference, id in kept.images.items() if there.get(reference) != id]


def other_places(kept: Kept, places: DeployPaths) -> bool:
    """Whether a deploy's files lie elsewhere than the inventory now says."""
    files = {path.lstrip("/") for path in (places.compose_file, f"{places.nginx}/nginx.conf")}
    of_stack = bool(kept.images) and places.compose_file.lstrip("/") not in kept.paths
    return of_stack or not files & kept.paths


def return_script(kept: Kept, found: KeptState, places: DeployPaths, marker: str) -> str:
    """Shell script that lets the kept deploy take the present one's place.

    `marker` is a text that no other run has: the running nginx is to tell this configuration from
    all others, also from the kept one, which it differs from where a key was revoked since.
    """
    digest = hashlib.sha256(f"{kept.name} {marker}".encode()).hexdigest()
    port, compose = kept.status_port, places.compose_file
    return render(
        "history/return.sh.j2",
        activate=activate_script(port, digest) if port else "",
        candidate=shlex.quote(f"{places.nginx}/{CANDIDATE}"),
        certificate=shlex.quote(places.certificate),
        digest=digest,
        gateway=port is not None,
        kept=shlex.quote(places.kept),
        deploy=kept.name,
        own=shlex.quote(places.gateway),
        present=shlex.quote(f"{name_of(found.present)}.json"),
        project=places.project,
        receipt=shlex.quote(places.receipt),
        receipts=shlex.quote(str(PurePosixPath(places.receipt).parent / "receipts")),
        root=shlex.quote(places.nginx),
        stack=compose.lstrip("/") in kept.paths,
        stack_place=shlex.quote(places.stack),
        start=start_script(places.project, compose, places.start_timeout_seconds),
    )


def valid_name(name: str) -> bool:
    """Whether a file can be a kept deploy's: names reach shell scripts."""
    return bool(re.fullmatch(r"[\w-]+", name, re.ASCII))
