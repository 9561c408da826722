"""Build context of Ollama's store: what files/images/ollama/bake writes into the image. Pure.

The formats are those of Ollama (manifest/manifest.go and types/model/config.go of ollama/ollama
0.31.1): a manifest of a model lists layers by their SHA-256, and the weights are one of them.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmhost.models.files import sha256_of
from llmhost.models.quantization import FILE_TYPES
from llmhost.options.model import Model, holders
from llmhost.options.model_source import MANIFEST, OllamaSource
from llmhost.system.files import File

PARAMETERS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "max_tokens": "num_predict",
    "stop": "stop",
}
"""Ollama's names of the model parameters (ollama, docs/modelfile.mdx)."""


def store_files(models: Sequence[Model]) -> Iterator[File]:
    """A list of layers for each role, and the layers that llmhost writes itself."""
    names = "".join(f"{code}\t{name}\n" for code, name in FILE_TYPES.items())
    yield File("quantizations", names)
    blobs: dict[str, File] = {}
    at = holders(models)
    for model in models:
        lines = [_base(at[model.name])]
        if model.adapter:
            sha256 = sha256_of(Path(model.adapter))
            lines.append(f"adapter\t{sha256}\t{model.adapter_path}")
        for kind, text in _texts(model):
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            lines.append(f"{kind}\t{sha256}")
            blobs[sha256] = File(f"blobs/{sha256}", text)
        yield File(f"roles/{model.name}", "\n".join([*lines, ""]))
    yield from blobs.values()


def weights_of(model: Model) -> str:
    """SHA-256 of the file of weights, by which Ollama runs a model.

    For a model of the library it is the manifest's first layer, after the manifest and the config
    in the order of `llmhost model lock`.
    """
    if model.sha256 or not isinstance(model.origin, OllamaSource):
        return model.digest
    blobs = [file.sha256 for file in model.files if file.path != MANIFEST]
    return blobs[1] if len(blobs) > 1 else model.digest


def _base(model: Model) -> str:
    if isinstance(model.origin, OllamaSource):
        return f"library\t-\t{model.path}"
    return f"model\t{model.sha256}\t{model.path}"


def _texts(model: Model) -> Iterator[tuple[str, str]]:
    given = model.parameters.given.items()
    parameters = {"num_ctx": model.context_tokens} | {PARAMETERS[key]: each for key, each in given}
    yield "params", json.dumps(parameters, ensure_ascii=False)
    if model.system_prompt is not None:
        yield "system", model.system_prompt
