"""Images whose tags are digests of their inputs: whether to build one is known in advance.

Weights are separate images. The image of a service is based on them and adds the engine on top, so
that a new engine does not move weights: docs/decisions/0005.

Pure: which images a host has comes from facts/images.py, the commands are run by
operations/images.py.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

from llmhost.resources import script, script_text
from llmhost.system.files import File

INPUTS_LABEL = "llmhost.inputs"
"""Label with the digest of all inputs: tags can be moved to another image, labels cannot."""


@dataclass(frozen=True)
class WeightsFile:
    """One file of a model, and its path inside the image.

    `source` is a URL that the host downloads if `remote` is set, else a path on the controller.
    `token` refers to the secret for the URL, empty if it needs none.
    """

    sha256: str
    source: str
    remote: bool
    path: str
    token: str = ""


@dataclass(frozen=True)
class ModelImage:
    """The weights of one model; at least one file."""

    model: str
    files: tuple[WeightsFile, ...]

    @property
    def inputs(self) -> str:
        return _digest({file.path: file.sha256 for file in self.files})

    @property
    def reference(self) -> str:
        """Repository and tag; the tag for a single file is the start of its SHA-256."""
        tag = self.files[0].sha256 if len(self.files) == 1 else self.inputs
        return f"llmhost/model-{self.model}:{tag[:12]}"


@dataclass(frozen=True)
class ServiceImage:
    """A service with its models baked in.

    `engine` is the reference of its base image, `context` the files of its build context, including
    the Dockerfile, by relative path. The Dockerfile can use the stages `weights` and `engine`;
    without an engine it has neither. `build_args` are its arguments. `needs_glibc`: what runs in it
    does not load with musl.
    """

    service: str
    engine: str
    models: tuple[ModelImage, ...]
    context: tuple[File, ...]
    build_args: Mapping[str, str] = field(default_factory=dict, hash=False)
    needs_glibc: bool = False

    @property
    def build_files(self) -> tuple[File, ...]:
        """The build context for the builder."""
        if not self.engine:
            return self.context
        stages = [f"FROM {self.engine} AS engine", _weights_stage(self.models)]
        return tuple(
            File(file.path, "\n".join([*stages, file.data.decode()]), file.mode)
            if file.path == "Dockerfile"
            else file
            for file in self.context
        )

    @property
    def inputs(self) -> str:
        files = {file.path: [file.mode, file.sha256] for file in self.build_files}
        inputs = {"files": files, "models": [model.inputs for model in self.models]}
        return _digest(inputs | ({"build_args": self.build_args} if self.build_args else {}))

    @property
    def reference(self) -> str:
        """Repository and tag; equal inputs, equal tag."""
        return f"llmhost/{self.service}:{self.inputs[:16]}"

    @property
    def archive(self) -> str:
        """Name of the image's archive in a bundle, as `docker save` writes it."""
        return f"{self.service}-{self.inputs[:16]}.tar"


AnyImage = TypeVar("AnyImage", ModelImage, ServiceImage)


@dataclass(frozen=True)
class ImageState:
    """An image on a host: its id, and the digest in its label, empty if it has none."""

    id: str
    inputs: str


def missing(images: Iterable[AnyImage], found: Mapping[str, ImageState]) -> dict[AnyImage, str]:
    """Images to create, each with the reason; `found` is by reference."""
    reasons = {image: _reason(image, found.get(image.reference)) for image in images}
    return {image: reason for image, reason in reasons.items() if reason}


def _reason(image: ModelImage | ServiceImage, state: ImageState | None) -> str:
    if state is None:
        return f"image {image.reference} is missing"
    if state.inputs != image.inputs:
        return f"{image.reference} is a tag of another image"
    return ""


def _weights_stage(models: Sequence[ModelImage]) -> str:
    if not models:
        return "FROM scratch AS weights"
    first, *others = models
    copies = [f"COPY --link --from={model.reference} / /" for model in others]
    return "\n".join([f"FROM {first.reference} AS weights", *copies])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def upload_path(file: WeightsFile, uploads: str) -> str:
    """Path of complete, verified weights until their image is created."""
    return f"{uploads}/{file.sha256}"


def partial_path(file: WeightsFile, uploads: str) -> str:
    """Path of weights during the download or upload."""
    return f"{upload_path(file, uploads)}.part"


