"""`models`: the models to bake into images."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from llmhost.options.adapter import LoraAdapter, Role
from llmhost.options.base import Section
from llmhost.options.derive import Derive
from llmhost.options.derive_rules import unfit
from llmhost.options.gguf_parts import first_part, missing_part, part_of
from llmhost.options.kind import WORD, Kind, Listed, Mistake
from llmhost.options.model_source import HubSource, OllamaSource, parse_source
from llmhost.options.parameters import Parameters
from llmhost.options.shape import Shape
from llmhost.options.types import (
    Commit,
    Flag,
    FreeText,
    Items,
    Line,
    LocalName,
    OneOf,
    SecretReference,
    ServiceName,
    Sha256,
    SomeGib,
    text,
    whole,
)


def _source(value: object) -> object:
    found = str(_PLACE.read(value))
    try:
        parse_source(found)
    except ValueError as error:
        raise Mistake(str(error)) from None
    return found


ParserName = Annotated[str, text(r"[a-z0-9_-]{1,40}", "the name of a parser", "hermes", WORD)]

_PLACE = text(
    r"[^\s\x00](?:[^\r\n\x00]*[^\s\x00])?",
    "where the weights are",
    "hf:bartowski/Llama-3.2-3B-Instruct-GGUF/Llama-3.2-3B-Instruct-Q4_K_M.gguf",
)

Source = Annotated[str, Kind(_source, _PLACE.expected, _PLACE.example)]
"""Where weights are; options/model_source.py has its forms."""


MODELS = "/models"
"""Directory of all weights in an image."""


_PIN = "run: llmhost model lock INVENTORY"
_HASH = "add sha256, as sha256sum prints it for the file"


_FILE_PATH = r"\w[\w.-]*(/\w[\w.-]*)*"


def can_be_a_file(path: str) -> bool:
    """Whether a file with this path can be one of a model's."""
    return re.fullmatch(_FILE_PATH, path, re.ASCII) is not None


class ModelFile(Section):
    """One file of a model that has several, pinned by its digest."""

    path: Annotated[str, text(_FILE_PATH, "a relative path", "model-00001-of-00005.safetensors")]
    """Path in the repository or directory, such as `model-00001-of-00005.safetensors`."""

    sha256: Sha256
    """SHA-256 digest of the file, in lower-case hex."""


