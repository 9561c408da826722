"""A site's own application: embeds and reranks texts with ONNX Runtime, without a network.

Prints JSON: the similarity of the question to each document, and the reranker's scores.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from huggingface_hub import hf_hub_download, snapshot_download
from transformers import AutoTokenizer


def run(repository: str, first: list[str], second: list[str] | None = None) -> tuple[Any, Any]:
    """The output of a model, and the mask of its input."""
    remote = os.environ.get("HF_ALLOW_REMOTE_MODELS") != "false"
    tokenizer = AutoTokenizer.from_pretrained(repository, local_files_only=not remote)
    name = "onnx/model_quantized.onnx"
    weights = hf_hub_download(repository, name, local_files_only=not remote)
    assert Path(snapshot_download(repository), name).samefile(weights)
    read = tokenizer(first, second, padding=True, truncation=True, return_tensors="np")
    inputs = {key: read[key].astype(np.int64) for key in read}
    session = onnxruntime.InferenceSession(weights)
    return session.run(None, inputs)[0], inputs["attention_mask"][..., None]


def embed(texts: list[str]) -> Any:
    """Normalized means of the words' vectors."""
    hidden, mask = run(os.environ["HF_EMBEDDING_MODEL_ID"], texts)
    means = (hidden * mask).sum(1) / mask.sum(1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def main(question: str, *documents: str) -> None:
    asked, *found = embed([question, *documents])
    asking = [question] * len(documents)
    scores, _ = run(os.environ["HF_RERANKER_MODEL_ID"], asking, [*documents])
    similarities = [float(asked @ vector) for vector in found]
    print(json.dumps({"similarities": similarities, "scores": scores[:, 0].tolist()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
