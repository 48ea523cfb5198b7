import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.halves import widened
from tests.sources.onnx import models

node = helper.make_node


def test_a_file_without_16_bit_numbers_is_left_as_it_is() -> None:
    graph = build_graph(models.model([node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"]))
    assert widened(graph) == (graph, [])


@pytest.mark.parametrize(
    ("elem_type", "dtype"), [(onnx.TensorProto.FLOAT16, np.float16), (onnx.TensorProto.BFLOAT16, ml_dtypes.bfloat16)]
)
def test_inputs_constants_casts_and_branches_are_widened_and_integers_are_not(elem_type: int, dtype: type) -> None:
    value = helper.make_tensor_value_info("z", elem_type, None)
    inner = [
        node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.ones(2, dtype))),
        node("Neg", ["k"], ["z"]),
    ]
    branch = helper.make_graph(inner, "branch", [], [value])
    nodes = [
        node("Cast", ["i"], ["a"], to=elem_type), node("Add", ["x", "c"], ["b"]),
        node("If", ["f"], ["y"], then_branch=branch, else_branch=branch),
    ]  # fmt: skip
    types = {"x": elem_type, "i": onnx.TensorProto.INT64, "f": onnx.TensorProto.BOOL}
    constants = {"c": np.ones(2, dtype), "n": np.ones(2, np.int64)}
    proto = models.model(nodes, {"x": [2], "i": [2], "f": []}, ["a", "b", "y"], constants, types=types)
    graph, notes = widened(build_graph(proto))
    assert notes == ["16-bit numbers widened to 32 bits"]
    assert [i.elem_type for i in graph.inputs] == [
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT64,
        onnx.TensorProto.BOOL,
    ]
    assert {name: array.dtype for name, array in graph.constants.items()} == {"c": np.float32, "n": np.int64}
    assert graph.nodes[0].get("to") == onnx.TensorProto.FLOAT
    assert [a.dtype for a in graph.nodes[2].get("then_branch").constants.values()] == [np.float32]
