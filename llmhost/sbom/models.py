"""What a document says of a model: hashes, licenses, ancestors, quantization."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from llmhost.models.files import gguf_at, holds_gguf, lineage_of
from llmhost.models.gguf import GgufError
from llmhost.models.lineage import OWN
from llmhost.models.quantization import FILE_TYPES
from llmhost.options.model import Model
from llmhost.options.model_source import HubSource

_TASKS = {"generate": "text-generation", "embed": "feature-extraction", "rerank": "text-ranking"}
"""As Hugging Face names them."""


@dataclass(frozen=True)
class ModelAbout:
    """A model of an inventory, with what its file says if that is on the controller. `files` are
    SHA-256 digests by path; `ancestors` are names, `PUBLISHER/NAME` where both are known."""

    name: str
    service: str
    source: str
    version: str
    files: Mapping[str, str]
    licences: tuple[str, ...]
    ancestors: tuple[str, ...]
    quantization: str
    architecture: str
    task: str


def about(model: Model, files: Mapping[str, str]) -> ModelAbout:
    """From the inventory, the lock file, and the file on the controller."""
    gguf = None
    with suppress(GgufError):
        gguf = gguf_at(model.source) if holds_gguf(model) else None
    code = gguf.metadata.get("general.file_type") if gguf else None
    lineage = lineage_of(model)
    names = [
        "/".join(filter(None, (each.publisher, each.name)))
        for each in lineage.ancestors
        if each.found_in not in (OWN, "its source")
    ]
    hub = model.origin if isinstance(model.origin, HubSource) else None
    return ModelAbout(
        name=model.name,
        service=model.service,
        source=model.source,
        version=(model.revision if hub else None) or model.digest[:12],
        files=files,
        licences=tuple(dict.fromkeys(lineage.licences)),
        ancestors=tuple(dict.fromkeys(filter(None, names))),
        quantization=model.quantization
        or FILE_TYPES.get(code if isinstance(code, int) else -1, ""),
        architecture=gguf.architecture if gguf else "",
        task=_TASKS[model.task],
    )
