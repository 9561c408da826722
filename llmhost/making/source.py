"""Whether a source can be used: its types, its license, the policies."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from llmhost.making.job import Job
from llmhost.making.tools import MakingError
from llmhost.models.files import gguf_at
from llmhost.models.gguf import GgufError
from llmhost.models.lineage import Lineage, of_card, of_metadata
from llmhost.models.policy import underivable, violations
from llmhost.models.safetensors import (
    SafetensorsError,
    read_safetensors,
    types_of,
    types_of_matrices,
)
from llmhost.units import gib

_WEIGHTS = {"F32", "F16", "BF16"}
_NUMBERS = {"F64", "I8", "I16", "I32", "I64"}

_LARGEST_GRAPH = 2**31
_Found = TypeVar("_Found")

_MODULES = {"Transformer", "Pooling", "Normalize", "Dropout"}
"""Steps of sentence-transformers that results have, or that change no direction."""
_POOLINGS = ("mean", "mean_tokens", "cls", "cls_token")
"""Of ONNX files, with old and new names; llama.cpp's converter refuses what it does not know."""


def judge(job: Job, lineage: Lineage) -> None:
    """Raise MakingError if a policy refuses the source, or its license forbids to derive."""
    for policy in job.policies:
        for sentence in violations(policy, lineage):
            raise MakingError(f"{sentence}; use another source, or change the policy")
    if sentence := underivable(lineage):
        raise MakingError(f"{sentence}; use another source")


def _lineage_in(place: Path) -> Lineage:
    """What a source says about itself."""
    card = place / "README.md" if place.is_dir() else place.with_name("README.md")
    found = of_card(card.read_text(errors="replace")) if card.is_file() else Lineage()
    return found + of_metadata(gguf_at(str(place)).metadata) if place.is_file() else found


def check_source(job: Job, place: Path) -> None:
    """Raise MakingError if it cannot be quantized, or must not."""
    kinds = types_in(job, place)
    quantized = sorted(kinds - _WEIGHTS - _NUMBERS)
    if job.converts and (strange := sorted(kinds - _WEIGHTS - {"I64", "I32"})):
        raise MakingError(
            f"has a source whose safetensors are {', '.join(strange)}; use a repository in F32, F16"
            " or BF16"
        )
    if quantized and not job.derive.from_quantized:
        raise MakingError(
            f"has a source that is quantized already ({', '.join(quantized)}), and would lose"
            " accuracy twice; use the F16 or BF16 file, or set 'from_quantized': True in derive"
        )
    if job.derive.onnx:
        _check_graph(job, place)
    if job.converts and job.source.task == "rerank" and job.derive.quantize:
        _check_reranker(place)
    if job.converts and job.source.task == "embed":
        _check_embedder(job, place)
    if job.derive.compress and _is_compressed(place / "config.json"):
        raise MakingError(
            "has a source that is quantized already, as its config.json says, and would lose"
            " accuracy twice; use the original repository, in F32, F16 or BF16"
        )
    judge(job, _lineage_in(place))


def _is_compressed(config: Path) -> bool:
    """Packed weights have a type of numbers, so only the config shows them."""
    try:
        return bool(json.loads(config.read_text()).get("quantization_config"))
    except (OSError, ValueError, AttributeError, RecursionError):
        raise MakingError("has a source whose config.json cannot be read as JSON") from None


def _check_reranker(place: Path) -> None:
    """llama.cpp's converter omits BERT's pooler, which its reranking models have before the score.
    The conversion succeeds, its scores are others, and a measurement beside it would not show it:
    conversion/bert.py of llama.cpp."""
    if '"BertForSequenceClassification"' in (place / "config.json").read_text(errors="replace"):
        raise MakingError(
            "has a source of BERT's architecture, of which llama.cpp's converter omits a layer"
            " that scores; use a GGUF file in F16 or F32 that its publisher made, or onnx"
        )


def _check_embedder(job: Job, place: Path) -> None:
    """A result has the model and its pooling only. The further layers of EmbeddingGemma or LaBSE
    would be missing in what is measured as its source, too, so that no evaluation would show it:
    https://github.com/ggml-org/llama.cpp/issues/18677."""
    modules = _read_json(place / "modules.json", [])
    omitted = sorted({_kind(each) for each in modules} - _MODULES)
    if omitted:
        use = "onnx" if job.derive.onnx else "quantize"
        raise MakingError(
            f"has a source that ends with the layers {', '.join(omitted)}, as its modules.json"
            f" says, which {use} omits; use a GGUF file in F32, BF16 or F16 that its publisher made"
        )
    for each in modules if job.derive.onnx else ():
        if _kind(each) == "Pooling":
            _check_pooling(_read_json(place / str(each.get("path")) / "config.json", {}))


def _check_pooling(config: Any) -> None:
    """Files of sentence-transformers before 5.4 have a flag for each way, others its name."""
    prefix = "pooling_mode_"
    ways = [
        name.removeprefix(prefix) for name in config if name.startswith(prefix) and config[name]
    ]
    named = config.get("pooling_mode")
    if ([named] if named else ways) not in [[way] for way in _POOLINGS]:
        raise MakingError(
            "has a source with another pooling than of the mean or of the first token, which onnx"
            " does not measure; use quantize"
        )


def _kind(module: Any) -> str:
    """`sentence_transformers.models.Dense` is `Dense`; its path depends on the version."""
    return str(module.get("type")).rpartition(".")[2]


def _read_json(file: Path, default: Any) -> Any:
    """A list of records or a record, as the default, which is for a file that is not there. Raises
    MakingError."""
    try:
        found = json.loads(file.read_text())
        records = found if isinstance(found, list) else [found]
        if isinstance(found, type(default)) and all(isinstance(each, dict) for each in records):
            return found
    except FileNotFoundError:
        return default
    except (OSError, ValueError, RecursionError):
        pass
    raise MakingError(f"has a source whose {file.name} cannot be read as JSON")


def _check_graph(job: Job, place: Path) -> None:
    """torch.onnx.export writes what is larger beside the graph, and ONNX Runtime's quantization
    cannot read it."""
    size = 4 * sum(totals.values for totals in _of_each(job, place, read_safetensors))
    if size >= _LARGEST_GRAPH:
        raise MakingError(
            f"has a source of {gib(size)} in F32, and an ONNX file has less than 2 GiB; use a"
            " repository that has ONNX files, or quantize"
        )


def _of_each(job: Job, place: Path, read: Callable[[BinaryIO, int], _Found]) -> Iterator[_Found]:
    """What is read from each file of safetensors. Raises SafetensorsError or OSError."""
    for file in (place / each.path for each in job.source.files):
        if file.suffix == ".safetensors":
            with file.open("rb") as stream:
                yield read(stream, file.stat().st_size)


def matrix_types_in(job: Job, place: Path) -> set[str]:
    """Types of the matrices of a repository, which decide that of its GGUF file; `check_source` has
    found that they can be read."""
    return {kind for kinds in _of_each(job, place, types_of_matrices) for kind in kinds}


def types_in(job: Job, place: Path) -> set[str]:
    """Types of the source's tensors. Raises MakingError."""
    try:
        if not job.converts:
            return {tensor.kind for tensor in gguf_at(str(place)).tensors}
        found = {kind for kinds in _of_each(job, place, types_of) for kind in kinds}
    except (GgufError, SafetensorsError, OSError) as error:
        raise MakingError(f"has a source that cannot be used: the file {error}") from None
    if not found:
        raise MakingError("has a source without safetensors; use a GGUF file, or such a repository")
    if not (place / "config.json").is_file():
        raise MakingError("has a source without config.json, which its tools read")
    return found
