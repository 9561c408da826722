"""`models`: what is baked into the images."""

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from llmhost.options.base import Section
from llmhost.options.model_source import HubSource, OllamaSource, parse_source
from llmhost.options.parameters import Parameters
from llmhost.options.shape import Shape
from llmhost.secret import SecretReference


class ModelFile(Section):
    """One file of a model that consists of several, pinned by its hash."""

    path: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    """Path in the repository or directory, such as `model-00001-of-00005.safetensors`."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file, in lower-case hex."""


class Model(Section):
    """One set of weights, pinned by its hash."""

    # As Docker allows it in the name of an image (distribution, reference/regexp.go).
    name: str = Field(max_length=63, pattern=r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$")
    """Name that clients ask for: a role such as `coder`, or the model's own name."""

    service: str = "llamacpp"
    """Service that runs it."""

    task: Literal["generate", "embed", "rerank"] = "generate"
    """What it does: write text, turn text into vectors, or order texts by how well they answer."""

    source: str
    """Where the weights come from: `hf:PUBLISHER/REPOSITORY/FILE`, `hf:PUBLISHER/REPOSITORY` for
    all files of a repository, `ollama:NAME:TAG` for Ollama's library, an `https://` address, or a
    path on the controller: a file, or a directory for a model of several files."""

    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Commit of the Hugging Face repository; demanded with `hf:`, because a branch can move."""

    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file, in lower-case hex; a different file is never used."""

    files: tuple[ModelFile, ...] = ()
    """In place of `sha256`, the files of a model that consists of several; `llmhost model lock`
    writes them."""

    token: SecretReference | None = None
    """Where the token is, on the controller, that a gated source asks for: `env:NAME` or
    `file:PATH`. The server gets it for the download alone; no file and no image holds it."""

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

    system_prompt: str | None = None
    """What the model is told before every conversation."""

    parameters: Parameters = Field(default_factory=Parameters)
    """How it samples unless a request says otherwise."""

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
        parse_source(source)
        return source

    @model_validator(mode="after")
    def _is_pinned(self) -> "Model":
        if isinstance(self.origin, HubSource) and self.revision is None:
            raise ValueError("comes from a hub without a revision; run: llmhost model lock")
        if (self.sha256 is None) == (not self.files):
            raise ValueError(
                "needs sha256, or files if it consists of several; run: llmhost model lock"
            )
        if self.sha256 and isinstance(self.origin, OllamaSource):
            raise ValueError("comes from Ollama's library, which needs files and no sha256")
        if self.token and self.kind == "file":
            raise ValueError("comes from the controller, which asks for no token")
        return self

    @property
    def origin(self) -> HubSource | OllamaSource | str:
        """The source, taken apart if it is in a hub."""
        return parse_source(self.source)

    @property
    def kind(self) -> Literal["url", "file"]:
        """Whether the host downloads the weights or the controller uploads them."""
        remote = isinstance(self.origin, HubSource | OllamaSource) or "://" in self.source
        return "url" if remote else "file"

    @property
    def path(self) -> str:
        """Path of the weights inside the image: a file, or a directory if there are several."""
        if self.files:
            return f"/models/{self.name}"
        return f"/models/{self.name}{PurePosixPath(urlsplit(self.source).path).suffix}"

    @property
    def baked(self) -> Mapping[str, str]:
        """SHA-256 of each file of the weights, by its path inside the image."""
        if self.sha256:
            return {self.path: self.sha256}
        return {f"{self.path}/{file.path}": file.sha256 for file in self.files}

    @property
    def adapter_path(self) -> str:
        """Path of the adapter inside the image."""
        return f"/models/{self.name}.adapter.gguf"

    @property
    def digest(self) -> str:
        """SHA-256 of the file; of several, that of the lines `sha256sum` would print for them."""
        if self.sha256:
            return self.sha256
        lines = sorted(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def places(self) -> Mapping[str, str]:
        """Where each file comes from, by its path inside the image: an address, or a path."""
        paths = [file.path for file in self.files] or [""]
        return {f"{self.path}/{path}" if path else self.path: self._place(path) for path in paths}

    def _place(self, path: str) -> str:
        match self.origin:
            case HubSource() as hub:
                return hub.url(self.revision or "", path or hub.file)
            case OllamaSource() as library:
                return library.url(path)
            case str() as source:
                return f"{source.rstrip('/')}/{path}" if path else source
