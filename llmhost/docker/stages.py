"""Images between the weights and a service: all weights together, and the engine on top of them.

The service's image begins with all their layers, so they take no disk space. They are what a later
build starts from when the pulled engine and the models' own images are gone: docs/decisions/0142.

Pure.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from llmhost.resources import script

INPUTS_LABEL = "llmhost.inputs"
"""Label with the digest of all inputs: tags can be moved to another image, labels cannot."""

MODELS_LABEL = "llmhost.models"
"""Label with the digests of the models in an image."""

ENGINE_LABEL = "llmhost.engine"
"""Label with the engine that an image has on top of weights."""

WEIGHTS_LABEL = "llmhost.weights"
"""Label with the image of the weights that the engine is on."""

PLACES_LABEL = "llmhost.places"
"""Label with the paths of all weights in an image, a JSON array."""

ON_TOP = "FROM base"
"""First instruction of the Dockerfile of a service whose engine is on top of its weights."""


@dataclass(frozen=True)
class StageImage:
    """An intermediate image; `engine` is empty for weights alone."""

    name: str
    dockerfile: str
    labels: tuple[tuple[str, str], ...]
    engine: str = ""

    @property
    def inputs(self) -> str:
        return digest([self.dockerfile, self.labels])

    @property
    def reference(self) -> str:
        """Repository and tag; equal inputs, equal tag."""
        return f"llmhost/{self.name}:{self.inputs[:12]}"


def weights_stage(service: str, models: Sequence[tuple[str, str]]) -> StageImage:
    """All weights of a service. `models` are references of their images, each with its digest.

    Without `--link`: with containerd's store, the builder would keep what it links a second time.
    """
    (first, _), *others = models
    lines = [f"FROM {first}", *(f"COPY --from={each} / /" for each, _ in others)]
    return StageImage(f"weights-{service}", "\n".join([*lines, ""]), (models_label(models),))


def base_stage(
    service: str, engine: str, weights: str, models: Sequence[tuple[str, str]], paths: Iterable[str]
) -> StageImage:
    """The engine, with the settings of its image, on top of the image `weights`."""
    lines = [f"FROM {engine} AS engine", f"FROM {weights}", "COPY --from=engine / /"]
    labels = (
        models_label(models),
        (ENGINE_LABEL, engine),
        (WEIGHTS_LABEL, weights),
        (PLACES_LABEL, json.dumps(sorted({_place(path) for path in paths}))),
    )
    text = "\n".join([*lines, "# engine: ENV WORKDIR ENTRYPOINT", ""])
    return StageImage(f"base-{service}", text, labels, engine)


def models_label(models: Sequence[tuple[str, str]]) -> tuple[str, str]:
    return MODELS_LABEL, " ".join(inputs for _, inputs in models)


def _place(path: str) -> str:
    """A file directly below the directory of all weights, or the directory of its model."""
    return str(PurePosixPath(*PurePosixPath(path).parts[:3]))


def engine_tag(service: str, engine: str) -> str:
    """The name that llmhost gives to an engine's image, so that `llmhost prune` finds it."""
    return f"llmhost/engine-{service}:{engine.rpartition('@sha256:')[2][:12]}"


def recovered_tag(service: str) -> str:
    """The name of an engine that was taken from an image of llmhost."""
    return f"llmhost/engine-{service}:recovered"


def options(labels: Iterable[tuple[str, str]], reference: str) -> list[str]:
    """Options of `docker build`."""
    return [*(word for pair in labels for word in ("--label", "=".join(pair))), "--tag", reference]


def recover_script(reference: str, inputs: str, files: Sequence[str], holder: str) -> str:
    """Recreate the image of a model from an image that contains the model's files."""
    copies = [f"COPY --from={holder} --chmod=0444 {json.dumps([each, each])}" for each in files]
    dockerfile = "\n".join(["FROM scratch", *copies, ""])
    words = options([(INPUTS_LABEL, inputs)], reference)
    return script("docker/recover.sh", dockerfile, *words)


def free_script(redundant: Iterable[str], *, whole_cache: bool) -> str:
    """Remove images whose content other images have too, and what the builder keeps of them.

    With containerd's store, the builder keeps unpacked layers of removed images until its whole
    cache is removed. Docker refuses to remove images of containers; those stay.
    """
    lines = [f"docker image rm {shlex.quote(each)} >/dev/null 2>&1" for each in redundant]
    option = "--all " if whole_cache else ""
    # Docker refuses a second prune at the same time.
    return "; ".join([*lines, f"docker builder prune {option}--force >/dev/null || true"])


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
