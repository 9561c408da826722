"""Images on a host."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase

from llmhost.docker.image import ImageState
from llmhost.docker.stages import INPUTS_LABEL, MODELS_LABEL


@dataclass(frozen=True)
class ImageStore:
    """Images by reference, names of files in the upload directory, and names of image archives from
    a bundle."""

    images: Mapping[str, ImageState]
    uploads: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()


DOCKER = "timeout 20 docker"
"""With a timeout, because the daemon may hang."""


class Images(FactBase[ImageStore]):
    """State of the named images, entries of the upload directory that a run left, and image
    archives in the directory `waiting`."""

    @staticmethod
    def default() -> ImageStore:
        return ImageStore({})

    def command(self, references: Sequence[str], uploads: str, waiting: str) -> str:
        return (
            f"{inspect_command(references)};"
            f" ls -a {shlex.quote(uploads)} 2>/dev/null | sed 's/^/upload|/';"
            f" ls {shlex.quote(waiting)} 2>/dev/null | sed 's/^/archive|/'"
        )

    def process(self, output: list[str]) -> ImageStore:
        return ImageStore(
            parse_images(output), _names("upload|", output), _names("archive|", output)
        )


class ModelHolders(FactBase[dict[str, str]]):
    """By digest of a model's inputs, an image of llmhost that contains the model."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self) -> str:
        label = f'{{{{index .Config.Labels "{MODELS_LABEL}"}}}}'
        fields = "{{range .RepoTags}}{{.}} {{end}}|" + label
        listed = f"{DOCKER} image ls --quiet --filter label={MODELS_LABEL} 'llmhost/*' 2>/dev/null"
        inspected = f"xargs -r {DOCKER} image inspect --format '{fields}' 2>/dev/null"
        return f"{listed} | sort -u | {inspected}; true"

    def process(self, output: list[str]) -> dict[str, str]:
        rows = [line.split("|") for line in output if "|" in line]
        return {inputs: _own(names) for names, models in rows for inputs in models.split()}


def _own(names: str) -> str:
    """The name that llmhost gave to an image: the builder knows images by name only."""
    return next(each for each in names.split() if each.startswith("llmhost/"))


def _names(kind: str, output: Sequence[str]) -> tuple[str, ...]:
    # Docker prints an empty line where it finds no image.
    return tuple(line.removeprefix(kind) for line in output if line.startswith(kind))


def inspect_command(references: Sequence[str]) -> str:
    """Command that prints a line for each of the named images that exists."""
    label = f'{{{{index .Config.Labels "{INPUTS_LABEL}"}}}}'
    fields = "image|{{.Id}}|" + label + "|{{range .RepoTags}}{{.}} {{end}}"
    return f"{DOCKER} image inspect --format '{fields}' {shlex.join(references)} 2>/dev/null"


def parse_images(output: Sequence[str]) -> dict[str, ImageState]:
    """Parse lines of `image|id|inputs|reference reference…`; other lines are ignored."""
    images: dict[str, ImageState] = {}
    for line in output:
        if line.startswith("image|"):
            _, image, inputs, references = line.split("|", 3)
            images |= {reference: ImageState(image, inputs) for reference in references.split()}
    return images