class Model(Section):
    """One set of weights, pinned by its digest."""

    name: Role
    """Name that clients request: a role such as `coder`, or the model's own name."""

    service: ServiceName = "llamacpp"
    """Service that runs the model."""

    task: OneOf[Literal["generate", "embed", "rerank"]] = "generate"
    """What the model does: generate text, embed text, or rerank texts by relevance to a
    question."""

    source: Source
    """Source of the weights: `hf:PUBLISHER/REPOSITORY/FILE`, `hf:PUBLISHER/REPOSITORY` (all files),
    `ollama:NAME:TAG`, the `https://` URL of a file, or the path of a file or directory on the
    controller."""

    revision: Commit | None = None
    """Commit of the Hugging Face repository; required for `hf:`, because branches move."""

    sha256: Sha256 | None = None
    """SHA-256 digest of the file, in lower-case hex."""

    files: Annotated[tuple[ModelFile, ...], Listed()] = ()
    """Instead of `sha256`: the files of a model that has several. `llmhost model lock` writes
    them."""

    include: Items[
        Annotated[
            str,
            text(r"[\w.*?\[\]!-]+(/[\w.*?\[\]!-]+)*", "a pattern of paths", "onnx/model_q8.onnx"),
        ]
    ] = ()
    """Files of a Hugging Face repository to lock, as patterns such as `*.json`; `*` also matches
    slashes. For repositories with ONNX files, which hold several precisions. None: safetensors and
    text files."""

    directory: (
        Annotated[str, text(r"\w[\w.-]*(/\w[\w.-]*)*", "a relative path", "RapidOcr")] | None
    ) = None
    """Directory below docling's own models for the files, such as `RapidOcr`; none:
    `PUBLISHER--NAME`."""

    token: SecretReference | None = None
    """Where the controller finds the token for a gated source: `env:NAME` or `file:PATH`. The
    server gets it for the download only; no file and no image contains it."""

    context_tokens: Annotated[int, whole(128, 2**24, "tokens", 4096)] = 4096
    """Context length of each parallel request."""

    parallel: Annotated[int, whole(1, 64, "requests", 4)] = 1
    """Concurrent requests."""

    quantization: (
        Annotated[str, text(r"\w[\w.-]{0,63}", "the name of a quantization", "Q4_K_M")] | None
    ) = None
    """Quantization of the weights, such as `Q4_K_M`; a file with another one is refused."""

    cache_type: OneOf[
        Literal["f16", "bf16", "f32", "fp8", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
    ] = "f16"
    """Type of the KV cache; quantized types save GPU memory."""

    resident: Flag = True
    """Keep the model on the GPU. If False, it is loaded on demand and replaces another such model
    of its service."""

    adapter: LocalName | None = None
    """Path of a LoRA adapter (GGUF) for this model on the controller."""

    adapter_sha256: Sha256 | None = None
    """SHA-256 digest of the adapter; none: whatever is there."""

    projector: LocalName | None = None
    """Path of the projector (GGUF, `mmproj-….gguf`) on the controller, for models that read
    pictures or sound."""

    draft: LocalName | None = None
    """Path of a small model (GGUF) with the same vocabulary on the controller: it drafts tokens
    that this model only checks, which is faster."""

    adapters: Annotated[tuple[LoraAdapter, ...], Listed()] = ()
    """LoRA adapters of a model of vLLM; each is offered beside the model, under its own name."""

    tool_parser: ParserName | None = None
    """How vLLM finds calls of tools in the model's answers: its `--tool-call-parser`, such as
    `hermes` for Qwen 2.5 and 3, `llama3_json` for Llama 3, or `mistral`; none: requests with tools
    are refused."""

    reasoning_parser: ParserName | None = None
    """How vLLM separates reasoning from the answer: its `--reasoning-parser`, such as `qwen3` or
    `deepseek_r1`; none: both are in the answer."""

    system_prompt: FreeText | None = None
    """System prompt of each conversation."""

    parameters: Parameters = Field(default_factory=Parameters)
    """Default sampling parameters; a request can override them."""

    base_models: Items[Line] = ()
    """Models that it was derived from, as `PUBLISHER/NAME`, in addition to those in its file and
    model card."""

    licence: Line | None = None
    """License as on its model card, such as `apache-2.0`."""

    derive: Derive | None = None
    """How `llmhost model make` makes the model from its source. Hosts get the result, which the
    lock file pins."""

    made_from: Line | None = None
    """Source of a made model; the lock file has it."""

    made_from_sha256: Sha256 | None = None
    """Digest of that source; the lock file has it."""

    shape: Shape | None = None
    """Sizes of the model for the VRAM ledger; required only if the file is not on the
    controller."""

    vram_gib: SomeGib | None = None
    """Measured GPU memory with this context and parallelism; replaces the estimate."""

    @model_validator(mode="after")
    def _can_be_made(self) -> "Model":
        if self.derive is None:
            if self.made_from:
                raise Mistake("is given without derive; remove it", "made_from")
            return self
        source = self.made_from or self.source
        for sentence in unfit(self.derive, source, self.service, self.task):
            raise Mistake(sentence, "derive")
        if not self.made_from:
            raise Mistake(
                f"is not made yet as it is declared; run: llmhost model make INVENTORY {self.name}",
                "derive",
            )
        return self

    @model_validator(mode="after")
    def _is_pinned(self) -> "Model":
        if isinstance(self.origin, HubSource) and self.revision is None:
            raise Mistake(f"is not pinned to a revision of its hub; {_PIN}", "source")
        if self.sha256 and self.files:
            raise Mistake("has both sha256 and files; remove one of them")
        if not self.sha256 and not self.files:
            fix = _HASH if isinstance(self.origin, str) else _PIN
            raise Mistake(f"has neither sha256 nor files; {fix}")
        if self.sha256 and (part := part_of(self.source)):
            raise Mistake(
                f"is part {part[0]} of {part[1]} of a file, and sha256 pins only one part; remove"
                " sha256, then"
                f" {_PIN}",
                "source",
            )
        if missing := missing_part(file.path for file in self.files):
            raise Mistake(f"lacks {missing}; list all parts of the file", "files")
        if self.sha256 and isinstance(self.origin, OllamaSource):
            raise Mistake(
                f"comes from Ollama's library, which sha256 cannot pin; remove sha256, then {_PIN}",
                "source",
            )
        if self.include and not (isinstance(self.origin, HubSource) and not self.origin.file):
            raise Mistake(
                "is only for a whole repository, such as hf:PUBLISHER/REPOSITORY; remove it",
                "include",
            )
        if self.token and self.kind == "file":
            raise Mistake(
                "is given, and the source is a file on the controller; remove it", "token"
            )
        return self

    @property
    def origin(self) -> HubSource | OllamaSource | str:
        """The source, parsed if it is in a hub."""
        return parse_source(self.source)

    @property
    def kind(self) -> Literal["url", "file"]:
        """Whether the host downloads the weights (`url`) or the controller uploads them
        (`file`)."""
        remote = isinstance(self.origin, HubSource | OllamaSource) or "://" in self.source
        return "url" if remote else "file"

    @property
    def path(self) -> str:
        """Path of the weights inside the image: a file, or a directory if there are several."""
        if self.files:
            return f"{MODELS}/{self.name}"
        return f"{MODELS}/{self.name}{PurePosixPath(urlsplit(self.source).path).suffix}"

    @property
    def weights(self) -> str:
        """Path of the file that the engine loads: of several parts, the first."""
        part = first_part([file.path for file in self.files])
        return f"{self.path}/{part}" if part else self.path

    @property
    def beside(self) -> Mapping[str, str]:
        """GGUF files that are loaded with the weights: places on the controller by the name of the
        option."""
        given = {"adapter": self.adapter, "projector": self.projector, "draft": self.draft}
        return {option: place for option, place in given.items() if place}

    def beside_path(self, option: str) -> str:
        """Path of such a file inside the image."""
        return f"{MODELS}/{self.name}.{option}.gguf"

    @property
    def baked(self) -> Mapping[str, str]:
        """SHA-256 of each file of the weights, by its path inside the image."""
        if self.sha256:
            return {self.path: self.sha256}
        return {f"{self.path}/{file.path}": file.sha256 for file in self.files}

    @property
    def adapter_path(self) -> str:
        """Path of the adapter inside the image."""
        return self.beside_path("adapter")

    @property
    def digest(self) -> str:
        """SHA-256 of the file; for several, of the lines that `sha256sum` would print."""
        if self.sha256:
            return self.sha256
        lines = sorted(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def places(self) -> Mapping[str, str]:
        """Source of each file, a URL or a path, by its path inside the image."""
        paths = [file.path for file in self.files] or [""]
        return {f"{self.path}/{path}" if path else self.path: self._place(path) for path in paths}

    def _place(self, path: str) -> str:
        match self.origin:
            case HubSource() as hub:
                return hub.url(self.revision or "", path or hub.file)
            case OllamaSource() as library:
                return library.url(path, self.baked.get(f"{self.path}/{path}", ""))
            case str() as source:
                return f"{source.rstrip('/')}/{path}" if path else source


def holders(models: Iterable[Model]) -> dict[str, Model]:
    """The first model with the same weights, by the name of each."""
    first: dict[str, Model] = {}
    return {model.name: first.setdefault(model.digest, model) for model in models}
