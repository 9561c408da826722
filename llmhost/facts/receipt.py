"""The receipts on a host, and the current versions of what a receipt records."""

import base64
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.facts.images import inspect_command, parse_images
from llmhost.history.receipt import PACKAGES, ReceiptState
from llmhost.history.rollback import kept_directory


class Receipts(FactBase[ReceiptState]):
    """Versions, the ids of the named images, and the receipts."""

    @staticmethod
    def default() -> ReceiptState:
        return ReceiptState({}, {}, "", ())

    def command(self, path: str, images: Sequence[str]) -> str:
        directory = PurePosixPath(path).parent
        earlier = shlex.quote(str(directory / "receipts"))
        kept = shlex.quote(kept_directory(path))
        return (
            'echo "version kernel $(uname -r)";'
            # "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build …".
            " sed -nE '1s/.*[[:space:]]([0-9]+[.][0-9.]+)[[:space:]].*/version nvidia_driver \\1/p'"
            " /proc/driver/nvidia/version 2>/dev/null;"
            " dpkg-query -W -f '${db:Status-Status} version ${Package} ${Version}\\n'"
            f" {' '.join(PACKAGES)} 2>/dev/null | sed -n 's/^installed //p';"
            f" {inspect_command(images)};"
            f" ls {earlier} 2>/dev/null | sed 's/^/earlier /';"
            f" ls {kept} 2>/dev/null | sed -n 's/[.]tar$//;T;s/^/kept /p';"
            f" {{ {PathStates().command([path, str(directory)])}; }} | sed 's/^/path /';"
            f" printf 'newest '; base64 -w0 {shlex.quote(path)} 2>/dev/null; echo"
        )

    def process(self, output: list[str]) -> ReceiptState:
        versions = [line.split()[1:3] for line in output if line.startswith("version ")]
        newest = next(line for line in output if line.startswith("newest "))
        return ReceiptState(
            versions=dict(versions),
            images={key: image.id for key, image in parse_images(output).items()},
            newest=base64.b64decode(newest.removeprefix("newest ")).decode(errors="replace"),
            earlier=tuple(
                line.removeprefix("earlier ") for line in output if line.startswith("earlier ")
            ),
            kept=tuple(line.removeprefix("kept ") for line in output if line.startswith("kept ")),
            paths=parse_states(
                [line.removeprefix("path ") for line in output if line.startswith("path ")]
            ),
        )
