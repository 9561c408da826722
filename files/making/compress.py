"""Compress a model that generates for vLLM, and measure it: for `llmhost model make`.

It runs in a Python with llmcompressor, not in llmhost's own.

    python3 compress.py versions
    python3 compress.py compress REPOSITORY RESULT SCHEME [CALIBRATION.txt]
    python3 compress.py measure REPOSITORY ANSWER.json [TEXT.txt]

Source and result are measured by the same code, in Transformers: it unpacks the weights and
quantizes activations as vLLM does, but has no fast kernels for them.
"""

import argparse
import importlib.metadata
import json
import math
import os
import time
from pathlib import Path
from typing import Any

PACKAGES = ("llmcompressor", "compressed-tensors", "transformers", "torch")
SEED = 1
STRETCH_TOKENS = 512
MOST_STRETCHES = 512
"""Of a text for calibration; llm-compressor's own examples have as many."""
WINDOW_TOKENS = 512
"""Of a text for perplexity. As in llama-perplexity, only the second half of each window counts:
those tokens all have a context."""
GENERATED_TOKENS = 16
GROUPS = (128, 64, 32)
"""Columns that share a scale at 4 bits, for which vLLM has kernels; the first is usual."""
SMOOTHING = 0.8
"""As in llm-compressor's example for 8-bit integers."""
IGNORED = ["lm_head", r"re:.*\.(gate|router|shared_expert_gate)$", "re:.*(vision|visual|audio).*"]
"""Layers that stay as they are: the last one, choices of experts, and what is not text."""


def versions() -> None:
    known = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    print("version: " + ", ".join(known))


def compress(repository: Path, result: Path, scheme: str, calibration: Path | None = None) -> None:
    """Write config and weights; the tokenizer's files stay those of the source."""
    import torch
    from llmcompressor import oneshot
    from transformers import AutoConfig

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # vLLM calculates with 16 bits: a source with 32 would only make a larger result.
    half = AutoConfig.from_pretrained(repository).dtype == torch.float16
    dtype = torch.float16 if half else torch.bfloat16
    model = loaded(repository, dtype=dtype)
    data: dict[str, Any] = {}
    if calibration:
        samples = stretches(repository, calibration.read_text(encoding="utf-8"))
        data = {"dataset": samples, "num_calibration_samples": len(samples)}
        data |= {"max_seq_length": STRETCH_TOKENS, "shuffle_calibration_samples": False}
    oneshot(model=model, recipe=steps(scheme, model), **data)
    check_share(model)
    model.save_pretrained(result, save_compressed=True)


def loaded(repository: Path, **options: Any) -> Any:
    """The whole model. What its safetensors lack would be random, and what its class for texts
    leaves out would be missing in the result."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(
        repository, output_loading_info=True, **options
    )
    kind = AutoConfig.from_pretrained(repository).model_type
    if found["missing_keys"]:
        lacks = min(map(str, found["missing_keys"]))
        raise SystemExit(f"Transformers reads no {lacks} from {repository.name}, a model of {kind}")
    if model.config.model_type != kind:
        raise SystemExit(f"{kind} does not only read texts, and the result would lack the rest")
    return model


def check_share(model: Any) -> None:
    """llm-compressor leaves layers that it does not know as they are: the result would be neither
    smaller nor less accurate."""
    from compressed_tensors.utils import match_name

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    done, left = 0, {}
    for name, module in model.named_modules():
        matrices = {n: p.numel() for n, p in module.named_parameters(recurse=False) if p.ndim > 1}
        if getattr(module, "quantization_scheme", None):
            done += sum(matrices.values())
        elif module not in ends and not any(match_name(name, each) for each in IGNORED):
            left |= {f"{name}.{each}": size for each, size in matrices.items()}
    if sum(left.values()) > done:
        largest = max(left, key=left.__getitem__)
        raise SystemExit(f"llm-compressor leaves most weights as they are, such as {largest}")


def steps(scheme: str, model: Any) -> list[Any]:
    """llm-compressor's modifiers for a scheme, in their order."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    usual = {"targets": ["Linear"], "ignore": IGNORED}
    if scheme == "FP8_DYNAMIC":
        return [QuantizationModifier(scheme="FP8_DYNAMIC", **usual)]
    if scheme == "W8A8":
        smooth = SmoothQuantModifier(smoothing_strength=SMOOTHING)
        return [smooth, GPTQModifier(scheme="W8A8", **usual)]
    if scheme == "W4A16":
        return [GPTQModifier(config_groups=grouped("W4A16", model), ignore=IGNORED)]
    unpinned()
    groups = grouped("W4A16_ASYM", model)
    return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=IGNORED)]


