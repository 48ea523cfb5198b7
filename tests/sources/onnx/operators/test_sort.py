"""Order and search against ONNX Runtime, eager and traced with a free batch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.network import from_onnx
from tests.sources.onnx.models import assert_same, check_traced, eager, model, write
from tests.sources.onnx.operators.one_node import check, operators

X = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "attributes", [{}, {"axis": 1}, {"largest": 0}, {"axis": 0, "largest": 0, "sorted": 1}, {"axis": -2}]
)
def test_top_k(attributes: dict[str, Any]) -> None:
    check("TopK", X, np.array([2]), outputs=2, **attributes)


def test_the_first_of_equal_entries_is_taken() -> None:
    x = np.array([[3, 1, 3, 3, 1], [0, 0, 0, 0, 0]])
    check("TopK", x, np.array([3]), outputs=2)
    check("TopK", x, np.array([2]), outputs=2, largest=0)
    check("TopK", x.astype(np.float32), np.array([3]), outputs=2)


def test_k_was_an_attribute() -> None:
    check("TopK", X, opset=9, outputs=2, k=3, axis=1)


def test_top_k_traced(tmp_path: Path) -> None:
    node = helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=1)
    proto = model([node], {"x": ["n", 5, 4]}, ["y", "i"], {"k": np.array([2])}, types={"i": onnx.TensorProto.INT64})
    assert operators(check_traced(proto, tmp_path, X))[0] == "aten.topk.default"


@pytest.mark.parametrize(
    "x", [np.array([[0, 1, 0], [2, 0, 3]]), np.array([True, False, True]), np.zeros((2, 2), np.float32)]
)
def test_non_zero(x: np.ndarray) -> None:
    check("NonZero", x)


def test_places_that_depend_on_the_data_are_refused(tmp_path: Path) -> None:
    proto = model([helper.make_node("NonZero", ["x"], ["y"])], {"x": ["n", 4]}, ["y"])
    with pytest.raises(SlimlineError, match="depends on the data"):
        from_onnx(write(proto, tmp_path))


def test_a_range_as_older_exporters_wrote_it(tmp_path: Path) -> None:
    """ConstantOfShape -> NonZero -> Transpose -> Squeeze is 0, 1, 2, ...; here it reverses the columns of x."""
    one = helper.make_tensor("v", onnx.TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Shape", ["x"], ["width"], start=1),
        helper.make_node("ConstantOfShape", ["width"], ["ones"], value=one),
        helper.make_node("NonZero", ["ones"], ["row"]),
        helper.make_node("Transpose", ["row"], ["column"], perm=[1, 0]),
        helper.make_node("Squeeze", ["column", "one"], ["range"]),
        helper.make_node("Slice", ["range", "last", "first", "zero", "last"], ["back"]),
        helper.make_node("Gather", ["x", "back"], ["y"], axis=1),
    ]
    constants = {"one": np.array([1]), "zero": np.array([0]), "last": np.array([-1]), "first": np.array([-(2**63)])}
    network = check_traced(model(nodes, {"x": ["n", 4]}, ["y"], constants), tmp_path, X[:, 0])
    assert operators(network)[-1] == "aten.index_select.default"


UNIQUE = [np.array([2.0, 1.0, 1.0, 3.0, 2.0], np.float32), np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]])]


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("x", "axis"), [(UNIQUE[0], None), (UNIQUE[1], None), (UNIQUE[1], 0), (UNIQUE[1], 1)])
def test_unique(x: np.ndarray, axis: int | None, order: int) -> None:
    check("Unique", x, outputs=4, sorted=order, **({} if axis is None else {"axis": axis}))


def test_unique_of_brain_floats() -> None:
    """Numpy has no such type; the values come back in it."""
    cast = [helper.make_node("Cast", ["x"], ["b"], to=onnx.TensorProto.BFLOAT16)]
    back = [helper.make_node("Cast", ["u"], ["y"], to=onnx.TensorProto.FLOAT)]
    proto = model([*cast, helper.make_node("Unique", ["b"], ["u"]), *back], {"x": [5]}, ["y"])
    assert_same(eager(proto, UNIQUE[0]), [np.array([1, 2, 3], np.float32)])
