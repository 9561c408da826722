"""The deploys that a host keeps, and how to return to one of them (docs/decisions/0075).

Each kept deploy is an archive of the files of stack and gateway with the receipt, readable by root
only; the images stay in Docker's store. Pure: facts/kept_deploys.py reads what a host keeps,
operations/rollback.py runs the commands.
"""

import hashlib
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from llmhost.docker.compose import LOCK, start_script
from llmhost.gateway.nginx import CANDIDATE, activate_script
from llmhost.gateway.tls import CERTIFICATE
from llmhost.gateway.tree import NginxPaths
from llmhost.history import receipt, run_record
from llmhost.settings import Settings
from llmhost.template import render

EARLIER = 3
"""How many deploys before the current one a host keeps."""

GROUP = "engine_group"
"""Key of a receipt: a digest of what members of an engine group must have in common."""

_TITLE = "Roll back to the deploy of"
_CHANGING = ("Gateway | ", "Stack | ", _TITLE)
"""Beginnings of the names of operations that change what a rollback returns."""


@dataclass(frozen=True)
class Kept:
    """A kept deploy. `name` comes from its time; `paths` are the archived files; `images` are ids
    by reference; `status_port` is that of its gateway."""

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
        """The llmhost revision that deployed it, as the history shows it."""
        made_by = self.record.get("toolkit")
        made_by = made_by if isinstance(made_by, dict) else {}
        shown = str(made_by.get("revision") or made_by.get("version") or "unknown")
        return shown[:8] + ("+" if made_by.get("modified") else "")


@dataclass(frozen=True)
class Image:
    """An llmhost image. `layers` are digests from the bottom up; `in_use` is true if a container
    uses it, running or not; `pulled_as` are names of a pulled image, by digest."""

    id: str
    references: tuple[str, ...]
    size_bytes: int
    layers: tuple[str, ...]
    in_use: bool = False
    pulled_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptState:
    """State of a host: kept deploys, the text of the current receipt, llmhost's images, and the
    names of files in the upload directory. `unfinished`: a later run has changed stack or gateway,
    and has failed or was cut off, so that they are no longer those of the current receipt."""

    deploys: tuple[Kept, ...] = ()
    present: str = ""
    images: tuple[Image, ...] = ()
    uploads: tuple[str, ...] = ()
    unfinished: bool = False

    @property
    def images_of_deploys(self) -> frozenset[str]:
        """References of all images that the current deploy or a kept one uses."""
        receipts = (self.present, *(each.receipt for each in self.deploys))
        return frozenset(name for each in receipts for name in _images_of(each))

    @property
    def earlier(self) -> tuple[Kept, ...]:
        """Deploys before the current one, newest first. After an unfinished run, the current one is
        the last complete deploy, and one of them."""
        now = name_of(self.present)
        found = sorted(self.deploys, key=lambda each: each.name, reverse=True)
        first = {now} if self.unfinished else set()
        return tuple(each for each in found if each.name < now or each.name in first)


@dataclass(frozen=True)
class DeployPaths:
    """Paths of what is kept on a host. `receipt` is the newest receipt; `gateway` is the directory
    of nginx's files beside nginx.conf; `certificate` is the name of a file in it."""

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
        """All paths that are archived with a deploy."""
        gateway = (f"{self.nginx}/nginx.conf", self.gateway)
        return (self.compose_file, f"{self.stack}/services", *gateway)


def places_of(settings: Settings) -> DeployPaths:
    """Paths of what a host keeps of its deploys."""
    return DeployPaths(
        receipt=settings.receipt.path,
        stack=settings.stack.directory,
        project=settings.stack.project,
        start_timeout_seconds=settings.stack.start_timeout_seconds,
        gateway=NginxPaths().own,
        certificate=CERTIFICATE,
    )


def kept_directory(receipt_path: str) -> str:
    """Directory of the kept deploys."""
    return str(PurePosixPath(receipt_path).parent / "deploys")


