"""Safetensors for vLLM: compressed by llm-compressor, in a Python of its own."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmhost.making.fetch import Say
from llmhost.making.job import Embedded, Job, Scored, Speed
from llmhost.making.llama import LEAST_TOKENS, too_short
from llmhost.making.reranking import Asked
from llmhost.making.tools import COMPRESS_PROGRAM, COMPRESSOR, MakingError, Ran, Tools

_LEFT_OUT = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".gguf", ".onnx")
"""Weights of the source in any form."""


@dataclass
class CompressorWay:
    """`derive.compress`. It keeps the speeds that come with each perplexity."""

    _speeds: dict[Path, Speed] = field(default_factory=dict)

    def needed(self, _job: Job) -> Iterator[str]:
        """Python with its packages."""
        yield COMPRESSOR

    def build(
        self, job: Job, tools: Tools, source: Path, drafts: Path, step: Say
    ) -> tuple[Path, Path]:
        """The repository itself, and one with compressed weights."""
        compress = job.derive.compress
        assert compress
        result = drafts / "result"
        step(f"compressing to {compress.scheme}")
        texts = [str(Path(compress.calibration).absolute())] if compress.calibration else []
        _run(tools, drafts, "compress", str(source), str(result), compress.scheme, *texts)
        if not [*result.glob("*.safetensors")]:
            raise MakingError("cannot be made: no safetensors were written")
        for file in job.source.files:
            target = result / file.path
            if not file.path.endswith(_LEFT_OUT) and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file.path, target)
        for each in result.rglob("*"):
            each.chmod(0o755 if each.is_dir() else 0o644)
        return source, result

    def perplexity(self, job: Job, tools: Tools, file: Path, text: str) -> float:
        """In Transformers."""
        found = self._measured(job, tools, file, str(Path(text).absolute()))
        if not found["perplexity"]:
            raise too_short(text, LEAST_TOKENS)
        return found["perplexity"]

    def generation(self, job: Job, tools: Tools, file: Path) -> Speed:
        """In Transformers."""
        if file not in self._speeds:
            self._measured(job, tools, file)
        return self._speeds[file]

    def embedded(
        self, _job: Job, _tools: Tools, _file: Path, _source: Path, _texts: Sequence[Sequence[str]]
    ) -> Embedded:
        """Not for models that generate."""
        raise MakingError("cannot be evaluated: a compressed model gives no vectors")

    def scored(
        self, _job: Job, _tools: Tools, _file: Path, _source: Path, _asked: Sequence[Asked]
    ) -> Scored:
        """Not for models that generate."""
        raise MakingError("cannot be evaluated: a compressed model gives no scores")

    def _measured(self, job: Job, tools: Tools, file: Path, *text: str) -> dict[str, float]:
        answer = job.drafts / "answer.json"
        ran = _run(tools, job.drafts, "measure", str(file), str(answer), *text)
        found: dict[str, float] = json.loads(answer.read_text())
        memory = int(found.get("memory_bytes", ran.peak_bytes))
        self._speeds[file] = Speed(memory, found["rate"], "tokens/s")
        return found


def _run(tools: Tools, directory: Path, task: str, *words: str) -> Ran:
    threads = ["--threads", str(tools.threads)] if tools.threads else []
    arguments = ["-c", COMPRESS_PROGRAM.read_text(), task, *words, *threads]
    return tools.run(COMPRESSOR, arguments, directory)
