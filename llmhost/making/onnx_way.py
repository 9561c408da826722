"""ONNX files: exported by PyTorch and quantized by ONNX Runtime, in a Python of their own."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmhost.making.fetch import Say
from llmhost.making.job import Embedded, Job, Scored, Speed
from llmhost.making.reranking import Asked
from llmhost.making.tools import ONNX_PROGRAM, PYTHON, MakingError, Ran, Tools

_FILES = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}
_EXPORTS = {"embed": "export", "rerank": "export-reranker"}
_LEFT_OUT = (".safetensors", ".safetensors.index.json")


class OnnxWay:
    """`derive.onnx`."""

    def needed(self, _job: Job) -> Iterator[str]:
        """Python with its packages."""
        yield PYTHON

    def build(
        self, job: Job, tools: Tools, source: Path, drafts: Path, step: Say
    ) -> tuple[Path, Path]:
        """The repository itself, and one with ONNX files instead of safetensors."""
        assert job.derive.onnx
        precision = job.derive.onnx.precision
        exported, result = drafts / "model.onnx", drafts / "result"
        step("exporting to ONNX")
        _run(tools, _EXPORTS[job.source.task], source, exported)
        target = result / "onnx" / _FILES[precision]
        target.parent.mkdir(parents=True)
        if precision == "int8":
            step("quantizing to int8")
            _run(tools, "quantize", exported, target)
        else:
            exported.replace(target)
        if not target.is_file():
            raise MakingError("cannot be made: no ONNX file was written")
        for file in job.source.files:
            if not file.path.endswith(_LEFT_OUT):
                (result / file.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file.path, result / file.path)
        return source, result

    def perplexity(self, _job: Job, _tools: Tools, _file: Path, _text: str) -> float:
        """Not for models that embed."""
        raise MakingError("cannot be evaluated: ONNX files are for models that embed")

    def generation(self, _job: Job, _tools: Tools, _file: Path) -> Speed:
        """Not for models that embed."""
        raise MakingError("cannot be evaluated: ONNX files are for models that embed")

    def embedded(
        self, job: Job, tools: Tools, file: Path, source: Path, texts: Sequence[Sequence[str]]
    ) -> Embedded:
        """Vectors by PyTorch for the source, and by ONNX Runtime for the result."""
        asked, answer = job.drafts / "texts.json", job.drafts / "vectors.json"
        every = [text for each in texts for text in each]
        context = job.source.context_tokens
        asked.write_text(json.dumps({"texts": every, "context_tokens": context}))
        ran = _run(tools, "embed", source, asked, answer, *_graph(file, source))
        found = json.loads(answer.read_text())
        rest = iter(found["vectors"])
        vectors = [[next(rest) for _ in each] for each in texts]
        rate = len(every) / found["seconds"]
        return Embedded(vectors, Speed(ran.peak_bytes, rate, "embeddings/s"))

    def scored(
        self, job: Job, tools: Tools, file: Path, source: Path, asked: Sequence[Asked]
    ) -> Scored:
        """Scores by PyTorch for the source, and by ONNX Runtime for the result."""
        request, answer = job.drafts / "pairs.json", job.drafts / "scores.json"
        pairs = [[question, text] for question, texts in asked for text in texts]
        context = job.source.context_tokens
        request.write_text(json.dumps({"pairs": pairs, "context_tokens": context}))
        ran = _run(tools, "score", source, request, answer, *_graph(file, source))
        found = json.loads(answer.read_text())
        rest = iter(found["scores"])
        scores = [[next(rest) for _ in texts] for _, texts in asked]
        return Scored(scores, Speed(ran.peak_bytes, len(pairs) / found["seconds"], "scores/s"))


def _graph(file: Path, source: Path) -> list[Path]:
    """The ONNX file of a result; none of the source."""
    return [] if file == source else [next((file / "onnx").iterdir())]


def _run(tools: Tools, task: str, *places: Path) -> Ran:
    threads = ["--threads", str(tools.threads)] if tools.threads else []
    return tools.run(PYTHON, ["-c", ONNX_PROGRAM.read_text(), task, *map(str, places), *threads])
