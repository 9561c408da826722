"""`models`: what is baked into the images."""

import re
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from llmhost.settings.base import Section
from llmhost.settings.shape import Shape

_HUB = re.compile(r"^hf:(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[\w./-]+)$")


class Model(Section):
    """One set of weights, pinned by its hash."""

    # As Docker allows it in the name of an image (distribution, reference/regexp.go).
    name: str = Field(max_length=63, pattern=r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$")
    """Name that clients ask for: a role such as `coder`, or the model's own name."""

    service: str = "llamacpp"
    """Service that runs it."""

    source: str
    """Where the weights come from: `hf:PUBLISHER/REPOSITORY/FILE`, an `https://` address, or the
    path of a file on the controller."""

    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Commit of the Hugging Face repository; demanded with `hf:`, because a branch can move."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file, in lower-case hex; a different file is never used."""

    context_tokens: int = Field(default=4096, ge=128)
    """Context length in tokens, for each parallel request."""

    parallel: int = Field(default=1, ge=1, le=64)
    """Requests answered at the same time."""

    quantisation: str | None = None
    """How the weights are quantised, such as `Q4_K_M`; a file that says otherwise is refused."""

    cache_type: Literal["f16", "bf16", "f32", "fp8", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = "f16"
    """Type of the KV cache; quantised ones save GPU memory."""

    resident: bool = True
    """Whether the model stays on the GPU; if not it is loaded when asked for, in place of another
    such model of its service."""

    adapter: str | None = None
    """Path of a LoRA adapter (GGUF) on the controller; it must be made for exactly this model."""

    base_models: tuple[str, ...] = ()
    """What the model was made from, as `PUBLISHER/NAME`, beyond what its file and card say."""

    licence: str | None = None
    """Licence as its model card names it, such as `apache-2.0`."""

    shape: Shape | None = None
    """Sizes of the model, for the VRAM ledger; needed only if the file is not on the controller."""

    vram_gib: float | None = Field(default=None, gt=0)
    """GPU memory in GiB, measured with this context and parallelism; it replaces the estimate."""

    @field_validator("source")
    @classmethod
    def _source_is_known(cls, source: str) -> str:
        if "://" in source and not source.startswith(("https://", "http://")):
            raise ValueError("must be hf:PUBLISHER/REPOSITORY/FILE, an https:// address or a path")
        if source.startswith("hf:") and not _HUB.match(source):
            raise ValueError("does not read hf:PUBLISHER/REPOSITORY/FILE")
        return source

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> "Model":
        if self.source.startswith("hf:") and self.revision is None:
            raise ValueError("comes from a hub without a revision; add the commit (40 hex digits)")
        return self

    @property
    def kind(self) -> Literal["url", "file"]:
        """Whether the host downloads the weights or the controller uploads them."""
        return "url" if self.source.startswith(("hf:", "http://", "https://")) else "file"

    @property
    def url(self) -> str:
        """Address of the weights; only for models that are downloaded."""
        if match := _HUB.match(self.source):
            return f"https://huggingface.co/{match['repo']}/resolve/{self.revision}/{match['file']}"
        return self.source

    @property
    def path(self) -> str:
        """Path of the weights inside the image."""
        suffix = PurePosixPath(urlsplit(self.source).path).suffix
        return f"/models/{self.name}{suffix}"
