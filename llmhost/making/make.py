"""One model made of its source: fetched, built, measured. Nothing stays of a failed one."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmhost.making.collection import Collection, CollectionError, lines_of
from llmhost.making.compressor_way import CompressorWay
from llmhost.making.fetch import Say, fetch, place_of
from llmhost.making.gguf_way import GgufWay
from llmhost.making.job import Job, Way
from llmhost.making.llama import LEAST_TOKENS, too_short
from llmhost.making.measure import Measurements, check_limits, digest_of, files_in, size_of
from llmhost.making.onnx_way import OnnxWay
from llmhost.making.reranking import pairs_of
from llmhost.making.source import check_source, judge
from llmhost.making.tools import MakingError, Tools, locked
from llmhost.models.files import sha256_of
from llmhost.models.lineage import declared
from llmhost.models.made import result_digest
from llmhost.units import duration, gib

_LEAST_CALIBRATION = 8 * 1024
"""Bytes of a text: about 2,000 tokens of English. More than 512 stretches of 512 tokens, about
1 MiB, are not used."""


def check(job: Job, tools: Tools) -> dict[str, str]:
    """Raise MakingError for what can be known before the source is fetched; versions of tools."""
    source = job.source
    judge(job, declared(source.source, source.base_models, source.licence))
    _check_references(job)
    if here := _local(job):
        check_source(job, here)
    versions = {name: tools.version(name) for name in _way(job).needed(job)}
    _check_room(job)
    return versions


def make(job: Job, tools: Tools, say: Say, old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make the model; the entry for the lock file. Raises MakingError, also if the result is not
    that of the entry `old`, whose file then stays."""
    versions = check(job, tools)
    job.file.parent.mkdir(parents=True, exist_ok=True)
    say("fetching and checking the source")
    source = fetch(job.source, job.directory, job.mirrors, job.token, say)
    check_source(job, source)
    with _drafts(job) as drafts, _timed(say) as step:
        way = _way(job)
        files = way.build(job, tools, source, drafts, step)
        step("evaluating the source and the result")
        measured = Measurements(job, tools, way, files, source)
        evaluations = [measured.evaluation(each) for each in job.derive.evaluate]
        report = measured.report()
        check_limits(job, evaluations)
        if old and result_digest(result_pins(files[1])) != result_digest(old):
            raise _another(job, old, versions)
        if job.file.is_dir():
            shutil.rmtree(job.file)
        files[1].replace(job.file)
    return {
        "file": str(job.file.relative_to(job.directory)),
        **result_pins(job.file),
        "bytes": size_of(job.file),
        "input": job.source.digest,
        "tools": versions,
        **{key: digest_of(Path(text)) for key, text in job.derive.texts.items()},
        "evaluations": evaluations,
        "report": report,
    }


def _another(job: Job, old: Mapping[str, Any], versions: Mapping[str, str]) -> MakingError:
    before, after = (", ".join(sorted({*each.values()})) for each in (old["tools"], versions))
    return MakingError(
        f"was made again with another digest than that of the lock file, by {after} instead of"
        f" {before}: copy {job.file.name} from the controller that made it to {job.file.parent}, or"
        " accept this one with --update"
    )


def result_pins(result: Path) -> dict[str, Any]:
    """`sha256` of a file, or `files` of a directory."""
    if result.is_file():
        return {"sha256": sha256_of(result)}
    paths = sorted(files_in(result))
    return {"files": [{"path": str(p.relative_to(result)), "sha256": sha256_of(p)} for p in paths]}


def _way(job: Job) -> Way:
    if job.derive.compress:
        return CompressorWay()
    return OnnxWay() if job.derive.onnx else GgufWay()


def _check_references(job: Job) -> None:
    try:
        for each in job.derive.evaluate:
            if each.measure in ("ndcg", "rerank"):
                Collection.read(Path(each.reference))
            elif each.measure == "agreement" and job.source.task == "rerank":
                pairs_of(Path(each.reference))
            else:
                lines_of(Path(each.reference))
            if each.measure == "perplexity" and _is_too_short(Path(each.reference)):
                raise too_short(each.reference, LEAST_TOKENS)
        for text in job.derive.texts.values():
            lines_of(Path(text))
    except CollectionError as error:
        raise MakingError(f"cannot be evaluated: {error}") from None
    calibration = job.derive.compress and job.derive.compress.calibration
    if calibration and (size := Path(calibration).stat().st_size) < _LEAST_CALIBRATION:
        raise MakingError(
            f"cannot be calibrated on {calibration}, which has {size:,} bytes: write a text of at"
            f" least {_LEAST_CALIBRATION // 1024} KiB, better of 1 MiB"
        )


def _is_too_short(text: Path) -> bool:
    """Whether a text cannot have the tokens for perplexity: each has a byte, most have four."""
    return text.stat().st_size < LEAST_TOKENS


def _local(job: Job) -> Path | None:
    """The source, if it is on the controller."""
    place = place_of(job.source, job.directory)
    return place if place.exists() else None


def _check_room(job: Job) -> None:
    """A result is at most as large as its source; a conversion is as large as it."""
    size = job.source_bytes
    if here := _local(job):
        size = size or sum(each.stat().st_size for each in files_in(here))
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


@contextmanager
def _drafts(job: Job) -> Iterator[Path]:
    """A directory for unfinished files; always removed. Raises MakingError if it is another's."""
    home = job.drafts
    home.mkdir(exist_ok=True)
    with locked(home, "made"):
        try:
            for left in home.iterdir():  # by a run that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink()
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
