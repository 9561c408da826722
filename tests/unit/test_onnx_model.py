"""The program that quantizes ONNX files, with the real ONNX Runtime."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

PROGRAM = Path(__file__).parents[2] / "files" / "making" / "onnx_model.py"
ROWS, COLUMNS = 64, 8


def test_small_columns_of_a_matrix_keep_their_precision(tmp_path: Path) -> None:
    """With one scale for all columns, the smallest ones would be 0. The judge is NumPy."""
    chance = np.random.default_rng(1)
    scales = 10.0 ** np.arange(-4, 4)
    matrix = (chance.uniform(-1, 1, (ROWS, COLUMNS)) * scales).astype(np.float32)
    _write(tmp_path / "model.onnx", matrix)
    command = [
        sys.executable,
        "-c",
        PROGRAM.read_text(),
        "quantize",
        "model.onnx",
        "quantized.onnx",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    weights = [
        numpy_helper.to_array(each)
        for each in onnx.load(tmp_path / "quantized.onnx").graph.initializer
    ]
    assert [each.dtype for each in weights if each.shape == matrix.shape] == [np.uint8]
    session = onnxruntime.InferenceSession(str(tmp_path / "quantized.onnx"))
    given = chance.uniform(-1, 1, (16, ROWS)).astype(np.float32)
    (found,) = session.run(None, {"given": given})
    expected = given @ matrix
    error = np.abs(np.asarray(found) - expected).max(axis=0) / np.abs(expected).max(axis=0)
    assert (error < 0.02).all(), error


def _write(file: Path, matrix: "np.ndarray[tuple[int, int], np.dtype[np.float32]]") -> None:
    """A model that multiplies with this matrix."""
    rows, columns = matrix.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["given", "matrix"], ["found"])],
        "product",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["texts", rows])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["texts", columns])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, file)
