"""Changes that make a plan fit, each by itself."""

from collections.abc import Iterator
from dataclasses import replace

from llmhost.models.quantization import QUANTIZATION_LADDER
from llmhost.units import exact_gib
from llmhost.vram.ledger import GpuShare, Ledger, Load

_CONTEXT_STEP = 256

# A smaller context is of no use.
_LEAST_CONTEXT = 1024


def remedies(ledger: Ledger) -> Iterator[str]:
    """Sentences that propose changes; at least one, for a plan that does not fit."""
    found = [sentence for load in ledger.loads for sentence in _of_load(ledger, load)]
    found += [sentence for share in ledger.shares for sentence in _of_share(ledger, share)]
    yield from found or [
        "no single change is enough: combine a smaller context, a smaller quantization and fewer"
        " resident models, or use a GPU with more memory"
    ]


def _of_load(ledger: Ledger, load: Load) -> Iterator[str]:
    if load.measured_bytes is None and load.shape is not None:
        if context := _largest_context(ledger, load):
            yield f"'{load.model}' fits with context_tokens = {context}"
        if load.use.adapter_rank and load.shape.adapter_values is None:
            known = load.shape.model_copy(update={"adapter_values": 1})
            if _with(ledger, load, replace(load, shape=known)).fits:
                yield (
                    f"'{load.model}' may fit with adapter_values in its shape: without it, more is"
                    " counted for its adapters than they need"
                )
        if load in ledger.unshared and (kind := _best_quantization(ledger, load)):
            yield f"'{load.model}' fits as {kind}"
    if load.resident and _with(ledger, load, replace(load, resident=False)).fits:
        yield f"'{load.model}' fits with resident = False: loaded on demand"


def _of_share(ledger: Ledger, share: GpuShare) -> Iterator[str]:
    """The fractions, in whole percent, that fit its models and leave enough for others."""
    others = ledger.peak_bytes - ledger.share_bytes(share) + share.beside_bytes
    needed = ledger.needed_in_share(share) - share.beside_bytes
    least = -(-100 * needed // ledger.total_bytes)
    most = 100 * (ledger.limit_bytes - others) // ledger.total_bytes
    if 0 < least <= most:
        yield f"'{share.service}' fits with a fraction of {least / 100:.2f} to {most / 100:.2f}"


def _largest_context(ledger: Ledger, load: Load) -> int:
    """The largest context that makes the plan fit, in steps of 256; 0 if none does."""
    smallest, largest = (
        _LEAST_CONTEXT // _CONTEXT_STEP - 1,
        load.use.context_tokens // _CONTEXT_STEP,
    )
    while smallest < largest:
        middle = (smallest + largest + 1) // 2
        if _with(ledger, load, load.with_context(middle * _CONTEXT_STEP)).fits:
            smallest = middle
        else:
            largest = middle - 1
    tokens = smallest * _CONTEXT_STEP
    return tokens if tokens >= _LEAST_CONTEXT else 0


def _best_quantization(ledger: Ledger, load: Load) -> str:
    """The best quantization that makes the plan fit, with its size; empty if none does."""
    shape = load.shape
    if shape is None or shape.parameters is None:
        return ""
    for kind, bits in QUANTIZATION_LADDER.items():
        size = int(shape.parameters * bits / 8)
        smaller = shape.model_copy(update={"weights_bytes": size})
        if size < shape.weights_bytes and _with(ledger, load, replace(load, shape=smaller)).fits:
            return f"{kind} (about {exact_gib(size)} of weights)"
    return ""


def _with(ledger: Ledger, old: Load, new: Load) -> Ledger:
    return replace(ledger, loads=tuple(new if load is old else load for load in ledger.loads))
