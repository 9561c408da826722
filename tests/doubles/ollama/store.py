"""The store on disk (types/model, manifest, server/images.go)."""

import hashlib
import json
import os
import re
import time
from pathlib import Path

from tests.doubles.ollama.gguf import read_header
from tests.doubles.ollama.refusal import Json, Refused

STORE = Path(os.environ.get("OLLAMA_MODELS", "/root/.ollama/models"))
IMAGE = "application/vnd.ollama.image."


def full_name(model: str) -> tuple[str, str, str, str]:
    """types/model/name.go: host, namespace, model and tag, with their defaults."""
    rest, _, tag = model.partition(":")
    parts = ["registry.ollama.ai", "library", *rest.split("/")][-3:]
    return parts[0], parts[1], parts[2], tag or "latest"


def blob(digest: str) -> Path:
    return STORE / "blobs" / digest.replace(":", "-")


class Model:
    """A manifest of the store, and what its layers say."""

    def __init__(self, path: Path) -> None:
        text = path.read_bytes()
        manifest = json.loads(text)
        self.full = "/".join(path.parts[-4:-1]) + f":{path.name}"
        self.short = self.full.removeprefix("registry.ollama.ai/").removeprefix("library/")
        self.digest = hashlib.sha256(text).hexdigest()
        self.modified = path.stat().st_mtime
        self.config: Json = json.loads(blob(manifest["config"]["digest"]).read_text())
        self.size = sum(each["size"] for each in (manifest["config"], *manifest["layers"]))
        self.options: Json = {}
        self.system, self.template = "", ""
        self.weights, self.adapters = Path(), list[Path]()
        for layer in manifest["layers"]:
            self._add(layer["mediaType"].removeprefix(IMAGE), blob(layer["digest"]))
        self.header, self.tensors = read_header(self.weights)

    def _add(self, kind: str, path: Path) -> None:
        match kind:
            case "model":
                self.weights = path
            case "adapter":
                self.adapters.append(path)
            case "params":
                self.options |= json.loads(path.read_text())
            case "system":
                self.system = path.read_text()
            case "template":
                self.template = path.read_text()

    @property
    def architecture(self) -> str:
        return str(self.header["general.architecture"])

    @property
    def embeds(self) -> bool:
        return f"{self.architecture}.pooling_type" in self.header

    @property
    def capabilities(self) -> list[str]:
        chat = self.template or str(self.header.get("tokenizer.chat_template", ""))
        tools = ["tools"] if re.search(r"tools|tool_call", chat) else []
        return ["embedding" if self.embeds else "completion", *tools]

    @property
    def trained_context(self) -> int:
        return int(self.header.get(f"{self.architecture}.context_length", 4096))

    @property
    def details(self) -> Json:
        return {
            "parent_model": "",
            "format": self.config.get("model_format", ""),
            "family": self.config.get("model_family", ""),
            "families": self.config.get("model_families"),
            "parameter_size": self.config.get("model_type", ""),
            "quantization_level": self.config.get("file_type", ""),
        }

    @property
    def listed(self) -> Json:
        width = self.header.get(f"{self.architecture}.embedding_length", 0)
        lengths = {"context_length": self.trained_context, "embedding_length": width}
        return {
            "name": self.short,
            "model": self.short,
            "modified_at": stamp(self.modified),
            "size": self.size,
            "digest": self.digest,
            "details": self.details | lengths,
            "capabilities": self.capabilities,
        }

    @property
    def shown(self) -> Json:
        template = self.template or "{{ .Prompt }}"
        lines = [f"FROM {self.weights}", f"TEMPLATE {template}"]
        parameters = "\n".join(
            f"{name:<30} {json.dumps(each, ensure_ascii=False)}"
            for name, value in self.options.items()
            for each in (value if isinstance(value, list) else [value])
        )
        count = sum(_product(tensor["shape"]) for tensor in self.tensors)
        payload = {"parameters": parameters} if parameters else {}
        return {
            "modelfile": "\n".join(lines) + "\n",
            **payload,
            "template": template,
            **({"system": self.system} if self.system else {}),
            "details": self.details,
            "model_info": self.header | {"general.parameter_count": count},
            "tensors": self.tensors,
            "capabilities": self.capabilities,
            "modified_at": stamp(self.modified),
        }


def _product(shape: list[int]) -> int:
    result = 1
    for each in shape:
        result *= each
    return result


def all_models() -> list[Model]:
    paths = (STORE / "manifests").glob("*/*/*/*")
    return sorted(map(Model, paths), key=lambda model: -model.modified)


def find(name: str, refusal: Refused) -> Model:
    path = STORE.joinpath("manifests", *full_name(name))
    if not name or not path.is_file():
        raise refusal
    return Model(path)


def stamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(min(seconds, 1e11)))
    return f"{whole}.{int(seconds % 1 * 1e9):09}Z"