def unpinned() -> None:
    """Memory is pinned for copies to a GPU; without one, llm-compressor 0.14 fails at it in AWQ."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_, **__: None


def grouped(preset: str, model: Any) -> dict[str, Any]:
    """A scheme with 4 bits, in the largest groups that fit all layers."""
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.utils import match_named_modules

    layers = match_named_modules(model, ["Linear"], IGNORED)
    columns = {layer.weight.shape[-1] for _, layer in layers}
    size = next((each for each in GROUPS if not any(n % each for n in columns)), None)
    if size is None:
        wide = ", ".join(map(str, sorted(columns)))
        raise SystemExit(f"no group of {GROUPS} columns fits layers of {wide}; use FP8_DYNAMIC")
    found = preset_name_to_scheme(preset, ["Linear"])
    found.weights = found.weights.model_copy(update={"group_size": size})
    return {"group_0": found}


def stretches(repository: Path, text: str) -> Any:
    """Evenly spaced stretches of a text as a data set of tokens."""
    from datasets import Dataset

    tokens, _ = tokens_of(repository, text)
    count = len(tokens) // STRETCH_TOKENS
    if not count:
        raise SystemExit(f"the calibration text has {len(tokens)} tokens, and needs 512 or more")
    used = min(count, MOST_STRETCHES)
    starts = [number * count // used * STRETCH_TOKENS for number in range(used)]
    rows = [tokens[start : start + STRETCH_TOKENS] for start in starts]
    return Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})


def tokens_of(repository: Path, text: str) -> tuple[list[int], int | None]:
    """The text's tokens, and the one that the model's texts begin with; none if there is none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(repository)
    # A long text is meant to be cut: no warning that it is too long for the model.
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return list(tokens), tokenizer.bos_token_id if begins else None


def measure(repository: Path, answer: Path, text: Path | None = None) -> None:
    """Tokens per second for one request, and the perplexity of a text: 0 if it is too short. With a
    GPU also its memory; without, that of the process is the model's."""
    import torch

    gpu = torch.cuda.is_available()
    options = {"dtype": torch.bfloat16, "device_map": "auto"} if gpu else {"dtype": torch.float32}
    model = loaded(repository, **options).eval()
    found: dict[str, Any] = {}
    with torch.no_grad():
        if text:
            tokens, first = tokens_of(repository, text.read_text(encoding="utf-8"))
            found["perplexity"] = perplexity(model, tokens, first)
        found["rate"] = rate(model)
    if gpu:
        each = range(torch.cuda.device_count())
        found["memory_bytes"] = sum(torch.cuda.max_memory_allocated(number) for number in each)
    answer.write_text(json.dumps(found))


def perplexity(model: Any, tokens: list[int], first: int | None) -> float:
    """By windows that do not overlap, as llama-perplexity calculates it."""
    import torch

    half, total, count = WINDOW_TOKENS // 2, 0.0, 0
    tokens = tokens if first is None else [first, *tokens]
    if len(tokens) < 2 * WINDOW_TOKENS:
        return 0.0
    for start in range(0, len(tokens) - WINDOW_TOKENS + 1, WINDOW_TOKENS):
        window = torch.tensor([tokens[start : start + WINDOW_TOKENS]], device=model.device)
        if first is not None:
            window[0, 0] = first
        logits = model(window, use_cache=False).logits[0, half:-1].float()
        expected = window[0, half + 1 :].to(logits.device)
        total += float(torch.nn.functional.cross_entropy(logits, expected, reduction="sum"))
        count += len(expected)
    return math.exp(min(total / count, 700))


def rate(model: Any) -> float:
    """Tokens per second after a first answer, which takes longer."""
    import torch

    tokens = torch.arange(16, 32, device=model.device)[None]
    seconds = 0.0
    for count in (1, GENERATED_TOKENS):
        begun = time.monotonic()
        options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
        seconds = time.monotonic() - begun
    return GENERATED_TOKENS / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("versions", "compress", "measure"))
    parser.add_argument("places", nargs="*")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    # Everything is on the controller, and a GPU calculates the same again.
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if given.task == "versions":
        versions()
        return
    limit_threads(given.threads)
    if given.task == "compress":
        repository, result, scheme, *calibration = given.places
        compress(Path(repository), Path(result), scheme, *map(Path, calibration))
    else:
        measure(*map(Path, given.places))


def limit_threads(threads: int) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


main()
