"""Images: built on the host, or loaded from a bundle."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pyinfra.api import FileUploadCommand, StringCommand

from llmhost.bundle.manifest import WAITING
from llmhost.docker import image_scripts as core
from llmhost.docker.disk_space import Room, shortage
from llmhost.docker.image import (
    ModelImage,
    ServiceImage,
    WeightsFile,
    missing,
    missing_stages,
    models_to_build,
    redundant,
)
from llmhost.docker.stages import StageImage, free_script, recover_script
from llmhost.facts.disk_space import HostRoom
from llmhost.facts.images import Images, ImageStore, ModelHolders
from llmhost.facts.model_store import FromStore
from llmhost.models.files import sha256_of
from llmhost.models.store import address, credentials, curl_configuration, open_address
from llmhost.operations.builds import builds
from llmhost.operations.changes import explain, refuse, warn
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.progress import reported
from llmhost.options.model_store import ModelStore
from llmhost.secret import read_token
from llmhost.system.files import UNPACK, archive


def _question(images: Sequence[ServiceImage], uploads: str, waiting: str) -> Question:
    models = [model for image in images for model in image.models]
    stages = [stage for image in images for stage in image.stages]
    references = [*(image.reference for image in images), *(model.reference for model in models)]
    references += [stage.reference for stage in stages]
    return ask(Images, references=references, uploads=uploads, waiting=waiting)


@declared(
    prefetch=lambda *images, uploads, waiting=WAITING, **_: [_question(images, uploads, waiting)]
)
def built(
    *images: ServiceImage,
    uploads: str,
    waiting: str = WAITING,
    check_room: bool = True,
    once: bool = True,
) -> Commands:
    """Build every image whose inputs differ from the image with its name.

    If a bundle has copied its archive to the directory `waiting`, an image is loaded instead.

    Weights are transferred only if a service's image must be built and the image of the weights
    does not exist. They go through the directory `uploads`, which is removed at the end. Weights
    with a wrong SHA-256 are refused; those on the controller are checked before the first change.
    What the site's store lacks, or has with a wrong SHA-256, comes from its source, with a warning.
    Images that share nothing are built side by side where memory allows (docs/decisions/0162).
    With `check_room`, the operation refuses what does not fit on the host's disks. With `once`,
    pulled engines, models and the builder's cache are removed if built images have them too.
    """
    store = get_fact(Images, **_question(images, uploads, waiting).arguments)
    todo = _todo(images, store)
    if mistakes := [*_mistakes(todo.weights)]:
        yield refuse(mistakes)
        return
    arriving = {model: _arriving(model, store.uploads) for model in todo.weights}
    sizes: Mapping[ModelImage, Sizes] = {}
    if todo.building:
        room = _room(uploads, arriving.values(), todo.adding)
        sizes = {m: {f.sha256: _size(f, room) for f in arriving[m]} for m in todo.weights}
        if check_room and (lacking := shortage(room, sizes, todo.adding)):
            yield refuse(lacking)
            return
    left = [f"{uploads} is left from an interrupted run"] if store.uploads else []
    reasons = [*todo.weights.values(), *todo.services.values(), *left]
    if not reasons:
        return
    explain(reasons)
    yield StringCommand(core.prepare_script(uploads))
    for model in todo.weights:
        yield from _transferred(model, arriving[model], uploads, sizes[model])
    yield from _provided(todo, uploads, waiting)
    yield StringCommand(core.tidy_script(uploads))
    if once and todo.building:
        whole_cache = not any(image.runs_programs for image in images)
        yield StringCommand(free_script(redundant(images), whole_cache=whole_cache))


@dataclass(frozen=True)
class _Todo:
    """Missing images of services and of weights, each with the reason. A bundle has brought some of
    the services; the others are built, with their missing stages. `held` are weights that other
    images on the host contain, each with such an image."""

    services: Mapping[ServiceImage, str]
    weights: Mapping[ModelImage, str]
    held: Mapping[ModelImage, str]
    brought: Sequence[ServiceImage]
    building: Mapping[ServiceImage, Sequence[StageImage]]

    @property
    def adding(self) -> list[ServiceImage]:
        """Services whose builds need room: not those on top of stages that exist."""
        return [each for each, stages in self.building.items() if stages or not each.on_top]


def _todo(images: Sequence[ServiceImage], store: ImageStore) -> _Todo:
    services = missing(images, store.images)
    brought = [image for image in services if image.archive in store.archives]
    building = [image for image in services if image not in brought]
    needed = [model for each in building for model in models_to_build(each, store.images)]
    weights = missing(needed, store.images)
    held = _held(weights)
    return _Todo(
        services=services,
        weights={model: reason for model, reason in weights.items() if model not in held},
        held=held,
        brought=brought,
        building={image: missing_stages(image, store.images) for image in building},
    )


def _provided(todo: _Todo, uploads: str, waiting: str) -> Commands:
    """The images of services, whose weights are there or in other images."""
    for model, holder in todo.held.items():
        recover = recover_script(model.reference, model.inputs, model.paths, holder)
        yield StringCommand(recover)
    for image in todo.brought:
        with reported(f"loading the image of {image.service}"):
            yield StringCommand(core.load_script(image, waiting))
    if todo.building:
        scripts = [
            core.whole_build(image, stages, uploads) for image, stages in todo.building.items()
        ]
        yield StringCommand(UNPACK, _stdin=archive({each.path: each for each in scripts}))
        yield builds([*todo.building], uploads)


def _held(models: Iterable[ModelImage]) -> dict[ModelImage, str]:
    """Those of the models that other images on the host contain, each with such an image. The host
    is asked only if there are models."""
    wanted = [*models]
    holders = get_fact(ModelHolders) if wanted else {}
    return {model: holders[model.inputs] for model in wanted if model.inputs in holders}


Sizes = Mapping[str, int]
"""Bytes by SHA-256 of the files to transfer; 0 if unknown."""


def _transferred(
    model: ModelImage, files: Sequence[WeightsFile], uploads: str, sizes: Sizes
) -> Commands:
    """The image of a model's weights, with these files transferred."""
    for file in files:
        yield from _obtain(model.model, file, uploads, sizes[file.sha256])
    with reported(f"building the weights image of {model.model}"):
        yield StringCommand(core.import_script(model, uploads))


