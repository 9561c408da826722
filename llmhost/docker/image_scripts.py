"""Scripts that transfer weights, and make images of them and of services. Pure."""

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile
from llmhost.docker.stages import (
    INPUTS_LABEL,
    StageImage,
    engine_tag,
    models_label,
    options,
    recovered_tag,
)
from llmhost.resources import script, script_text
from llmhost.system.files import File, archive


def upload_path(file: WeightsFile, uploads: str) -> str:
    """Path of complete, verified weights until their image is created."""
    return f"{uploads}/{file.sha256}"


def partial_path(file: WeightsFile, uploads: str) -> str:
    """Path of weights during the download or upload."""
    return f"{upload_path(file, uploads)}.part"


def stored_path(file: WeightsFile, uploads: str) -> str:
    """Path of weights while they come from the site's store. They may be wrong, so that a download
    does not continue them."""
    return f"{upload_path(file, uploads)}.stored"


def prepare_script(uploads: str) -> str:
    """Create the directory for uploads, writable for the login user: SFTP has no sudo. The site's
    store is asked again if it was silent in an interrupted run (files/docker/store.sh)."""
    directory = shlex.quote(uploads)
    return (
        f"mkdir -p -m 0755 {shlex.quote(str(PurePosixPath(uploads).parent))} &&"
        f' install -d -m 0700 -o "${{SUDO_USER:-root}}" {directory} &&'
        f" rm -f {shlex.quote(f'{uploads}/store.silent')}"
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


def store_script(file: WeightsFile, address: str, uploads: str) -> str:
    """Get weights from the site's store, where they are at `address`. With a URL, its configuration
    for curl is on stdin. Without them it succeeds, too; the fact FromStore says why."""
    part, whole = stored_path(file, uploads), upload_path(file, uploads)
    return script("docker/store.sh", part, whole, file.sha256, address)


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


def stage_script(image: ServiceImage, stage: StageImage) -> str:
    """Build an intermediate image from its archived Dockerfile on stdin."""
    words = options([(INPUTS_LABEL, stage.inputs), *stage.labels], stage.reference)
    lines = ["set -e", *_REPORTS_SPACE]
    if stage.engine:
        lines.append(_pull_script(image))
    other = recovered_tag(image.service) if stage.engine else ""
    return "\n".join([*lines, script("docker/build.sh", stage.engine, other, *words)])


def build_script(image: ServiceImage) -> str:
    """Build a service's image from the archived context on stdin, with the settings of the engine's
    image where its Dockerfile wants them.

    The engine is pulled first, because the builder does not keep images that it pulls itself: later
    builds need no network.
    """
    given = (f"{name}={value}" for name, value in sorted(image.build_args.items()))
    models = [(model.reference, model.inputs) for model in image.models]
    words = options([(INPUTS_LABEL, image.inputs), models_label(models)], image.reference)
    words += [word for each in given for word in ("--build-arg", each)]
    lines = ["set -e", *_REPORTS_SPACE]
    if image.engine and not image.on_top:
        lines.append(_pull_script(image))
    settings = image.stages[-1].reference if image.on_top else image.engine
    lines.append(script("docker/build.sh", settings, "", *words))
    if image.needs_glibc:
        lines.append(script("docker/glibc.sh", image.reference, image.service))
    return "\n".join(lines)


def whole_build(image: ServiceImage, stages: Sequence[StageImage], directory: str) -> File:
    """The script that builds these intermediate images and then the service's image, each with its
    archived context; for files/docker/builds.sh, which finds it in `directory`."""
    steps = [
        (stage_script(image, stage), {"Dockerfile": File("Dockerfile", stage.dockerfile)})
        for stage in stages
    ]
    steps.append((build_script(image), {file.path: file for file in image.build_files}))
    lines = ["set -e"]
    for text, context in steps:
        lines += [f"sh -c {shlex.quote(text)} <<'CONTEXT'", archive(context), "CONTEXT"]
    text = "\n".join([*lines, ""])
    return File(f"{directory}/{image.service}.build", text, mode="0600")


def _pull_script(image: ServiceImage) -> str:
    tags = engine_tag(image.service, image.engine), recovered_tag(image.service)
    return script("docker/pull.sh", image.engine, image.service, *tags)


def load_script(image: ServiceImage, waiting: str) -> str:
    """Load an image from the archive of a bundle, if it is the declared one."""
    label = f'{{{{index .Config.Labels "{INPUTS_LABEL}"}}}}'
    archive = f"{waiting}/{image.archive}"
    return script("docker/load.sh", archive, image.reference, label, image.inputs)


def tidy_script(uploads: str) -> str:
    """Remove the upload directory, and images of llmhost whose tag a newer one has."""
    prune = f"docker image prune --force --filter label={INPUTS_LABEL} >/dev/null"
    return f"rm -rf {shlex.quote(uploads)}; {prune}"
