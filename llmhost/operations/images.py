"""Images built on the host, or brought to it."""

from collections.abc import Sequence
from pathlib import Path

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand

from llmhost import image as core
from llmhost.bundle import WAITING
from llmhost.facts.images import Images
from llmhost.filetree import archive
from llmhost.image import ModelImage, ServiceImage, Weights, missing
from llmhost.model_files import sha256_of
from llmhost.operations.changes import Commands, declared, explain, refuse


@declared
def built(*images: ServiceImage, uploads: str, waiting: str = WAITING) -> Commands:
    """Make every image whose inputs differ from what is there under its name, and no other.

    One whose archive a bundle brought to the directory `waiting` is loaded and not built.

    Weights come to the host only when a service's image has to be built and their own image is not
    there. They pass through the directory `uploads`, which is removed in the end. Weights whose
    SHA-256 is not the declared one are refused, those on the controller before anything is changed.
    """
    models = [model for image in images for model in image.models]
    references = [*(image.reference for image in images), *(model.reference for model in models)]
    store = host.get_fact(Images, references=references, uploads=uploads, waiting=waiting)
    services = missing(images, store.images)
    brought = [image for image in services if image.archive in store.archives]
    building = [image for image in services if image not in brought]
    weights = missing([model for image in building for model in image.models], store.images)
    reasons = [*weights.values(), *services.values()]
    if store.uploads:
        reasons.append(f"{uploads} holds what an interrupted run left")
    files = [(model.model, file) for model in weights for file in model.files]
    if mistakes := [mistake for name, file in files if (mistake := _mistake(name, file))]:
        yield refuse(mistakes)
    elif reasons:
        explain(reasons)
        yield StringCommand(core.prepare_script(uploads))
        for model in weights:
            yield from _obtain(model, uploads, store.uploads)
        for image in brought:
            yield StringCommand(core.load_script(image, waiting))
        for image in building:
            contents = archive({file.path: file for file in image.build_files})
            yield StringCommand(core.build_script(image), _stdin=contents)
        yield StringCommand(core.tidy_script(uploads))


def _obtain(model: ModelImage, uploads: str, waiting: Sequence[str]) -> Commands:
    """Bring the weights to the host, unless they wait there, and make their image."""
    # Equal files of one model are one upload.
    arriving = {file.sha256: file for file in model.files if file.sha256 not in waiting}
    for file in arriving.values():
        if file.remote:
            yield StringCommand(core.download_script(file, uploads))
        else:
            # As the user who logged in: with sudo, pyinfra would go through /tmp, which is small.
            part = core.partial_path(file, uploads)
            yield FileUploadCommand(file.source, part, _sudo=False)
    yield StringCommand(core.import_script(model, uploads))


def _mistake(model: str, file: Weights) -> str:
    """Why weights on the controller can not be used; empty if they can, or are not there."""
    if file.remote:
        return ""
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
