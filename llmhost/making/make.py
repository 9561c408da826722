"""One model made of its source: converted, quantized, evaluated. Nothing stays of a failed one."""

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmhost.making.collection import (
    Collection,
    CollectionError,
    agreement,
    lines_of,
    ndcg,
)
from llmhost.making.fetch import Say, fetch, place_of
from llmhost.making.llama import Embedder, Speed, generation, perplexity
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
from llmhost.models.files import gguf_at, sha256_of
from llmhost.models.gguf import GgufError
from llmhost.models.lineage import Lineage, declared, of_card, of_metadata
from llmhost.models.made import file_name
from llmhost.models.policy import violations
from llmhost.models.safetensors import SafetensorsError, types_of
from llmhost.options.derive import Derive, Evaluation
from llmhost.options.model import Model
from llmhost.options.policy import ModelPolicy
from llmhost.units import duration, gib

_LOSSLESS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
"""The converter's --outtype by type of the safetensors."""


@dataclass(frozen=True)
class Job:
    """A model to make. `source` has the pins of the origin, `directory` is that of results,
    `source_bytes` is 0 if it is unknown."""

    source: Model
    derive: Derive
    directory: Path
    source_bytes: int = 0
    mirrors: Mapping[str, str] = field(default_factory=dict)
    token: str = ""
    policies: tuple[ModelPolicy, ...] = ()

    @property
    def file(self) -> Path:
        """The result."""
        return self.directory / file_name(self.source.source, self.derive.recipe)

    @property
    def converts(self) -> bool:
        """Whether the source is a repository, which is converted first."""
        return bool(self.source.files)


def check(job: Job, tools: Tools) -> dict[str, str]:
    """Raise MakingError for what can be known before the source is fetched; versions of tools."""
    source = job.source
    _judge(job, declared(source.source, source.base_models, source.licence))
    _check_references(job)
    if here := _local(job):
        _check_source(job, here)
    versions = {name: tools.version(name) for name in _needed(job)}
    _check_room(job)
    return versions


def make(job: Job, tools: Tools, say: Say) -> dict[str, Any]:
    """Make the model; the entry for the lock file. Raises MakingError."""
    versions = check(job, tools)
    job.directory.mkdir(parents=True, exist_ok=True)
    say("fetching and checking the source")
    source = fetch(job.source, job.directory, job.mirrors, job.token, say)
    _check_source(job, source)
    with _drafts(job) as drafts, _timed(say) as timed:
        before = source
        if job.converts:
            timed("converting to GGUF")
            before = _convert(job, tools, source, drafts)
        timed(f"quantizing to {job.derive.quantize}")
        after = _quantize(job, tools, before, drafts)
        timed("evaluating the source and the result")
        measured = _Measured(job, tools, before, after)
        evaluations = [measured.evaluation(each) for each in job.derive.evaluate]
        report = measured.report()
        _check_limits(job, evaluations)
        after.replace(job.file)
    return {
        "file": job.file.name,
        "sha256": sha256_of(job.file),
        "bytes": job.file.stat().st_size,
        "input": job.source.digest,
        "tools": versions,
        "evaluations": evaluations,
        "report": report,
    }


def _needed(job: Job) -> Iterator[str]:
    yield QUANTIZE
    if job.converts:
        yield CONVERTER
    if job.derive.importance:
        yield IMPORTANCE
    yield from (SERVER,) if job.source.task == "embed" else (PERPLEXITY, BENCH)


def _check_references(job: Job) -> None:
    try:
        for each in job.derive.evaluate:
            if each.measure == "ndcg":
                Collection.read(Path(each.reference))
            else:
                lines_of(Path(each.reference))
        if job.derive.importance:
            lines_of(Path(job.derive.importance))
    except CollectionError as error:
        raise MakingError(f"cannot be evaluated: {error}") from None


def _local(job: Job) -> Path | None:
    """The source, if it is on the controller."""
    place = place_of(job.source, job.directory)
    return place if place.exists() else None


