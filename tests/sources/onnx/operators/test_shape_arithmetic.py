"""Numbers known while tracing: against numpy, and in graphs that compute shapes with a free batch."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators import KNOWN_TABLE
from slimline.sources.onnx.operators.table import call
from slimline.sources.onnx.values import Known, to_tensor
from tests.sources.onnx.models import check_traced, model
from tests.sources.onnx.operators.one_node import operators

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 6, 5)).astype("f4")
NODE = helper.make_node


def constant(array: Any) -> Known:
    array = np.asarray(array)
    return Known(array, to_tensor(array).dtype)


def run(kind: str, *arrays: Any, **attributes: Any) -> Known:
    values = [None if array is None else constant(array) for array in arrays]
    (result,) = call(OnnxNode(kind, "", (), ("y",), attributes, 18), values, lambda *_: [])
    assert isinstance(result, Known), f"{kind} became a tensor"
    return result


A, B = np.array([[-7, 3, 8]]), np.array([[2], [-5]])
BINARY: dict[str, Any] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum, "Sum": np.add,
    "Div": lambda a, b: np.trunc(a / b), "Mod": np.mod, "Equal": np.equal, "Less": np.less, "Greater": np.greater,
    "LessOrEqual": np.less_equal, "GreaterOrEqual": np.greater_equal,
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["i8", "i4", "f4"])
@pytest.mark.parametrize("kind", BINARY)
def test_two_inputs(kind: str, dtype: str) -> None:
    a, b = A.astype(dtype), B.astype(dtype)
    found = run(kind, a, b)
    expected = a / b if kind == "Div" and dtype == "f4" else BINARY[kind](a, b)
    np.testing.assert_array_equal(found.array, expected)
    assert found.dtype == (torch.bool if expected.dtype == bool else to_tensor(a).dtype)
    assert found.array.dtype == (bool if expected.dtype == bool else a.dtype)


@pytest.mark.parametrize("kind", ["And", "Or", "Xor"])
def test_connectives(kind: str) -> None:
    a, b = np.array([[True], [False]]), np.array([True, False])
    function = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}[kind]
    assert run(kind, a, b).array.tolist() == function(a, b).tolist()
    assert run("Not", a).array.tolist() == [[False], [True]]


def test_one_input() -> None:
    x = np.array([-1.5, 0.25, 4.0], "f4")
    expected = {"Neg": -x, "Abs": abs(x), "Floor": np.floor(x), "Ceil": np.ceil(x), "Reciprocal": 1 / x, "Identity": x}
    for kind, values in expected.items():
        found = run(kind, x)
        np.testing.assert_array_equal(found.array, values)
        assert (found.dtype, found.array.dtype) == (torch.float32, np.float32)
    assert run("Sqrt", abs(x)).array.tolist() == np.sqrt(abs(x)).tolist()
    assert run("Mod", x, np.float32(1), fmod=1).array.tolist() == [-0.5, 0.25, 0.0]


def test_powers_choices_and_conversions() -> None:
    assert run("Pow", np.array([2, 3]), np.array(2)).array.tolist() == [4, 9]
    assert run("Pow", np.array([4, 9]), np.array(0.5, "f4")).array.tolist() == [2, 3]
    assert run("Where", np.array([True, False]), np.array([1, 2]), np.array(7)).array.tolist() == [1, 7]
    found = run("Cast", np.array([-1.9, 2.9], "f4"), to=onnx.TensorProto.INT64)
    assert (found.dtype, found.array.tolist()) == (torch.int64, [-1, 2])
    found = run("CastLike", np.array([0, 2]), np.zeros(1, "f2"))
    assert (found.dtype, found.array.tolist()) == (torch.float16, [0.0, 2.0])
    assert run("Cast", np.array([0, 2]), to=onnx.TensorProto.BOOL).array.tolist() == [False, True]


def test_a_weight_that_is_not_converted_stays_the_weight() -> None:
    weight = torch.zeros(3)
    value = Known(np.zeros(3, "f4"), torch.float32, weight)
    found = KNOWN_TABLE["Cast"](OnnxNode("Cast", "", (), ("y",), {"to": 1}), value)
    assert isinstance(found, Known)
    assert found.tensor() is weight


@pytest.mark.parametrize("axes", [None, [0], [-1], [0, 1]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(axes: list[int] | None, keepdims: int) -> None:
    x = np.array([[2, 3, 4], [5, 6, 7]], "i4")
    along = None if axes is None else tuple(axes)
    functions = {"ReduceSum": np.sum, "ReduceProd": np.prod, "ReduceMax": np.max, "ReduceMin": np.min}
    for kind, function in functions.items():
        found = run(kind, x, None if axes is None else np.array(axes), keepdims=keepdims)
        expected: Any = functools.partial(function, axis=along, keepdims=bool(keepdims))(x)
        assert found.array.tolist() == expected.tolist()
        assert found.array.dtype == x.dtype


def test_division_by_zero_is_no_crash() -> None:
    assert run("Div", np.array([1.0]), np.array([0.0])).array.tolist() == [np.inf]
    assert run("Div", np.array([1]), np.array([0])).array.shape == (1,)


def shaped(nodes: list[onnx.NodeProto], constants: dict[str, Any], tmp_path: Path) -> Any:
    """A graph that reshapes x to the shape it computes from x's own."""
    proto = model(
        [NODE("Shape", ["x"], ["s"]), *nodes, NODE("Reshape", ["x", "shape"], ["y"])],
        {"x": ["N", 4, 6, 5]}, ["y"], {name: np.asarray(value) for name, value in constants.items()},
    )  # fmt: skip
    network = check_traced(proto, tmp_path, X)
    assert not network.module.state_dict(), "a shape became a constant of the network"
    return operators(network)


