"""A one-operator ONNX file made by onnx itself, whose answers are known without running it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimline.runtimes.runtime import Artifact


def scale_file(folder: Path, values: int = 1) -> Artifact:
    """y = 3 x for x of (batch, 2); a constant of ``values`` floats is carried along to weigh something."""
    factor = numpy_helper.from_array(np.full(1, 3, np.float32), "factor")
    ballast = numpy_helper.from_array(np.ones(values, np.float32), "ballast")
    nodes = [
        helper.make_node("ReduceSum", ["ballast"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "zero"], ["nothing"]),
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [factor, ballast, numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "scale.onnx")
    return Artifact(folder / "scale.onnx", "onnxruntime")