def prepare_script(uploads: str) -> str:
    """Create the directory for uploads, writable for the login user: SFTP has no sudo."""
    directory = shlex.quote(uploads)
    return (
        f"mkdir -p -m 0755 {shlex.quote(str(PurePosixPath(uploads).parent))} &&"
        f' install -d -m 0700 -o "${{SUDO_USER:-root}}" {directory}'
    )


def authorization(token: str) -> str:
    """Configuration for curl's standard input, so that the token is not among its arguments."""
    escaped = token.replace("\\", "\\\\").replace('"', '\\"')
    return f'header = "Authorization: Bearer {escaped}"'


def download_script(model: str, file: WeightsFile, uploads: str) -> str:
    """Download weights; an interrupted download is resumed. With a token, its `authorization` is on
    stdin; curl does not send it to hosts that it is redirected to."""
    refused = (
        "are gated, and the model's token gives no access: accept their terms with the account"
        " of the token"
        if file.token
        else "are gated: accept their terms, and set the model's option token"
    )
    part, token = partial_path(file, uploads), "token" if file.token else ""
    return script("docker/download.sh", part, file.source, file.sha256, model, refused, token)


def verify_script(model: str, file: WeightsFile, uploads: str) -> str:
    """Keep weights only if they have the declared digest."""
    part, whole = partial_path(file, uploads), upload_path(file, uploads)
    return script("docker/verify.sh", part, whole, file.sha256, model)


_REPORTS_SPACE = (script_text("docker/functions.sh"), script_text("docker/tell_room.sh"))


def import_script(model: ModelImage, uploads: str) -> str:
    """Verify weights and create their image without a builder, which would copy them twice more."""
    stage = f"{uploads}/{model.inputs}.tree"
    lines = ["set -e", *_REPORTS_SPACE]
    lines += [verify_script(model.model, file, uploads) for file in model.files]
    lines.append(f"rm -rf {shlex.quote(stage)}")
    for file in model.files:
        place = shlex.quote(f"{stage}{file.path}")
        lines.append(f"mkdir -p {shlex.quote(str(PurePosixPath(stage + file.path).parent))}")
        lines.append(f"ln {shlex.quote(upload_path(file, uploads))} {place}")
    # Equal weights must give an equal layer, independent of owner and time of the files.
    owner = "--numeric-owner --owner=0 --group=0 --mode=0444 --mtime=@0"
    names = shlex.join(sorted(file.path.lstrip("/") for file in model.files))
    label = shlex.quote(f"LABEL {INPUTS_LABEL}={model.inputs}")
    lines.append(
        f"tar --create --hard-dereference {owner} --directory {shlex.quote(stage)} {names} |"
        f" docker import --change {label} - {model.reference} >/dev/null"
    )
    uploaded = shlex.join(upload_path(file, uploads) for file in model.files)
    return "\n".join([*lines, f"rm -rf {shlex.quote(stage)} {uploaded}"])


def build_script(image: ServiceImage) -> str:
    """Build a service's image from the archived context on stdin, with the settings of the engine's
    image where its Dockerfile wants them.

    The engine is pulled first, because the builder does not keep images that it pulls itself: later
    builds need no network.
    """
    given = (f"{name}={value}" for name, value in sorted(image.build_args.items()))
    label = f"{INPUTS_LABEL}={image.inputs}"
    options = ["--label", label, "--tag", image.reference]
    options += [word for each in given for word in ("--build-arg", each)]
    lines = ["set -e", *_REPORTS_SPACE]
    if image.engine:
        lines.append(script("docker/pull.sh", image.engine, image.service))
    lines.append(script("docker/build.sh", image.engine, *options))
    if image.needs_glibc:
        lines.append(script("docker/glibc.sh", image.reference, image.service))
    return "\n".join(lines)


def load_script(image: ServiceImage, waiting: str) -> str:
    """Load an image from the archive of a bundle, if it is the declared one."""
    label = f'{{{{index .Config.Labels "{INPUTS_LABEL}"}}}}'
    archive = f"{waiting}/{image.archive}"
    return script("docker/load.sh", archive, image.reference, label, image.inputs)


def tidy_script(uploads: str) -> str:
    """Remove the upload directory, and images of llmhost whose tag a newer one has."""
    prune = f"docker image prune --force --filter label={INPUTS_LABEL} >/dev/null"
    return f"rm -rf {shlex.quote(uploads)}; {prune}"
