"""The operators that tf2onnx lacks, written for a stand-in of its graph and run by ONNX Runtime."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.special
from onnx import TensorProto, helper, numpy_helper

from slimline.sources.tf2onnx_operators import TENSORFLOW, TFLITE, erfc


class Graph:
    """What the functions use of tf2onnx's graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def get_shape(self, name: str) -> list[int]:
        return [7]

    def get_dtype(self, name: str) -> int:
        return TensorProto.FLOAT

    def make_const(self, name: str, array: np.ndarray) -> Any:
        name = f"{name}_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return SimpleNamespace(output=[name])

    def make_node(self, kind: str, inputs: list[str], outputs: list[str] | None = None, **_: Any) -> Any:
        outputs = outputs or [f"value_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, outputs))
        return SimpleNamespace(output=outputs)

    def remove_node(self, name: str) -> None:
        assert name == "replaced"

    def run(self) -> np.ndarray:
        """y for the inputs X."""
        ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [7])] for name in ("x", "y")]
        made = helper.make_graph(self.nodes, "g", *ends, self.constants)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})
        return np.asarray(y)


@pytest.fixture(autouse=True)
def without_tf2onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two functions that are used."""
    names = SimpleNamespace(make_name=lambda name: name, map_onnx_to_numpy_type=lambda _: np.float32)
    monkeypatch.setitem(sys.modules, "tf2onnx", SimpleNamespace(utils=names))


X = np.array([-4, -1.5, -0.5, 0, 0.5, 1.5, 4], np.float32)
PHI = scipy.special.ndtr(X)
TANH = 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3)))


@pytest.mark.parametrize(
    ("kind", "attributes", "wanted"),
    [
        ("Erfc", {}, scipy.special.erfc(X)),
        ("TFL_GELU", {}, X * PHI),
        ("TFL_GELU", {"approximate": True}, X * TANH),
        ("TFL_RELU_0_TO_1", {}, np.clip(X, 0, 1)),
        ("TFL_RELU_N1_TO_1", {}, np.clip(X, -1, 1)),
    ],
)
def test_an_operator_computes_its_definition(kind: str, attributes: dict[str, Any], wanted: np.ndarray) -> None:
    graph = Graph()
    made_by = [SimpleNamespace(type="Placeholder")]
    node = SimpleNamespace(name="replaced", input=["x"], output=["y"], inputs=made_by, get_attr_value=attributes.get)
    {**TENSORFLOW, **TFLITE}[kind](graph, node)
    np.testing.assert_allclose(graph.run(), wanted, rtol=1e-5, atol=1e-6)


def test_the_minus_in_tensorflows_gelu_is_taken_out() -> None:
    """erfc(-x c) = 1 + erf(x c), which the importer knows as a part of gelu."""
    graph = Graph()
    c = graph.make_const("c", np.float32(0.7)).output[0]
    graph.make_node("Neg", ["x"], ["minus"])
    graph.make_node("Mul", ["minus", c], ["inner"])
    negative = SimpleNamespace(type="Neg", input=["x"])
    product = SimpleNamespace(type="Mul", input=["minus", c], inputs=[negative, None])
    erfc(graph, SimpleNamespace(name="replaced", input=["inner"], output=["y"], inputs=[product]))
    np.testing.assert_allclose(graph.run(), scipy.special.erfc(-0.7 * X), rtol=1e-5, atol=1e-6)
    assert [node.op_type for node in graph.nodes[2:]] == ["Mul", "Erf", "Add"]
