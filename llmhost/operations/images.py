"""Images built on the host, or brought to it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pyinfra.api import FileUploadCommand, StringCommand

from llmhost.bundle.manifest import WAITING
from llmhost.docker import image as core
from llmhost.docker.disk_space import Room, shortage
from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile, missing
from llmhost.facts.disk_space import HostRoom
from llmhost.facts.images import Images
from llmhost.models.files import sha256_of
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.progress import told
from llmhost.secret import read_secret
from llmhost.system.files import archive


def _question(images: Sequence[ServiceImage], uploads: str, waiting: str) -> Question:
    models = [model for image in images for model in image.models]
    references = [*(image.reference for image in images), *(model.reference for model in models)]
    return ask(Images, references=references, uploads=uploads, waiting=waiting)


@declared(
    prefetch=lambda *images, uploads, waiting=WAITING, **_: [_question(images, uploads, waiting)]
)
def built(
    *images: ServiceImage, uploads: str, waiting: str = WAITING, check_room: bool = True
) -> Commands:
    """Make every image whose inputs differ from what is there under its name, and no other.

    One whose archive a bundle brought to the directory `waiting` is loaded and not built.

    Weights come to the host only when a service's image has to be built and their own image is not
    there. They pass through the directory `uploads`, which is removed in the end. Weights whose
    SHA-256 is not the declared one are refused, those on the controller before anything is changed,
    and so is with `check_room` what will not fit on the host's disks.
    """
    store = get_fact(Images, **_question(images, uploads, waiting).arguments)
    services = missing(images, store.images)
    brought = [image for image in services if image.archive in store.archives]
    building = [image for image in services if image not in brought]
    weights = missing([model for image in building for model in image.models], store.images)
    reasons = [*weights.values(), *services.values()]
    if store.uploads:
        reasons.append(f"{uploads} holds what an interrupted run left")
    files = [(model.model, file) for model in weights for file in model.files]
    arriving = {model: _arriving(model, store.uploads) for model in weights}
    if mistakes := [mistake for name, file in files if (mistake := _mistake(name, file))]:
        yield refuse(mistakes)
        return
    sizes: Sizes = {}
    if building:
        room = _room(uploads, arriving.values(), building)
        sizes = {model: {f.sha256: _size(f, room) for f in arriving[model]} for model in weights}
        if check_room and (lacking := shortage(room, sizes, building)):
            yield refuse(lacking)
            return
    if reasons:
        explain(reasons)
        yield StringCommand(core.prepare_script(uploads))
        for model in weights:
            for file in arriving[model]:
                yield from _obtain(model.model, file, uploads, sizes[model][file.sha256])
            with told(f"making the image of {model.model}'s weights"):
                yield StringCommand(core.import_script(model, uploads))
        for image in brought:
            with told(f"loading the image of {image.service}"):
                yield StringCommand(core.load_script(image, waiting))
        for image in building:
            contents = archive({file.path: file for file in image.build_files})
            with told(f"building the image of {image.service}"):
                yield StringCommand(core.build_script(image), _stdin=contents)
        yield StringCommand(core.tidy_script(uploads))


Sizes = Mapping[ModelImage, Mapping[str, int]]
"""Bytes by SHA-256 of the files that have to be brought; 0 where nobody knows."""


def _arriving(model: ModelImage, waiting: Sequence[str]) -> tuple[WeightsFile, ...]:
    """Files that have to be brought; equal files of one model are brought once."""
    return tuple({f.sha256: f for f in model.files if f.sha256 not in waiting}.values())


def _room(
    uploads: str, arriving: Iterable[Sequence[WeightsFile]], building: Sequence[ServiceImage]
) -> Room:
    # Who asks for a token is not asked for a size.
    remote = {f.source for files in arriving for f in files if f.remote and not f.token}
    return get_fact(
        HostRoom,
        uploads=uploads,
        addresses=sorted(remote),
        engines=sorted({image.engine for image in building if image.engine}),
    )


def _size(file: WeightsFile, room: Room) -> int:
    return room.sizes.get(file.source, 0) if file.remote else Path(file.source).stat().st_size


def _obtain(model: str, file: WeightsFile, uploads: str, size: int) -> Commands:
    """Bring weights to the host."""
    part = core.partial_path(file, uploads)
    if file.remote:
        secret = core.authorization(read_secret(file.token)) if file.token else ""
        with told(f"downloading the weights of {model}", part, size):
            yield StringCommand(core.download_script(model, file, uploads), _stdin=secret)
    else:
        with told(f"uploading the weights of {model}", part, size):
            # As the user who logged in: with sudo, pyinfra would go through /tmp, which is small.
            yield FileUploadCommand(file.source, part, _sudo=False)


def _mistake(model: str, file: WeightsFile) -> str:
    """Why weights can not be had; empty if they can, as far as the controller knows."""
    if file.remote:
        return _unreadable(model, file.token)
    path = Path(file.source)
    if not path.is_file():
        return f"The weights of {model} are not on the controller: there is no {path}"
    found = sha256_of(path)
    if found == file.sha256:
        return ""
    return (
        f"The weights of {model}, {path}, have the SHA-256 {found}, not {file.sha256}:"
        " correct its pins or its source in models"
    )


def _unreadable(model: str, token: str) -> str:
    try:
        if token:
            read_secret(token)
    except ValueError as error:
        return f"The token of {model} {error}"
    return ""
