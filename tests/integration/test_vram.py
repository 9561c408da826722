"""The ledger against a real engine: llama.cpp loads models and says what memory it takes.

It runs on the CPU here, where all layers count as one device: weights and caches have the sizes
they would have on a GPU. What CUDA takes for itself can only be seen on one.
"""

import re
import subprocess
import tarfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Kind

from llmhost.models.architecture import shape_of_gguf
from llmhost.models.gguf import read_gguf
from llmhost.models.llama_memory import llama_memory
from llmhost.models.memory import CUDA_BYTES, Use
from testbed.engine import engine_archive
from tests.programs import running
from tests.unit.model_files import Tensors, decoder, sizes, write_gguf

pytestmark = pytest.mark.machines

MIB = 2**20
WORDS = 32_000
LAYERS = 12


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with llama.cpp in it."""
    root = tmp_path_factory.mktemp("engine")
    with tarfile.open(engine_archive()) as archive:
        archive.extractall(root, filter="fully_trusted")
    return root


def vocabulary() -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"t{number}" for number in range(WORDS - len(tokens))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * WORDS,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (WORDS - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def with_layers(matrices: dict[str, tuple[int, ...]], norms: dict[str, int], width: int) -> Tensors:
    """A model with the same tensors in each layer."""
    tensors: Tensors = {
        "token_embd.weight": ((WORDS, width), Kind.Q8_0),
        "output_norm.weight": ((width,), Kind.F32),
    }
    for layer, (name, shape) in product(range(LAYERS), matrices.items()):
        tensors[f"blk.{layer}.{name}.weight"] = (shape, Kind.Q8_0)
    for layer, (name, size) in product(range(LAYERS), norms.items()):
        tensors[f"blk.{layer}.{name}.weight"] = ((size,), Kind.F32)
    return tensors


def llama() -> tuple[Tensors, dict[str, Any]]:
    """Grouped heads, a separate output."""
    tensors = decoder(
        "Q8_0", layers=LAYERS, hidden=1024, feed_forward=2048, kv_size=256, vocabulary=WORDS
    )
    return tensors, {"feed_forward_length": 2048, "rope.dimension_count": 128}


def gemma3() -> tuple[Tensors, dict[str, Any]]:
    """Five of six layers have a window."""
    attention = {"attn_q": (2048, 1024), "attn_k": (512, 1024), "attn_v": (512, 1024)}
    rest = {"attn_output": (1024, 2048), "ffn_gate": (2048, 1024), "ffn_up": (2048, 1024)}
    wide = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
    norms = dict.fromkeys(wide, 1024) | {"attn_q_norm": 256, "attn_k_norm": 256}
    tensors = with_layers({**attention, **rest, "ffn_down": (1024, 2048)}, norms, 1024)
    window = {"attention.sliding_window": 1024, "feed_forward_length": 2048}
    return tensors, {**window, "attention.key_length": 256, "attention.value_length": 256}


def deepseek2() -> tuple[Tensors, dict[str, Any]]:
    """Latent attention."""
    queries = {"attn_q_a": (256, 1024), "attn_q_b": (8 * 192, 256)}
    latent = {"attn_kv_a_mqa": (576, 1024), "attn_k_b": (8, 512, 128), "attn_v_b": (8, 128, 512)}
    rest = {"attn_output": (1024, 1024), "ffn_gate": (2048, 1024), "ffn_up": (2048, 1024)}
    norms = {"attn_norm": 1024, "ffn_norm": 1024, "attn_kv_a_norm": 512, "attn_q_a_norm": 256}
    tensors = with_layers({**queries, **latent, **rest, "ffn_down": (1024, 2048)}, norms, 1024)
    widths = {
        "key_length": 576,
        "value_length": 512,
        "key_length_mla": 192,
        "value_length_mla": 128,
    }
    ranks = {"q_lora_rank": 256, "kv_lora_rank": 512, "head_count_kv": 1}
    metadata = {f"attention.{key}": value for key, value in (widths | ranks).items()}
    metadata |= {"feed_forward_length": 2048, "rope.dimension_count": 64}
    experts = ("expert_count", "expert_used_count", "expert_shared_count")
    metadata |= dict.fromkeys(experts, 0) | {"expert_feed_forward_length": 64}
    return tensors, metadata | {"leading_dense_block_count": LAYERS, "vocab_size": WORDS}


MODELS = {"llama": llama, "gemma3": gemma3, "deepseek2": deepseek2}


@pytest.mark.parametrize(
    ("architecture", "parallel", "cache_type"),
    [
        ("llama", 1, "f16"),
        ("llama", 1, "q8_0"),
        ("llama", 2, "q4_0"),
        ("llama", 4, "f16"),
        ("gemma3", 1, "f16"),
        ("gemma3", 2, "f16"),
        ("deepseek2", 1, "f16"),
    ],
)
def test_ledger_agrees_with_llama_cpp(
    engine: Path, architecture: str, parallel: int, cache_type: str
) -> None:
    tensors, metadata = MODELS[architecture]()
    own = {f"{architecture}.{key}": value for key, value in metadata.items()}
    common = sizes(LAYERS, 1024, 8, 2, 131_072, architecture) | own | vocabulary()
    common[f"{architecture}.attention.layer_norm_rms_epsilon"] = 1e-6
    path = write_gguf(engine / "model.gguf", tensors, common, architecture)
    with path.open("rb") as stream:
        header = read_gguf(stream, path.stat().st_size)
    use = Use(16_384, parallel, cache_type)
    memory = llama_memory(shape_of_gguf(header), use)
    log = "".join(_started(engine, use))
    assert _mib(log, "KV buffer size") == pytest.approx(memory.cache_bytes / MIB, abs=0.02)
    in_memory = sum(tensor.size for tensor in header.tensors) / MIB
    assert _mib(log, "model buffer size") == pytest.approx(in_memory, abs=0.02)
    assert _mib(log, "compute buffer size") <= (memory.work_bytes - CUDA_BYTES) / MIB


def test_buffer_of_an_embedder_holds_its_longest_text(engine: Path) -> None:
    tensors, metadata = llama()
    own = {f"llama.{key}": value for key, value in metadata.items()}
    common = sizes(LAYERS, 1024, 8, 2, 131_072, "llama") | own | vocabulary()
    common["llama.attention.layer_norm_rms_epsilon"] = 1e-6
    path = write_gguf(engine / "model.gguf", tensors, common, "llama")
    with path.open("rb") as stream:
        shape = shape_of_gguf(read_gguf(stream, path.stat().st_size))
    use = Use(8192, embeds=True)
    size = str(use.context_tokens)
    options = ["--embedding", "--pooling", "mean", "--batch-size", size, "--ubatch-size", size]
    taken = _mib("".join(_started(engine, use, *options)), "compute buffer size")
    work = (llama_memory(shape, use, whole_texts=True).work_bytes - CUDA_BYTES) / MIB
    assert (llama_memory(shape, use).work_bytes - CUDA_BYTES) / MIB < taken <= work


def _started(engine: Path, use: Use, *options: str) -> Iterator[str]:
    """What llama-server writes until it waits for requests."""
    (engine / "tmp/llama.sock").unlink(missing_ok=True)  # of the one before
    command = ["timeout", "--signal=KILL", "60", "chroot", str(engine), "/usr/bin/llama-server"]
    command += ["--model", "/model.gguf", "--ctx-size", str(use.context_tokens * use.parallel)]
    command += ["--parallel", str(use.parallel), "--no-kv-unified", "--flash-attn", "on"]
    command += ["--cache-type-k", use.cache_type, "--cache-type-v", use.cache_type]
    # With AMX it would keep weights in a layout of their own, which takes more memory.
    command += ["--no-repack", "--fit", "off", "--no-warmup", "--verbose"]
    command += ["--host", "/tmp/llama.sock", *options]
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield line
            if "all slots are idle" in line:
                process.terminate()  # timeout passes it on


def _mib(log: str, what: str) -> float:
    found = re.findall(rf"{what} *= *([\d.]+) MiB", log)
    assert found, log[-3000:]
    return sum(map(float, found))
