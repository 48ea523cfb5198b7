"""Reductions against ONNX Runtime, and numpy where it lacks the type."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.sources.onnx.models import check_eager, check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check, operators

RNG = np.random.default_rng(0)
X = RNG.random((3, 4, 5, 2)).astype("f4") + 0.1
KINDS = [
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp",
]  # fmt: skip


@pytest.mark.parametrize("axes", [None, [1], [2, 3], [-1, 0]])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_axes_are_an_input_and_were_an_attribute(kind: str, keepdims: int, axes: list[int] | None) -> None:
    check(kind, X, None if axes is None else np.array(axes), opset=18, keepdims=keepdims)
    if axes is None or axes[-1] == 3 or axes == [1]:  # axes counted from the front before opset 11
        check(kind, X, opset=7, keepdims=keepdims, **({} if axes is None else {"axes": axes}))


@pytest.mark.parametrize("kind", KINDS)
def test_no_axes_and_no_operation(kind: str) -> None:
    forms = {"ReduceL1": np.abs, "ReduceL2": np.abs, "ReduceSumSquare": np.square, "ReduceLogSum": np.log}
    x, axes = X if kind == "ReduceLogSum" else -X, np.array([], "i8")
    for inputs in ([x], [x, axes]):
        (found,) = eager(one(kind, inputs, 18, noop_with_empty_axes=1), *inputs)
        np.testing.assert_allclose(found, forms.get(kind, lambda x: x)(x), rtol=1e-6)
        (found,) = eager(one(kind, [X, *inputs[1:]], 18, keepdims=0), X, *inputs[1:])
        assert found.shape == ()


@pytest.mark.parametrize("dtype", ["i4", "i8"])
@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare"])
def test_integers(kind: str, dtype: str) -> None:
    x = RNG.integers(-4, 9, (2, 3, 2)).astype(dtype)
    (found,) = eager(one(kind, [x, np.array([1])], 18), x, np.array([1]))
    forms: dict[str, Any] = {
        "ReduceMean": lambda x: np.trunc(x.mean(1, keepdims=True)), "ReduceSum": lambda x: x.sum(1, keepdims=True),
        "ReduceMax": lambda x: x.max(1, keepdims=True), "ReduceMin": lambda x: x.min(1, keepdims=True),
        "ReduceProd": lambda x: x.prod(1, keepdims=True), "ReduceSumSquare": lambda x: (x * x).sum(1, keepdims=True),
    }  # fmt: skip
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, forms[kind](x))


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceL1"])
@pytest.mark.parametrize("dtype", ["u4", "u8"])
def test_unsigned_integers(kind: str, dtype: str) -> None:
    top = np.iinfo(dtype).max
    x = np.array([[3, top, 1], [top // 2, 7, top // 2 + 1]], dtype)
    (found,) = eager(one(kind, [x], 18, keepdims=0), x)
    function = {"ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod}.get(kind, np.sum)
    assert found.dtype == x.dtype
    assert found == function(x, dtype=x.dtype) if function in (np.sum, np.prod) else found == function(x)


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMin"])
def test_truth_values_and_bytes(kind: str) -> None:
    x = np.array([[True, False], [True, True], [False, False]])
    (found,) = eager(one(kind, [x, np.array([1])], 20, keepdims=0), x, np.array([1]))
    assert found.tolist() == ([True, True, False] if kind == "ReduceMax" else [False, True, False])
    check(kind, np.array([[-3, 5], [7, 100]], "i1"), np.array([1]), opset=20)


EMPTY = {
    "ReduceSum": 0.0, "ReduceL1": 0.0, "ReduceL2": 0.0, "ReduceSumSquare": 0.0, "ReduceProd": 1.0,
    "ReduceMax": -np.inf, "ReduceMin": np.inf, "ReduceLogSum": -np.inf, "ReduceLogSumExp": -np.inf,
}  # fmt: skip


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_empty_sets(kind: str, keepdims: int) -> None:
    x, axes = np.zeros((2, 0, 3), "f4"), np.array([1])
    (found,) = eager(one(kind, [x, axes], 20, keepdims=keepdims), x, axes)
    np.testing.assert_array_equal(found, np.full((2, 1, 3) if keepdims else (2, 3), EMPTY[kind], "f4"))


def test_the_largest_of_no_integers_is_the_smallest_there_is() -> None:
    for dtype, largest, smallest in (("i4", -(2**31), 2**31 - 1), ("u1", 0, 255), ("?", False, True)):
        x, axes = np.zeros((0, 1), dtype), np.array([0])
        assert eager(one("ReduceMax", [x, axes], 20), x, axes)[0].tolist() == [[largest]]
        assert eager(one("ReduceMin", [x, axes], 20), x, axes)[0].tolist() == [[smallest]]


@pytest.mark.parametrize(
    ("kind", "operator"),
    [("ReduceMean", "mean.dim"), ("ReduceSum", "sum.dim_IntList"), ("ReduceMax", "amax.default"),
     ("ReduceL2", "linalg_vector_norm.default"), ("ReduceLogSumExp", "logsumexp.default")],
)  # fmt: skip
def test_each_becomes_one_operator(kind: str, operator: str, tmp_path: Path) -> None:
    proto = model(
        [helper.make_node(kind, ["x", "a"], ["y"])], {"x": ["N", 4, 5, 2]}, ["y"], {"a": np.array([2, 3])}, 18
    )
    assert operators(check_traced(proto, tmp_path, X)) == [f"aten.{operator}"]


def test_products_and_positions_with_a_free_batch(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceProd", ["x", "a"], ["p"]),
        helper.make_node("CumSum", ["x", "one"], ["c"], exclusive=1, reverse=1),
        helper.make_node("Add", ["p", "c"], ["y"]),
    ]
    constants = {"a": np.array([1, 2]), "one": np.array(1)}
    check_traced(model(nodes, {"x": ["N", 4, 5, 2]}, ["y"], constants, 18), tmp_path, X)


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_positions_of_the_first_and_the_last_extreme(kind: str, last: int, keepdims: int, axis: int) -> None:
    x = RNG.integers(0, 3, (4, 5, 6)).astype("f4")
    check(kind, x, axis=axis, keepdims=keepdims, select_last_index=last)


def test_the_position_of_an_extreme_of_unsigned_numbers() -> None:
    x = np.array([1, 2**64 - 1, 2**63 - 1], "u8")
    assert eager(one("ArgMax", [x]), x)[0].tolist() == [1]
    assert eager(one("ArgMin", [x]), x)[0].tolist() == [0]


def test_the_position_of_an_extreme_in_old_files() -> None:
    check("ArgMax", X, opset=7, axis=2)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
def test_running_sums(dtype: str, axis: int, reverse: int, exclusive: int) -> None:
    x = (X * 10).astype(dtype)
    nodes = [helper.make_node("CumSum", ["x", "a"], ["y"], reverse=reverse, exclusive=exclusive)]
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    check_eager(model(nodes, {"x": x.shape}, ["y"], {"a": np.array(axis)}, types={"x": kind, "y": kind}), x)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_products(reverse: int, exclusive: int) -> None:
    x, axis = np.array([[2, 3, 5], [7, 1, 4]], "i4"), np.array([1])
    (found,) = eager(one("CumProd", [x, axis], 26, reverse=reverse, exclusive=exclusive), x, axis)
    expected = {
        (0, 0): [[2, 6, 30], [7, 7, 28]], (0, 1): [[1, 2, 6], [1, 7, 7]],
        (1, 0): [[30, 15, 5], [28, 4, 4]], (1, 1): [[15, 5, 1], [4, 4, 1]],
    }  # fmt: skip
    assert (found.dtype, found.tolist()) == (x.dtype, expected[reverse, exclusive])