def name_of(text: str) -> str:
    """Name of the deploy with this receipt; empty without a receipt."""
    record = receipt.parse(text)
    return receipt.archive_name(record) if record else ""


def _images_of(text: str) -> Mapping[str, str]:
    found = (receipt.parse(text) or {}).get("images")
    return found if isinstance(found, dict) else {}


def keep_script(text: str, places: DeployPaths) -> str:
    """Shell script that archives the deploy from disk; reads its receipt, `text`, from stdin."""
    return render(
        "history/keep.sh.j2",
        kept=shlex.quote(places.kept),
        deploy=name_of(text),
        paths=shlex.join(path.lstrip("/") for path in places.archived),
        most=EARLIER + 1,
    )


def chosen(found: KeptState, steps: int) -> Kept | str:
    """The deploy this many steps before the current one, or the reason why there is none."""
    earlier = found.earlier
    if not found.present:
        return "there is no receipt: no deploy has completed on this host yet"
    if not earlier:
        return "no earlier deploy is kept; the next deploy with changes will keep the current one"
    if steps > len(earlier):
        many = "1 earlier deploy is" if len(earlier) == 1 else f"{len(earlier)} earlier deploys are"
        return f"cannot go back {steps} deploys: only {many} kept; --list shows them"
    kept = earlier[steps - 1]
    if gone := missing_images(kept, found.images):
        return (
            f"the deploy of {kept.time} needs images that were removed or replaced:"
            f" {', '.join(gone)}; to rebuild them, deploy its inventory (revision {kept.revision})"
            " instead"
        )
    return kept


def steps_to(images: Collection[str], found: KeptState, group: object = None) -> int | str:
    """How many deploys to go back to the newest one that uses these images, and had this digest of
    an engine group, if there is one; 0 for the current one; or the reason why there is none."""
    present = () if found.unfinished else (found.present,)
    receipts = (*present, *(each.receipt for each in found.earlier))
    using = 0
    for steps, text in enumerate(receipts, start=int(found.unfinished)):
        if {*images} <= {*_images_of(text)}:
            using += 1
            if not group or (receipt.parse(text) or {}).get(GROUP) == group:
                kept = chosen(found, steps) if steps else ""
                return kept if kept and isinstance(kept, str) else steps
    more = " with the same options of the group" if using else ""
    return f"no kept deploy uses {', '.join(sorted(images))}{more}"


def title_of(kept: Kept) -> str:
    """What the history calls a return to this deploy."""
    return f"{_TITLE} {kept.time}"


def is_unfinished(lines: Iterable[str]) -> bool:
    """Whether the last run that changed stack or gateway has failed or was cut off, by the lines of
    a host's history."""
    results = [
        run.result
        for run in run_record.history(lines)
        if any(each.startswith(_CHANGING) for each in run.changed)
    ]
    return bool(results) and results[-1] != "done"


def missing_images(kept: Kept, images: Sequence[Image]) -> list[str]:
    """References that no longer point to the same image."""
    there = {reference: image.id for image in images for reference in image.references}
    return [reference for reference, id in kept.images.items() if there.get(reference) != id]


def other_places(kept: Kept, places: DeployPaths) -> bool:
    """Whether a deploy's files are at other paths than the inventory now declares."""
    files = {path.lstrip("/") for path in (places.compose_file, f"{places.nginx}/nginx.conf")}
    of_stack = bool(kept.images) and places.compose_file.lstrip("/") not in kept.paths
    return of_stack or not files & kept.paths


def return_script(kept: Kept, found: KeptState, places: DeployPaths, marker: str) -> str:
    """Shell script that replaces the current deploy with a kept one.

    `marker` is unique to this run. It distinguishes this configuration in the running nginx from
    all others, including the kept one, which differs if a key was revoked since then.
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
        lock="\n".join(LOCK),
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
    """Whether a file name can be that of a kept deploy; names are used in shell scripts."""
    return bool(re.fullmatch(r"[\w-]+", name, re.ASCII))