def _judge(job: Job, lineage: Lineage) -> None:
    """Raise MakingError if a policy refuses the source, or its license forbids to derive."""
    for policy in job.policies:
        for sentence in violations(policy, lineage):
            raise MakingError(f"{sentence}; use another source, or change the policy")
    for licence in lineage.licences:
        if "-nd" in licence.lower():
            raise MakingError(
                f"has the license '{licence}', which allows no derived works; use another source"
            )


def _lineage_in(place: Path) -> Lineage:
    """What a source says about itself."""
    card = place / "README.md" if place.is_dir() else place.with_name("README.md")
    found = of_card(card.read_text(errors="replace")) if card.is_file() else Lineage()
    return found + of_metadata(gguf_at(str(place)).metadata) if place.is_file() else found


def _check_source(job: Job, place: Path) -> None:
    """Raise MakingError if it cannot be quantized, or must not."""
    kinds = _types(job, place)
    quantized = sorted(kinds - {"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})
    if job.converts and (strange := sorted(kinds - {*_LOSSLESS, "I64", "I32"})):
        raise MakingError(
            f"has a source whose safetensors are {', '.join(strange)}; use a repository in F32, F16"
            " or BF16"
        )
    if quantized and not job.derive.from_quantized:
        raise MakingError(
            f"has a source that is quantized already ({', '.join(quantized)}), and would lose"
            " accuracy twice; use the F16 or BF16 file, or set 'from_quantized': True in derive"
        )
    _judge(job, _lineage_in(place))


def _types(job: Job, place: Path) -> set[str]:
    try:
        if not job.converts:
            return {tensor.kind for tensor in gguf_at(str(place)).tensors}
        files = [place / file.path for file in job.source.files]
        found: set[str] = set()
        for file in files:
            if file.suffix == ".safetensors":
                with file.open("rb") as stream:
                    found |= types_of(stream, file.stat().st_size)
    except (GgufError, SafetensorsError, OSError) as error:
        raise MakingError(f"has a source that cannot be used: the file {error}") from None
    if not found:
        raise MakingError("has a source without safetensors; use a GGUF file, or such a repository")
    if not (place / "config.json").is_file():
        raise MakingError("has a source without config.json, which the converter reads")
    return found


def _check_room(job: Job) -> None:
    """A result is at most as large as its source; a conversion is as large as it."""
    size = job.source_bytes
    if here := _local(job):
        size = size or sum(each.stat().st_size for each in _files(here))
    copies = 1 + job.converts + (_local(job) is None)
    place = job.directory
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size * copies > free:
        raise MakingError(
            f"needs up to {gib(size * copies)} in {job.directory}, and {gib(free)} are free; free"
            " space there, or move the lock file with stack_models_lock"
        )


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [each for each in place.rglob("*") if each.is_file()]


@contextmanager
def _drafts(job: Job) -> Iterator[Path]:
    """A directory for unfinished files; always removed."""
    home = job.directory / f"{job.file.name}.draft"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _timed(say: Say) -> Iterator[Say]:
    """Say each step when it begins, with the time so far."""
    begun = time.monotonic()

    def step(text: str) -> None:
        seconds = time.monotonic() - begun
        say(f"{text} (after {duration(seconds)})" if seconds > 1 else text)

    yield step
    say(f"done after {duration(time.monotonic() - begun)}")


def _convert(job: Job, tools: Tools, source: Path, drafts: Path) -> Path:
    """As GGUF in the type of the safetensors, so that nothing is lost before the evaluation."""
    types = _types(job, source)
    kind = next((_LOSSLESS[each] for each in ("F32", "BF16", "F16") if each in types), "f32")
    result = drafts / f"source-{kind}.gguf"
    tools.run(CONVERTER, [str(source), "--outfile", str(result), "--outtype", kind])
    if not result.is_file():
        raise MakingError(f"cannot be made: {CONVERTER} wrote no file")
    return result


def _quantize(job: Job, tools: Tools, source: Path, drafts: Path) -> Path:
    result, derive = drafts / "result.gguf", job.derive
    options = ["--allow-requantize"] if derive.from_quantized else []
    if derive.importance:
        matrix = drafts / "importance.gguf"
        arguments = ["-m", str(source), "-f", derive.importance, "-o", str(matrix)]
        tools.run(IMPORTANCE, [*arguments, *tools.thread_options])
        options += ["--imatrix", str(matrix)]
    tools.run(QUANTIZE, [*options, str(source), str(result), derive.quantize])
    if not result.is_file():
        raise MakingError(f"cannot be made: {QUANTIZE} wrote no file")
    return result


class _Measured:
    """What the source and the result are and do; each is measured once."""

    def __init__(self, job: Job, tools: Tools, before: Path, after: Path) -> None:
        self._job, self._tools = job, tools
        self._files = (before, after)
        self._speeds: list[Speed] = []

    def evaluation(self, wanted: Evaluation) -> dict[str, Any]:
        """The entry of an evaluation, whether or not its limit is met."""
        before, after, value = getattr(self, f"_{wanted.measure}")(wanted.reference)
        return {
            "measure": wanted.measure,
            "reference": wanted.reference,
            "sha256": digest_of(Path(wanted.reference)),
            "before": round(before, 6),
            "after": round(after, 6),
            "value": round(value, 6),
            "limit": wanted.at_most or wanted.at_least,
        }

    def report(self) -> dict[str, Any]:
        """Size, memory and speed, before and after."""
        if not self._speeds:
            self._speeds = [generation(self._tools, file) for file in self._files]
        both = zip(self._files, self._speeds, strict=True)
        before, after = ({"bytes": file.stat().st_size, **asdict(speed)} for file, speed in both)
        return {"before": before, "after": after}

    def _perplexity(self, text: str) -> tuple[float, float, float]:
        before, after = (perplexity(self._tools, file, text) for file in self._files)
        return before, after, after / before

    def _agreement(self, text: str) -> tuple[float, float, float]:
        texts = lines_of(Path(text))
        before, after = self._embedded([texts])
        value = agreement(before[0], after[0])
        return 1.0, value, value

    def _ndcg(self, directory: str) -> tuple[float, float, float]:
        found = Collection.read(Path(directory))
        texts = [[*found.documents.values()], [*found.questions.values()]]
        before, after = (
            ndcg(
                found,
                dict(zip(found.documents, documents, strict=True)),
                dict(zip(found.questions, questions, strict=True)),
            )
            for documents, questions in self._embedded(texts)
        )
        if not before:
            raise MakingError(f"cannot be evaluated on {directory}: the source finds nothing there")
        return before, after, after / before

    def _embedded(self, texts: list[list[str]]) -> list[list[list[list[float]]]]:
        """Vectors of the lists of texts, by the source and by the result."""
        found, speeds = [], []
        for file in self._files:
            with Embedder(self._tools, file, self._job.source.context_tokens) as embedder:
                found.append([embedder.embed(each) for each in texts])
                speeds.append(embedder.speed)
        self._speeds = speeds
        return found


def _check_limits(job: Job, evaluations: list[dict[str, Any]]) -> None:
    missed = [
        f"its {wanted.measure} on {wanted.reference} {sentence}"
        for wanted, found in zip(job.derive.evaluate, evaluations, strict=True)
        if (sentence := wanted.shortfall(found["value"]))
    ]
    if missed:
        raise MakingError(
            f"loses too much accuracy as {job.derive.quantize}, and nothing was recorded:"
            f" {'; '.join(missed)}"
        )


def digest_of(place: Path) -> str:
    """SHA-256 of a file, or of the names and digests of a directory's files."""
    if place.is_file():
        return sha256_of(place)
    lines = (f"{sha256_of(file)}  {file.relative_to(place)}\n" for file in sorted(_files(place)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