def test_the_batch_passes_through_arithmetic(tmp_path: Path) -> None:
    nodes = [
        NODE("Gather", ["s", "first"], ["n"], axis=0),
        NODE("Mul", ["n", "four"], ["m"]),
        NODE("Div", ["m", "four"], ["back"]),
        NODE("Max", ["back", "one"], ["least"]),
        NODE("Unsqueeze", ["least", "axis"], ["u"]),
        NODE("Concat", ["u", "rest"], ["shape"], axis=0),
    ]
    constants = {"first": 0, "four": 4, "one": 1, "axis": [0], "rest": [-1]}
    names = shaped(nodes, constants, tmp_path)
    assert not {name for name in names if name.startswith("aten.")} & {"aten.mul.Tensor", "aten.cat.default"}


def test_products_and_halves_of_spatial_sizes(tmp_path: Path) -> None:
    nodes = [
        NODE("Cast", ["s"], ["f"], to=onnx.TensorProto.FLOAT),
        NODE("Mul", ["f", "scale"], ["g"]),
        NODE("Floor", ["g"], ["h"]),
        NODE("Cast", ["h"], ["i"], to=onnx.TensorProto.INT64),
        NODE("Slice", ["i", "one", "four"], ["sizes"]),
        NODE("ReduceProd", ["sizes"], ["area"], keepdims=1),
        NODE("Concat", ["minus", "area"], ["shape"], axis=0),
    ]
    constants = {"scale": np.array([1, 2, 0.5, 1.1], "f4"), "one": [1], "four": [4], "minus": [-1]}
    names = shaped(nodes, constants, tmp_path)
    assert len([name for name in names if "sym_size" not in name]) == 1, "sizes are computed while tracing"


def test_a_comparison_with_the_batch_that_has_one_answer(tmp_path: Path) -> None:
    nodes = [
        NODE("Equal", ["s", "minus"], ["free"]),
        NODE("Where", ["free", "ones", "s"], ["shape"]),
    ]
    shaped(nodes, {"minus": [-1] * 4, "ones": [1] * 4}, tmp_path)
    nodes = [
        NODE("Greater", ["s", "zero"], ["some"]),
        NODE("Where", ["some", "s", "ones"], ["shape"]),
    ]
    shaped(nodes, {"zero": [0] * 4, "ones": [1] * 4}, tmp_path)


def test_a_sum_over_the_batch_and_a_size(tmp_path: Path) -> None:
    nodes = [
        NODE("Sub", ["s", "less"], ["t"]),
        NODE("ReduceProd", ["t"], ["all"], keepdims=1),
        NODE("Concat", ["all", "rest"], ["shape"], axis=0),
    ]
    shaped(nodes, {"less": [0, 3, 5, 4], "rest": [-1]}, tmp_path)
