"""Which images a host has."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase

from llmhost.image import INPUTS_LABEL, ImageState


@dataclass(frozen=True)
class ImageStore:
    """Images by reference, and names of the files that wait to become one."""

    images: Mapping[str, ImageState]
    uploads: tuple[str, ...] = ()


class Images(FactBase[ImageStore]):
    """State of the named images, and what a run that was killed left in the upload directory."""

    @staticmethod
    def default() -> ImageStore:
        return ImageStore({})

    def command(self, references: Sequence[str], uploads: str) -> str:
        return f"{inspect_command(references)}; ls {shlex.quote(uploads)} 2>/dev/null; true"

    def process(self, output: list[str]) -> ImageStore:
        uploads = (line for line in output if not line.startswith("image|"))
        return ImageStore(parse_images(output), tuple(uploads))


def inspect_command(references: Sequence[str]) -> str:
    """Command that prints a line for each of the named images that is there."""
    label = f'{{{{index .Config.Labels "{INPUTS_LABEL}"}}}}'
    fields = "image|{{.Id}}|" + label + "|{{range .RepoTags}}{{.}} {{end}}"
    return f"docker image inspect --format '{fields}' {shlex.join(references)} 2>/dev/null"


def parse_images(output: Sequence[str]) -> dict[str, ImageState]:
    """Lines of `image|id|inputs|reference reference…`; other lines are passed over."""
    images: dict[str, ImageState] = {}
    for line in output:
        if line.startswith("image|"):
            _, image, inputs, references = line.split("|", 3)
            images |= {reference: ImageState(image, inputs) for reference in references.split()}
    return images
