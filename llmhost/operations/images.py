"""Images built on the host."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand

from llmhost import image as core
from llmhost.facts.images import Images
from llmhost.filetree import archive
from llmhost.image import ModelImage, ServiceImage, missing
from llmhost.operations.changes import Commands, declared, explain, refuse


@declared
def built(*images: ServiceImage, uploads: str) -> Commands:
    """Make every image whose inputs differ from what is there under its name, and no other.

    Weights come to the host only when a service's image has to be built and their own image is not
    there. They pass through the directory `uploads`, which is removed in the end. Weights whose
    SHA-256 is not the declared one are refused, those on the controller before anything is changed.
    """
    models = [model for image in images for model in image.models]
    references = [*(image.reference for image in images), *(model.reference for model in models)]
    store = host.get_fact(Images, references=references, uploads=uploads)
    services = missing(images, store.images)
    weights = missing([model for image in services for model in image.models], store.images)
    reasons = [*weights.values(), *services.values()]
    if store.uploads:
        reasons.append(f"{uploads} holds what an interrupted run left")
    if mistakes := [mistake for model in weights if (mistake := _mistake(model))]:
        yield refuse(mistakes)
    elif reasons:
        explain(reasons)
        yield StringCommand(core.prepare_script(uploads))
        for model in weights:
            yield from _obtain(model, uploads, store.uploads)
        for image in services:
            contents = archive({file.path: file for file in image.build_files})
            yield StringCommand(core.build_script(image), _stdin=contents)
        yield StringCommand(core.tidy_script(uploads))


def _obtain(model: ModelImage, uploads: str, waiting: Sequence[str]) -> Commands:
    """Bring the weights to the host, unless they wait there, and make their image."""
    if model.sha256 not in waiting:
        if model.remote:
            yield StringCommand(core.download_script(model, uploads))
        else:
            # As the user who logged in: with sudo, pyinfra would go through /tmp, which is small.
            part = core.partial_path(model, uploads)
            yield FileUploadCommand(model.source, part, _sudo=False)
    yield StringCommand(core.import_script(model, uploads))


def _mistake(model: ModelImage) -> str:
    """Why weights on the controller can not be used; empty if they can, or are not there."""
    if model.remote:
        return ""
    path = Path(model.source)
    if not path.is_file():
        return f"The weights of {model.model} are not on the controller: there is no {path}"
    state = path.stat()
    found = _sha256(path, state.st_size, state.st_mtime_ns)
    if found == model.sha256:
        return ""
    return (
        f"The weights of {model.model}, {path}, have the SHA-256 {found}, not {model.sha256}:"
        " correct sha256 or source in models"
    )


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """Digest of a file, read once however many hosts and phases ask for it."""
    del size, modified  # they tell versions of the file apart
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
