"""The deploys that a host keeps, and llmhost's images."""

import base64
from pathlib import PurePosixPath

from pyinfra.api import FactBase

from llmhost.docker.stages import INPUTS_LABEL
from llmhost.history.prune import REPOSITORIES
from llmhost.history.rollback import (
    Image,
    Kept,
    KeptState,
    is_unfinished,
    kept_directory,
    valid_name,
)
from llmhost.resources import script

_IMAGE = (
    "image|{{.Id}}|{{.Size}}|{{range .RepoTags}}{{.}} {{end}}|{{range .RootFS.Layers}}{{.}} {{end}}"
    "|{{range .RepoDigests}}{{.}} {{end}}"
)


class KeptDeploys(FactBase[KeptState]):
    """Kept deploys with their receipts, the current receipt, the result of the last run, images,
    and uploaded files."""

    @staticmethod
    def default() -> KeptState:
        return KeptState()

    def command(self, receipt: str, status_file: str, uploads: str) -> str:
        kept, status = kept_directory(receipt), status_file.lstrip("/")
        return script("history/kept.sh", kept, status, receipt, uploads, INPUTS_LABEL, _IMAGE)

    def process(self, output: list[str]) -> KeptState:
        rows = [line.split("|") for line in output]
        used = {row[1] for row in rows if row[0] == "used"}
        deploys = [_kept(*row[1:5]) for row in rows if row[0] == "deploy" and valid_name(row[1])]
        return KeptState(
            deploys=tuple(deploys),
            present=next((_decoded(row[1]) for row in rows if row[0] == "present"), ""),
            images=tuple(_image(*row[1:6], used=used) for row in rows if row[0] == "image"),
            uploads=tuple(row[1] for row in rows if row[0] == "upload"),
            unfinished=is_unfinished(
                line for row in rows if row[0] == "runs" for line in _decoded(row[1]).splitlines()
            ),
        )


def status_file(gateway: str) -> str:
    """The file of a gateway's configuration that contains its status port."""
    return str(PurePosixPath(gateway) / "status.conf")


def _kept(name: str, port: str, receipt: str, paths: str) -> Kept:
    files = (path.rstrip("/") for path in paths.split())
    return Kept(name, _decoded(receipt), frozenset(files), int(port) if port else None)


def _image(
    id: str, size: str, references: str, layers: str, digests: str, *, used: set[str]
) -> Image:
    pulled = tuple(each for each in digests.split() if not each.startswith(REPOSITORIES))
    names, chain = (*references.split(),), (*layers.split(),)
    return Image(id, names, int(size), chain, id in used, pulled)


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode(errors="replace")