def _arriving(model: ModelImage, waiting: Sequence[str]) -> tuple[WeightsFile, ...]:
    """Files to transfer; identical files of a model are transferred once."""
    return tuple({f.sha256: f for f in model.files if f.sha256 not in waiting}.values())


def _room(
    uploads: str, arriving: Iterable[Sequence[WeightsFile]], building: Sequence[ServiceImage]
) -> Room:
    # Sources and stores that need a secret are not asked for sizes.
    wanted = [file for files in arriving for file in files]
    remote = {file.source for file in wanted if file.remote and not file.token}
    remote |= {place for file in wanted if file.remote and (place := _in_store(file))}
    return get_fact(
        HostRoom,
        uploads=uploads,
        addresses=sorted(remote),
        engines=sorted({image.engine for image in building if image.engine}),
    )


def _size(file: WeightsFile, room: Room) -> int:
    if not file.remote:
        return Path(file.source).stat().st_size
    return room.sizes.get(_in_store(file)) or room.sizes.get(file.source, 0)


def _in_store(file: WeightsFile) -> str:
    """Where the site's store has weights, if it can be asked without a secret."""
    return open_address(file.store, file.sha256) if file.store else ""


def _obtain(model: str, file: WeightsFile, uploads: str, size: int) -> Commands:
    """Transfer weights to the host."""
    if file.store:
        yield from _from_store(model, file, file.store, uploads, size)
        if not (why := get_fact(FromStore, whole=core.upload_path(file, uploads))):
            return
        warn(f"{why}; the weights of {model} come from their source")
    part = core.partial_path(file, uploads)
    if file.remote:
        secret = core.authorization(read_token(file.token)) if file.token else ""
        with reported(f"downloading the weights of {model}", part, size):
            yield StringCommand(core.download_script(model, file, uploads), _stdin=secret)
    else:
        with reported(f"uploading the weights of {model}", part, size):
            # As the login user: with sudo, pyinfra would go through /tmp, which may be small.
            yield FileUploadCommand(file.source, part, _sudo=False)


def _from_store(
    model: str, file: WeightsFile, store: ModelStore, uploads: str, size: int
) -> Commands:
    configuration = ""
    if not store.share:
        now = datetime.now(UTC)
        configuration = curl_configuration(store, credentials(store), file.sha256, now)
    place = address(store, file.sha256)
    with reported(
        f"fetching the weights of {model} from the model store",
        core.stored_path(file, uploads),
        size,
    ):
        yield StringCommand(core.store_script(file, place, uploads), _stdin=configuration)


def _mistakes(models: Iterable[ModelImage]) -> Iterator[str]:
    for model in models:
        yield from filter(None, (_mistake(model.model, file) for file in model.files))


def _mistake(model: str, file: WeightsFile) -> str:
    """Why weights are unavailable; empty if the controller finds no problem."""
    try:
        if file.store:
            credentials(file.store)
    except ValueError as error:
        return str(error)
    if file.remote:
        return _unreadable(model, file.token)
    path = Path(file.source)
    if not path.is_file():
        return f"The weights of {model} are not on the controller: there is no {path}"
    found = sha256_of(path)
    if found == file.sha256:
        return ""
    return (
        f"The weights of {model} ({path}) have SHA-256 {found} instead of {file.sha256}:"
        " download the file again, or correct its pin or source in models"
    )


def _unreadable(model: str, token: str) -> str:
    try:
        if token:
            read_token(token)
    except ValueError as error:
        return f"The token of {model} {error}"
    return ""
