"""Which options of a model an engine supports; the others are refused, never ignored."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llmhost.options.model import Model
from llmhost.options.model_source import OllamaSource

Source = Literal["file", "parts", "files", "ollama"]

_SOURCES: dict[Source, str] = {
    "file": "weights in a single file",
    "parts": "a GGUF file in several parts",
    "files": "weights in several files",
    "ollama": "a source in Ollama's library",
}


@dataclass(frozen=True)
class Abilities:
    """Features of an engine."""

    tasks: tuple[str, ...] = ("generate",)
    sources: tuple[Source, ...] = ("file", "files")
    cache_types: tuple[str, ...] = ("f16",)
    parameters: tuple[str, ...] = ()
    adapter: bool = False
    adapters: bool = False
    projector: bool = False
    draft: bool = False
    parsers: bool = False
    system_prompt: bool = False
    on_demand: bool = False
    directory: bool = False

    def unfit(self, model: Model) -> Iterator[str]:
        """A sentence for each option of a model that the engine would ignore."""
        source = _source_of(model)
        unknown = {
            f"task = '{model.task}'": model.task not in self.tasks,
            _SOURCES[source]: source not in self.sources,
            f"cache_type = '{model.cache_type}'": model.cache_type not in self.cache_types,
            "an adapter": model.adapter is not None and not self.adapter,
            "a projector": model.projector is not None and not self.projector,
            "a draft": model.draft is not None and not self.draft,
            "adapters": bool(model.adapters) and not self.adapters,
            "a tool_parser": model.tool_parser is not None and not self.parsers,
            "a reasoning_parser": model.reasoning_parser is not None and not self.parsers,
            "a system_prompt": model.system_prompt is not None and not self.system_prompt,
            "resident = False": not model.resident and not self.on_demand,
            "a directory": model.directory is not None and not self.directory,
        }
        unknown |= {
            f"parameters.{name}": name not in self.parameters for name in model.parameters.given
        }
        yield from (f"cannot run '{model.name}' with {what}" for what in unknown if unknown[what])


def _source_of(model: Model) -> Source:
    if isinstance(model.origin, OllamaSource):
        return "ollama"
    if model.weights != model.path:
        return "parts"
    return "files" if model.files else "file"
