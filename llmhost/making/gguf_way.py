"""GGUF files: converted from safetensors and quantized by llama.cpp's tools."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from llmhost.making.fetch import Say
from llmhost.making.job import Embedded, Job, Scored, Speed
from llmhost.making.llama import Embedder, Reranker, generation, perplexity
from llmhost.making.reranking import Asked
from llmhost.making.source import matrix_types_in
from llmhost.making.tools import (
    BENCH,
    CONVERTER,
    IMPORTANCE,
    PERPLEXITY,
    QUANTIZE,
    SERVER,
    MakingError,
    Tools,
)
from llmhost.models.files import gguf_at

_LOSSLESS = {"F32": "f32", "BF16": "bf16", "F16": "f16"}
"""The converter's --outtype by type of the safetensors, the most exact one first."""


class GgufWay:
    """`derive.quantize`."""

    def needed(self, job: Job) -> Iterator[str]:
        """Names of its tools."""
        yield QUANTIZE
        if job.converts:
            yield CONVERTER
        if job.derive.importance:
            yield IMPORTANCE
        yield from (PERPLEXITY, BENCH) if job.source.task == "generate" else (SERVER,)

    def build(
        self, job: Job, tools: Tools, source: Path, drafts: Path, step: Say
    ) -> tuple[Path, Path]:
        """The source as GGUF, and the result."""
        before = source
        if job.converts:
            step("converting to GGUF")
            before = _convert(job, tools, source, drafts)
        step(f"quantizing to {job.derive.quantize}")
        return before, _quantize(job, tools, before, drafts)

    def perplexity(self, _job: Job, tools: Tools, file: Path, text: str) -> float:
        """By llama-perplexity."""
        return perplexity(tools, file, text)

    def generation(self, _job: Job, tools: Tools, file: Path) -> Speed:
        """By llama-bench."""
        return generation(tools, file)

    def embedded(
        self, job: Job, tools: Tools, file: Path, _source: Path, texts: Sequence[Sequence[str]]
    ) -> Embedded:
        """Vectors by llama.cpp's server."""
        with Embedder(tools, file, job.source.context_tokens) as embedder:
            vectors = [embedder.embed(each) for each in texts]
            return Embedded(vectors, embedder.speed)

    def scored(
        self, job: Job, tools: Tools, file: Path, _source: Path, asked: Sequence[Asked]
    ) -> Scored:
        """Scores by llama.cpp's server."""
        with Reranker(tools, file, job.source.context_tokens) as reranker:
            scores = [reranker.score(question, texts) for question, texts in asked]
            return Scored(scores, reranker.speed)


def _convert(job: Job, tools: Tools, source: Path, drafts: Path) -> Path:
    """As GGUF in the type of the safetensors, so that nothing is lost before the evaluation."""
    types = matrix_types_in(job, source)
    kind = next((_LOSSLESS[each] for each in _LOSSLESS if each in types), "f32")
    result = drafts / f"source-{kind}.gguf"
    tools.run(CONVERTER, [str(source), "--outfile", str(result), "--outtype", kind])
    if not result.is_file():
        raise MakingError(f"cannot be made: {CONVERTER} wrote no file")
    _check_order(result)
    return result


def _check_order(file: Path) -> None:
    """Without tokenizer.model, the converter takes the tokens of tokenizer.json and gives all of
    them the same score. The model then divides texts otherwise than it was trained, and what is
    measured as its source does so, too: gguf-py/gguf/vocab.py, LlamaHfVocab.get_token_score."""
    metadata = gguf_at(str(file)).metadata
    scores = metadata.get("tokenizer.ggml.scores")
    by_score = metadata.get("tokenizer.ggml.model") == "llama"
    if by_score and isinstance(scores, list) and len({*scores}) == 1:
        raise MakingError(
            "has a source without tokenizer.model, and llama.cpp's converter reads the tokens of"
            " its tokenizer.json without their order; add tokenizer.model to its files, or use a"
            " GGUF file in F32, BF16 or F16 that its publisher made"
        )


def _quantize(job: Job, tools: Tools, source: Path, drafts: Path) -> Path:
    result, derive = drafts / "result.gguf", job.derive
    options = ["--allow-requantize"] if derive.from_quantized else []
    if derive.importance:
        matrix = drafts / "importance.gguf"
        arguments = ["-m", str(source), "-f", derive.importance, "-o", str(matrix)]
        tools.run(IMPORTANCE, [*arguments, *tools.thread_options])
        # Its name becomes part of the result, which must not depend on where it is made.
        options += ["--imatrix", matrix.name]
    arguments = [*options, str(source), str(result), str(derive.quantize)]
    tools.run(QUANTIZE, arguments, directory=drafts)
    if not result.is_file():
        raise MakingError(f"cannot be made: {QUANTIZE} wrote no file")
    return result
