"""Images whose tags are digests of their inputs: whether to build one is known in advance.

Weights are separate images. The image of a service is based on them and adds the engine on top, so
that a new engine does not move weights: docs/decisions/0005. What is then on the disk twice is
removed: docs/decisions/0142.

Pure: which images a host has comes from facts/images.py, the commands are run by
operations/images.py, which gets them from docker/image_scripts.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from llmhost.docker.stages import (
    ON_TOP,
    StageImage,
    base_stage,
    digest,
    engine_tag,
    recovered_tag,
    weights_stage,
)
from llmhost.options.model_store import ModelStore
from llmhost.system.files import File


@dataclass(frozen=True)
class WeightsFile:
    """One file of a model, and its path inside the image.

    `source` is a URL that the host downloads if `remote` is set, else a path on the controller.
    `token` refers to the secret for the URL, empty if it needs none. `store` is asked first.
    """

    sha256: str
    source: str
    remote: bool
    path: str
    token: str = ""
    store: ModelStore | None = None


@dataclass(frozen=True)
class ModelImage:
    """The weights of one model; at least one file."""

    model: str
    files: tuple[WeightsFile, ...]

    @property
    def inputs(self) -> str:
        return digest({file.path: file.sha256 for file in self.files})

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(file.path for file in self.files)

    @property
    def reference(self) -> str:
        """Repository and tag; the tag for a single file is the start of its SHA-256."""
        tag = self.files[0].sha256 if len(self.files) == 1 else self.inputs
        return f"llmhost/model-{self.model}:{tag[:12]}"


@dataclass(frozen=True)
class ServiceImage:
    """A service with its models baked in.

    `engine` is the reference of its engine's image, `context` the files of its build context,
    including the Dockerfile, by relative path. The Dockerfile can use the stage `base`, the engine
    on top of the weights, or else `engine` and `weights`; without an engine it has none.
    `build_args` are its arguments. `needs_glibc`: what runs in it does not load with musl.
    """

    service: str
    engine: str
    models: tuple[ModelImage, ...]
    context: tuple[File, ...]
    build_args: Mapping[str, str] = field(default_factory=dict, hash=False)
    needs_glibc: bool = False

    @property
    def _instructions(self) -> list[str]:
        text = next((file.data for file in self.context if file.path == "Dockerfile"), b"")
        return text.decode().splitlines()

    @property
    def on_top(self) -> bool:
        """Whether the engine is on top of the weights."""
        return ON_TOP in self._instructions

    @property
    def has_run_instruction(self) -> bool:
        """Whether a build runs programs."""
        return any(line.split()[:1] in (["RUN"], ["run"]) for line in self._instructions)

    @property
    def runs_programs(self) -> bool:
        """Whether a build runs programs that the builder's cache saves a network."""
        return not self.on_top and self.has_run_instruction

    @property
    def stages(self) -> tuple[StageImage, ...]:
        """Intermediate images, each based on the previous one."""
        if not self.on_top:
            return ()
        models = [(model.reference, model.inputs) for model in self.models]
        together = (weights_stage(self.service, models),) if len(models) > 1 else ()
        references = [*(stage.reference for stage in together), *(each for each, _ in models)]
        weights = (*references, "scratch")[0]
        paths = [path for model in self.models for path in model.paths]
        return (*together, base_stage(self.service, self.engine, weights, models, paths))

    @property
    def build_files(self) -> tuple[File, ...]:
        """The build context for the builder."""
        if not self.engine:
            return self.context
        return tuple(
            File(file.path, "\n".join([*self._header(), file.data.decode()]), file.mode)
            if file.path == "Dockerfile"
            else file
            for file in self.context
        )

    def _header(self) -> list[str]:
        if self.on_top:
            return [f"FROM {self.stages[-1].reference} AS base"]
        first, *others = [model.reference for model in self.models] or ["scratch"]
        copies = [f"COPY --link --from={each} / /" for each in others]
        return [f"FROM {self.engine} AS engine", f"FROM {first} AS weights", *copies]

    @property
    def inputs(self) -> str:
        files = {file.path: [file.mode, file.sha256] for file in self.build_files}
        inputs = {"files": files, "models": [model.inputs for model in self.models]}
        return digest(inputs | ({"build_args": self.build_args} if self.build_args else {}))

    @property
    def reference(self) -> str:
        """Repository and tag; equal inputs, equal tag."""
        return f"llmhost/{self.service}:{self.inputs[:16]}"

    @property
    def archive(self) -> str:
        """Name of the image's archive in a bundle, as `docker save` writes it."""
        return f"{self.service}-{self.inputs[:16]}.tar"


AnyImage = TypeVar("AnyImage", ModelImage, StageImage, ServiceImage)


@dataclass(frozen=True)
class ImageState:
    """An image on a host: its id, and the digest in its label, empty if it has none."""

    id: str
    inputs: str


def missing(images: Iterable[AnyImage], found: Mapping[str, ImageState]) -> dict[AnyImage, str]:
    """Images to create, each with the reason; `found` is by reference."""
    reasons = {image: _reason(image, found.get(image.reference)) for image in images}
    return {image: reason for image, reason in reasons.items() if reason}


def _reason(image: ModelImage | StageImage | ServiceImage, state: ImageState | None) -> str:
    if state is None:
        return f"image {image.reference} is missing"
    if state.inputs != image.inputs:
        return f"{image.reference} is a tag of another image"
    return ""


def missing_stages(image: ServiceImage, found: Mapping[str, ImageState]) -> list[StageImage]:
    """Intermediate images to build, in order: those after the last one that exists."""
    todo: list[StageImage] = []
    for stage in reversed(image.stages):
        if not missing([stage], found):
            break
        todo.insert(0, stage)
    return todo


def models_to_build(image: ServiceImage, found: Mapping[str, ImageState]) -> tuple[ModelImage, ...]:
    """Models whose own images the build of a service's image starts from."""
    return () if image.stages and missing_stages(image, found) != [*image.stages] else image.models


def redundant(images: Sequence[ServiceImage]) -> list[str]:
    """Images whose content is in built images too, and not as the same layers on the disk."""
    models = {model.reference for image in images for model in image.models}
    shared = {image.models[0].reference for image in images if image.on_top and image.models}
    bases = {image.engine for image in images if not image.on_top}
    copied = [image for image in images if image.on_top and image.engine not in bases]
    engines = {image.engine for image in copied}
    tags = {engine_tag(image.service, image.engine) for image in copied}
    recovered = {recovered_tag(image.service) for image in copied}
    return sorted((models - shared) | engines | tags | recovered)
