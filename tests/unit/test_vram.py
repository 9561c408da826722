"""The ledger, against figures of real logs and of the site that asked for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhost.models.architecture import shape_of_gguf
from llmhost.models.gguf import read_gguf
from llmhost.models.llama_memory import llama_memory
from llmhost.models.memory import CUDA_BYTES, Memory, Use
from llmhost.options.shape import Shape
from llmhost.services.vllm_memory import vllm_memory
from llmhost.units import GIB
from llmhost.vram.ledger import GpuShare, Ledger, Load, shortfalls
from llmhost.vram.remedies import remedies
from tests.unit.model_files import decoder, sizes, write_gguf

MIB = 2**20

LLAMA_8B = Shape(
    weights_bytes=4403 * MIB,
    cache_values=2 * 32 * 8 * 128,
    hidden_size=4096,
    vocabulary_size=128_256,
    parameters=7_504_924_672,
)


LLAMA_16BIT = LLAMA_8B.model_copy(update={"weights_bytes": 16_060_522_496})
"""As vLLM loads it: a log says 14.96 GiB (https://github.com/vllm-project/vllm/pull/10511)."""


def load(model: str = "m", context_tokens: int = 4096, **use: Any) -> Load:
    """Llama-3-8B in Ollama."""
    return Load(model, "ollama", 0, LLAMA_8B, Use(context_tokens, **use), llama_memory)


def in_vllm(context_tokens: int = 4096, gib: int = 24, **use: Any) -> Load:
    """The same in vLLM, on a GPU of this size."""
    how = Use(context_tokens, gpu_bytes=gib * GIB, **use)
    return Load("m", "vllm", 0, LLAMA_16BIT, how, vllm_memory)


def ledger(*loads: Load, gib: float = 16, shares: tuple[GpuShare, ...] = ()) -> Ledger:
    return Ledger(0, int(gib * GIB), GIB // 2, loads, shares)


def of_size(model: str, gib: float, resident: bool = True, service: str = "ollama") -> Load:
    """A model of a measured size."""
    measured = int(gib * GIB)
    return Load(model, service, 0, None, Use(4096), llama_memory, resident, measured)


def test_cache_of_llama_3_8b() -> None:
    def cache(**use: Any) -> int:
        return load(context_tokens=32_768, **use).memory.cache_bytes

    assert cache() == 4 * GIB
    assert cache(cache_type="q8_0") == int(4 * GIB * 1.0625 / 2)
    assert cache(cache_type="q4_0") == int(4 * GIB * 0.5625 / 2)
    assert cache(parallel=4) == 16 * GIB


def test_sliding_layers_keep_no_more_than_window_and_batch() -> None:
    shape = LLAMA_8B.model_copy(
        update={"cache_values": 0, "window_cache_values": 1000, "window_tokens": 1000}
    )
    assert llama_memory(shape, Use(512)).cache_bytes == 512 * 1000 * 2
    assert llama_memory(shape, Use(4096)).cache_bytes == 1536 * 1000 * 2
    on_24_gib = Use(4096, gpu_bytes=24 * GIB)
    assert vllm_memory(shape, on_24_gib).cache_bytes == (1000 + 2048) * 1000 * 2


def test_work_buffer_is_what_logs_say() -> None:
    assert load().memory.work_bytes - CUDA_BYTES == 258.5 * MIB
    qwen_3b = LLAMA_8B.model_copy(update={"vocabulary_size": 151_936, "hidden_size": 2048})
    assert llama_memory(qwen_3b, Use(4096)).work_bytes - CUDA_BYTES == 300.75 * MIB


# From config.json of meta-llama/Meta-Llama-3-8B, Qwen/Qwen2.5-14B, yanolja/EEVE-Korean-10.8B-v1.0
# and meta-llama/Llama-3.2-3B: layers, width, feed-forward, heads, KV heads, vocabulary, context.
PUBLIC = {
    "llama-8b": ("llama", "Q4_K_M", 32, 4096, 14336, 32, 8, 128_256, 8192),
    "qwen-14b": ("qwen2", "Q4_K_M", 48, 5120, 13824, 40, 8, 152_064, 32_768),
    "eeve-10.8b": ("llama", "Q5_K_M", 48, 4096, 14336, 32, 8, 40_960, 4096),
    "llama-3b": ("llama", "Q8_0", 28, 3072, 8192, 24, 8, 128_256, 131_072),
}


def from_file(folder: Path, model: str, context_tokens: int = 4096) -> Load:
    """The load of a public model, read from a GGUF with its true header."""
    architecture, recipe, layers, width, feed, heads, kv_heads, words, context = PUBLIC[model]
    tensors = decoder(
        recipe,
        layers=layers,
        hidden=width,
        feed_forward=feed,
        kv_size=kv_heads * 128,
        vocabulary=words,
        tied=model == "llama-3b",
        biased=architecture == "qwen2",
    )
    metadata = sizes(layers, width, heads, kv_heads, context, architecture)
    path = write_gguf(folder / f"{model}.gguf", tensors, metadata, architecture)
    with path.open("rb") as stream:
        shape = shape_of_gguf(read_gguf(stream, path.stat().st_size))
    return Load(model, "ollama", 0, shape, Use(context_tokens), llama_memory)


@pytest.mark.parametrize(
    ("model", "context", "weights_mib", "cache_mib"),
    [("llama-8b", 512, 4403.49, 64), ("qwen-14b", 8192, 8148.38, 1536)],
)
def test_weights_and_cache_are_what_logs_of_llama_cpp_say(
    tmp_path: Path, model: str, context: int, weights_mib: float, cache_mib: float
) -> None:
    """ "CUDA0 model buffer size" and "KV buffer size" of loads with all layers on the GPU."""
    found = from_file(tmp_path, model, context).memory
    assert found.weights_bytes / MIB == pytest.approx(weights_mib, abs=0.01)
    assert found.cache_bytes == cache_mib * MIB


@pytest.mark.parametrize(
    ("role", "model", "stated"),
    [
        ("brain", "qwen-14b", 9.5),
        ("coder", "qwen-14b", 9.0),
        ("search", "eeve-10.8b", 8.0),
        ("router", "llama-3b", 4.0),
    ],
)
def test_figures_of_the_ollama_system_are_met_within_ten_percent(
    tmp_path: Path, role: str, model: str, stated: float
) -> None:
    """Stated in GB as nvidia-smi counts (its MiB by 1024), at Ollama's usual 4096 tokens."""
    assert from_file(tmp_path, model).total_bytes / GIB == pytest.approx(stated, rel=0.1), role


def test_the_ollama_system_fits_with_one_large_model_at_a_time(tmp_path: Path) -> None:
    """An RTX 5070 Ti has 16,303 MiB."""
    large = [replace(from_file(tmp_path, "qwen-14b"), model=m) for m in ("brain", "coder")]
    large.append(from_file(tmp_path, "eeve-10.8b"))
    router = from_file(tmp_path, "llama-3b")
    on_demand = [replace(each, resident=False) for each in large]
    plan = ledger(router, *on_demand, gib=16_303 / 1024)
    assert plan.fits
    assert plan.peak_bytes == router.total_bytes + large[0].total_bytes
    crowded = ledger(router, *large, gib=16_303 / 1024)
    assert not crowded.fits
    assert "no single change is enough" in "".join(remedies(crowded))


def test_measured_value_outweighs_the_estimate() -> None:
    measured = replace(load(), measured_bytes=3 * GIB)
    assert measured.total_bytes == 3 * GIB
    assert ledger(measured).peak_bytes == 3 * GIB


def test_adapter_counts_with_the_weights() -> None:
    assert load(adapter_bytes=5).total_bytes == load().total_bytes + 5


def test_of_each_service_only_the_largest_model_on_demand_counts() -> None:
    plan = ledger(
        of_size("always", 1),
        of_size("small", 2, resident=False),
        of_size("large", 3, resident=False),
        of_size("other", 4, resident=False, service="other"),
    )
    assert dict(plan.at_peak()) == {"always": GIB, "large": 3 * GIB, "other": 4 * GIB}
    assert plan.free_bytes == int((16 - 0.5 - 8) * GIB)


def test_shortfall_says_by_how_much() -> None:
    told = list(shortfalls(ledger(of_size("a", 9), of_size("b", 8))))
    assert told == [
        "GPU 0 has 16.00 GiB, of which 15.50 GiB are available, and the models need 17.00 GiB:"
        " 1.50 GiB too much"
    ]
    assert not list(shortfalls(ledger(of_size("a", 15.5))))
    assert not ledger(of_size("a", 15.51)).fits


def test_vllm_needs_what_its_logs_say() -> None:
    """Llama-3-8B on an H100, 256 requests: 14.96 GiB of weights, 1.26 GiB of activations
    (https://github.com/vllm-project/vllm/pull/10511); 1.62 GiB for the graphs of as many requests
    (https://github.com/vllm-project/vllm/pull/39559)."""
    use = Use(8192, parallel=256, gpu_bytes=80 * GIB)
    eager, found = vllm_memory(LLAMA_16BIT, use, graphs=False), vllm_memory(LLAMA_16BIT, use)
    assert eager.weights_bytes / GIB == pytest.approx(14.96, abs=0.01)
    assert eager.work_bytes / GIB == pytest.approx(1.26 + 0.2, rel=0.05)
    assert (found.work_bytes - eager.work_bytes) / GIB == pytest.approx(1.62, rel=0.05)


def test_vllm_s_cache_holds_one_request_at_least_and_is_spread_over_its_gpus() -> None:
    one, many = in_vllm().memory, in_vllm(parallel=64).memory
    assert one.cache_bytes == many.cache_bytes == GIB // 2
    both = in_vllm(gpus=2).memory
    assert both == Memory(one.weights_bytes // 2, one.cache_bytes // 2, one.work_bytes)
    assert in_vllm(cache_type="fp8").memory.cache_bytes == GIB // 4


def test_share_takes_its_part_of_the_whole_gpu() -> None:
    share = GpuShare("vllm", 0, 0.8, CUDA_BYTES)
    plan = ledger(in_vllm(parallel=64), gib=24, shares=(share,))
    assert plan.peak_bytes == int(0.8 * 24 * GIB) + CUDA_BYTES
    assert plan.fits, "vLLM queues what its cache does not hold: one request must fit, not 64"
    crowded = replace(plan, loads=(*plan.loads, of_size("x", 5)))
    assert "1.15 GiB too much" in "".join(shortfalls(crowded))
    # 14.96 of weights, 0.5 of cache, 0.2 of libraries, 0.31 for the sampler, 0.59 for 30 graphs.
    assert "'vllm' fits with a fraction of 0.69 to 0.75" in list(remedies(crowded))


def test_share_too_small_for_its_model_is_refused() -> None:
    plan = ledger(in_vllm(), gib=24, shares=(GpuShare("vllm", 0, 0.5, CUDA_BYTES),))
    assert not plan.fits
    (told,) = shortfalls(plan)
    assert told.startswith("the share of 'vllm', 12.45 GiB of GPU 0, is 3.9")
    assert "'vllm' fits with a fraction of 0.67 to 0.96" in list(remedies(plan))
    assert not any("Q4" in sentence for sentence in remedies(plan)), "vLLM reads no such files"


def test_remedies_name_context_quantization_and_demand() -> None:
    long = load("long", context_tokens=65_536)
    found = list(remedies(ledger(long, of_size("b", 3, resident=False), of_size("c", 2))))
    assert found == [
        "'long' fits with context_tokens = 45056",
        "'long' fits with resident = False: loaded on demand",
    ]
    weighty = load("weighty").shape
    assert weighty is not None
    full = weighty.model_copy(update={"weights_bytes": 15_009_849_344})
    found = list(remedies(ledger(replace(load("full"), shape=full), gib=10)))
    assert found == ["'full' fits as Q8_0 (about 7.43 GiB of weights)"]


@given(
    gib=st.floats(1, 64),
    context=st.integers(1024, 200_000),
    other=st.floats(0.1, 20),
    parallel=st.integers(1, 8),
)
def test_proposed_context_is_the_largest_that_fits(
    gib: float, context: int, other: float, parallel: int
) -> None:
    model = load(context_tokens=context, parallel=parallel)
    plan = ledger(model, of_size("other", other), gib=gib)
    if plan.fits:
        return
    told = [each for each in remedies(plan) if "context_tokens" in each]
    proposed = [int(each.rpartition(" ")[2]) for each in told] or [1024 - 256]

    def fits(tokens: int) -> bool:
        return replace(plan, loads=(model.with_context(tokens), plan.loads[1])).fits

    assert not told or fits(proposed[0])
    assert not fits(proposed[0] + 256)
