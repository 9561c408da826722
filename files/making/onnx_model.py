"""Export a model to ONNX, quantize it, and embed or score texts: for `llmhost model make`.

It runs in a Python with torch, transformers, onnx and onnxruntime, not in llmhost's own.

    python3 onnx_model.py versions
    python3 onnx_model.py export REPOSITORY FILE.onnx
    python3 onnx_model.py export-reranker REPOSITORY FILE.onnx
    python3 onnx_model.py quantize FILE.onnx RESULT.onnx
    python3 onnx_model.py embed REPOSITORY TEXTS.json VECTORS.json [FILE.onnx]
    python3 onnx_model.py score REPOSITORY PAIRS.json SCORES.json [FILE.onnx]

Without FILE.onnx, PyTorch runs the safetensors. One text at a time: in a batch, the dynamic
quantization of a text would depend on the others.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPSET = 17
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")


def versions() -> None:
    import onnxruntime.quantization  # noqa: F401 # fails here rather than after the export
    import torch
    import transformers

    known = {"torch": torch.__version__, "transformers": transformers.__version__}
    for name in PACKAGES:
        try:
            known.setdefault(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            known[name] = __import__(name).__version__
    print("version: " + ", ".join(f"{name} {known[name]}" for name in PACKAGES))


def export(repository: Path, target: Path, scores: bool = False) -> None:
    """One graph, from token numbers to a vector for each token, or to the score of each text, for
    any number of tokens."""
    import torch

    model = load_scoring(repository, "eager") if scores else load_embedding(repository, "eager")
    output = "logits" if scores else "last_hidden_state"
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0):
        names.append("token_type_ids")

    class FirstOutput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True)))[0]

    tokens = torch.tensor([[101, 2023, 2003, 102], [101, 3231, 102, 0]])
    inputs = {
        "input_ids": tokens % model.config.vocab_size,
        "attention_mask": (tokens > 0).long(),
        "token_type_ids": torch.zeros_like(tokens),
    }
    axes = {name: {0: "batch", 1: "sequence"} for name in [*names, output]}
    if scores:
        axes[output] = {0: "batch"}
    # The exporter with dynamo needs onnxscript, which Debian does not have.
    torch.onnx.export(
        FirstOutput(),
        tuple(inputs[name] for name in names),
        str(target),
        input_names=names,
        output_names=[output],
        dynamic_axes=axes,
        opset_version=OPSET,
        do_constant_folding=True,
        dynamo=False,
    )


def quantize(source: Path, target: Path) -> None:
    """Weights of 8 bits, without a sign: signed ones saturate on processors without VNNI
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). Each column has
    its own scale: one for all triples the loss of all-MiniLM, at the same size and speed."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The function of this name crashes in Debian's onnx 1.20; its models are below 2 GiB here.
    def infer_shapes(model: str, inferred: str) -> None:
        onnx.save(onnx.shape_inference.infer_shapes(onnx.load(model)), inferred)

    onnx.shape_inference.infer_shapes_path = infer_shapes
    quantize_dynamic(source, target, weight_type=QuantType.QUInt8, per_channel=True)


def embed(
    threads: int, repository: Path, asked: Path, answer: Path, file: Path | None = None
) -> None:
    request = json.loads(asked.read_text())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(repository)
    run = in_onnxruntime(file, threads) if file else in_torch(load_embedding(repository), threads)
    first = pooled_by(repository) == "cls"
    vectors, seconds = [], 0.0
    run(dict(tokenizer("The first one takes longer.", return_tensors="np")))
    for text in request["texts"]:
        tokens = tokenizer(
            text, truncation=True, max_length=request["context_tokens"], return_tensors="np"
        )
        begun = time.monotonic()
        states = run(dict(tokens))[0]
        seconds += time.monotonic() - begun
        vectors.append((states[0] if first else states.mean(axis=0)).tolist())
    answer.write_text(json.dumps({"vectors": vectors, "seconds": seconds}))


def score(
    threads: int, repository: Path, asked: Path, answer: Path, file: Path | None = None
) -> None:
    request = json.loads(asked.read_text())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(repository)
    run = in_onnxruntime(file, threads) if file else in_torch(load_scoring(repository), threads)
    scores, seconds = [], 0.0
    run(dict(tokenizer("The first one", "takes longer.", return_tensors="np")))
    for question, text in request["pairs"]:
        tokens = tokenizer(
            question,
            text,
            truncation=True,
            max_length=request["context_tokens"],
            return_tensors="np",
        )
        begun = time.monotonic()
        scores.append(float(run(dict(tokens))[0][0]))
        seconds += time.monotonic() - begun
    answer.write_text(json.dumps({"scores": scores, "seconds": seconds}))


def load_embedding(repository: Path, attention: str | None = None) -> Any:
    import torch
    from transformers import AutoModel

    options = {"dtype": torch.float32, "attn_implementation": attention}
    return AutoModel.from_pretrained(repository, **options).eval()


def load_scoring(repository: Path, attention: str | None = None) -> Any:
    """With one score. What the safetensors lack would be random, so it is refused."""
    import torch
    from transformers import AutoModelForSequenceClassification

    options = {"dtype": torch.float32, "attn_implementation": attention}
    model, found = AutoModelForSequenceClassification.from_pretrained(
        repository, output_loading_info=True, **options
    )
    if found["missing_keys"]:
        sys.exit(f"the source is no reranking model: it lacks {sorted(found['missing_keys'])[0]}")
    if model.config.num_labels != 1:
        sys.exit(f"the source has {model.config.num_labels} scores, and a reranking model has one")
    return model.eval()


def pooled_by(repository: Path) -> str:
    """`cls` or `mean`, as sentence-transformers' own file has it: as a flag before 5.4."""
    file = repository / "1_Pooling" / "config.json"
    pooling = json.loads(file.read_text()) if file.is_file() else {}
    first = pooling.get("pooling_mode_cls_token") or pooling.get("pooling_mode") == "cls"
    return "cls" if first else "mean"


def in_torch(model: Any, threads: int) -> Callable[[dict[str, Any]], Any]:
    import torch

    if threads:
        torch.set_num_threads(threads)

    def run(tokens: dict[str, Any]) -> Any:
        with torch.no_grad():
            found = model(**{name: torch.from_numpy(each) for name, each in tokens.items()})
        return found[0].numpy()

    return run


def in_onnxruntime(file: Path, threads: int) -> Callable[[dict[str, Any]], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}

    def run(tokens: dict[str, Any]) -> Any:
        return session.run(None, {name: each for name, each in tokens.items() if name in names})[0]

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    tasks = ("versions", "export", "export-reranker", "quantize", "embed", "score")
    parser.add_argument("task", choices=tasks)
    parser.add_argument("places", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.task == "versions":
        versions()
    elif given.task == "export":
        export(*given.places)
    elif given.task == "quantize":
        quantize(*given.places)
    elif given.task == "export-reranker":
        export(*given.places, scores=True)
    elif given.task == "score":
        score(given.threads, *given.places)
    else:
        embed(given.threads, *given.places)


main()
