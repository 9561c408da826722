"""Rules for models that depend on their files, which are read before anything is built."""

from collections.abc import Iterator
from pathlib import Path

from llmhost.inventory.problem import Problem
from llmhost.models.adapter import mismatches
from llmhost.models.architecture import check_known, check_whole
from llmhost.models.files import (
    gguf_at,
    holds_gguf,
    lineage_beside,
    lineage_of,
    sha256_of,
    shape_of,
)
from llmhost.models.gguf import Gguf, GgufError
from llmhost.models.lora import unfit
from llmhost.models.policy import violations
from llmhost.models.quantization import FILE_TYPES
from llmhost.models.trained import CARD, is_repository, read_card
from llmhost.options.adapter import ADAPTER_FILES
from llmhost.options.model import Model
from llmhost.settings import Settings
from llmhost.vram.ledger import shortfalls
from llmhost.vram.plan import vram_plan
from llmhost.vram.remedies import remedies


class Shortfall(Problem):
    """The models do not fit into a GPU's memory."""


def model_problems(settings: Settings) -> Iterator[Problem]:
    """All mistakes in models; their files are read, never changed."""
    found = [problem for model in settings.models for problem in _problems_of(settings, model)]
    yield from found
    if not settings.vram.gpus_gib:
        return
    plan = vram_plan(settings, settings.vram.gpu_bytes)
    # An unreadable file has already been reported.
    for sentence in () if found else plan.uncounted:
        yield Shortfall("vram_gpus_gib", f"the GPU memory plan is incomplete: {sentence}")
    for ledger in plan.ledgers:
        for sentence in shortfalls(ledger):
            yield Shortfall("vram_gpus_gib", sentence, "; or ".join(remedies(ledger)))


def _problems_of(settings: Settings, model: Model) -> Iterator[Problem]:
    try:
        gguf = gguf_at(model.source) if holds_gguf(model) else None
    except GgufError as error:
        fix = "download it again, and compare its SHA-256 with the publisher's"
        yield _problem(model, f"its file {error}", fix)
        return
    if gguf:
        yield from _file_problems(model, gguf)
        for sentence in _refusals(settings, model, gguf):
            yield _problem(model, f"its file {sentence}", "use another file, or another service")
    yield from _context_problems(model)
    yield from _adapter_problems(model, gguf)
    yield from _lora_problems(model)
    yield from _beside_problems(model, gguf)
    for sentence in violations(settings.policy, lineage_of(model) + lineage_beside(model)):
        yield _problem(model, sentence, "use another model, or change the policy")


def _refusals(settings: Settings, model: Model, gguf: Gguf) -> Iterator[str]:
    for service in settings.catalogue:
        if service.name == model.service:
            yield from service.check_file(settings.options(service.name), model, gguf)


def _problem(model: Model, what: str, fix: str) -> Problem:
    return Problem("models", f"'{model.name}': {what}", fix)


def _file_problems(model: Model, gguf: Gguf) -> Iterator[Problem]:
    code = gguf.metadata.get("general.file_type")
    kind = FILE_TYPES.get(code) if isinstance(code, int) else None
    if model.quantization and kind and model.quantization.upper() != kind:
        yield _problem(model, f"its file is quantized as {kind}", "correct its quantization")
    try:
        check_whole(gguf)
        if model.vram_gib is None and model.shape is None:
            check_known(gguf)
    except GgufError as error:
        fix = "if the engine can run it, read its GPU memory in nvidia-smi and set vram_gib"
        yield _problem(model, f"its file {error}", fix)


def _context_problems(model: Model) -> Iterator[Problem]:
    try:
        shape = shape_of(model)
    except ValueError:
        return  # the ledger reports it, if the model is on a GPU
    trained = shape.trained_context_tokens if shape else None
    if trained and model.context_tokens > trained:
        what = f"context_tokens is {model.context_tokens}, but it was trained for {trained}"
        yield _problem(model, what, f"set context_tokens to {trained} or less")


def _beside_problems(model: Model, gguf: Gguf | None) -> Iterator[Problem]:
    for option in ("projector", "draft"):
        if place := model.beside.get(option):
            for sentence in _unfit_beside(option, place, gguf):
                fix = f"write the path of the {option}'s GGUF file on the controller"
                yield _problem(model, f"its {option} {sentence}", fix)


def _unfit_beside(option: str, place: str, gguf: Gguf | None) -> Iterator[str]:
    if not Path(place).is_file():
        yield "does not exist"
        return
    try:
        found = gguf_at(place)
    except GgufError as error:
        yield str(error)
        return
    # llama.cpp, tools/mtmd/clip.cpp: projectors have the architecture `clip`.
    if (found.architecture == "clip") != (option == "projector"):
        yield "is a projector" if option == "draft" else "is a whole model, not a projector"
    elif option == "draft" and gguf and _tokens(found) != _tokens(gguf):
        yield "has another vocabulary than the model"


def _tokens(gguf: Gguf) -> object:
    return gguf.metadata.get("tokenizer.ggml.model")


def _lora_problems(model: Model) -> Iterator[Problem]:
    if not model.adapters:
        return
    names = [each.name for each in lineage_of(model).ancestors]
    try:
        shape = shape_of(model)
    except ValueError:
        shape = None
    for adapter in model.adapters:
        place = Path(adapter.source)
        for sentence in (
            *unfit(adapter, names, shape, model.task),
            *_strange(model, place, place / ADAPTER_FILES[1], adapter.sha256),
        ):
            what = f"its adapter '{adapter.name}' {sentence}"
            yield _problem(model, what, "use an adapter that was made for this model")


def _adapter_problems(model: Model, gguf: Gguf | None) -> Iterator[Problem]:
    if model.adapter is None:
        return
    if not Path(model.adapter).is_file():
        yield _problem(model, "its adapter does not exist", "write a path on the controller")
        return
    try:
        sentences = list(mismatches(gguf_at(model.adapter), gguf, model.base_models))
    except GgufError as error:
        sentences = [str(error)]
    file = Path(model.adapter)
    for sentence in (*sentences, *_strange(model, file.parent, file, model.adapter_sha256)):
        fix = "use an adapter that was made for this model"
        yield _problem(model, f"its adapter {sentence}", fix)


def _repository_digest(model: Model) -> str | None:
    """Digest of the repository that the model is, or was made of, as a training job has it; none
    for a GGUF file, whose repository is unknown."""
    if model.derive:
        return model.made_from_sha256 if is_repository(model.made_from or "") else None
    return model.digest if model.files else None


def _strange(model: Model, place: Path, file: Path, pin: str | None) -> Iterator[str]:
    """Why an adapter is not the pinned one, or not for this model; `place` may have its card."""
    found = sha256_of(file) if file.is_file() else ""
    if pin and found and found != pin:
        yield f"has the SHA-256 {found} instead of {pin}"
    card = read_card(place)
    base = _repository_digest(model)
    if card and card.files.get(file.name, found) != found:
        yield f"is not the one that {place / CARD} describes"
    if card and base and card.base_digest != base:
        yield (
            f"was trained on {card.base} with the digest {card.base_digest[:12]}, and this model"
            f" has {base[:12]}"
        )
