"""Writing by index against ONNX Runtime and numpy, eager and traced with a free batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from tests.sources.onnx.models import assert_same, check_traced, eager, model
from tests.sources.onnx.operators.one_node import check, node_model

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((3, 5, 4)).astype(np.float32)
REDUCTIONS = ["none", "add", "mul", "max", "min"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("axis", [0, -1])
def test_scatter_elements(axis: int, reduction: str) -> None:
    indices = np.argsort(RANDOM.random((2, 3, 2)), axis) - (2 if axis == 0 else 1)  # no entry twice: none has no order
    updates = RANDOM.standard_normal(indices.shape).astype(np.float32)
    check("ScatterElements", X, indices, updates, axis=axis, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS[1:])
def test_entries_that_are_written_twice_are_combined(reduction: str) -> None:
    indices, updates = np.array([[[1, 1, -1]]]), np.array([[[2.0, 3.0, 4.0]]], np.float32)
    check("ScatterElements", X, indices, updates, axis=2, reduction=reduction)
    check("ScatterND", X[0, 0], np.array([[1], [1], [-1]]), updates[0, 0], reduction=reduction)


def test_scatter_before_it_was_renamed() -> None:
    check("Scatter", X, np.array([[[2, 0]]]), np.array([[[9.0, 8.0]]], np.float32), opset=9, axis=1)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("indices", [[[0, 1, 2], [-1, -1, -1]], [[[0, 4], [1, 1]], [[2, -5], [2, 2]]], [[2], [0]]])
def test_scatter_nd(indices: list[object], reduction: str) -> None:
    places = np.array(indices)
    updates = RANDOM.standard_normal((*places.shape[:-1], *X.shape[places.shape[-1] :])).astype(np.float32)
    check("ScatterND", X, places, updates, reduction=reduction)


def test_the_input_is_left_as_it_was() -> None:
    x, kept = X.copy(), X.copy()
    proto = node_model("ScatterND", x, np.array([[0]]), np.ones((1, 5, 4), np.float32))
    eager(proto, x, np.array([[0]]), np.ones((1, 5, 4), np.float32))
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("reduction", ["none", "max"])
def test_scatter_nd_traced(reduction: str, tmp_path: Path) -> None:
    """Coordinates (sample, row) that are computed outside name samples by their place in the batch: refused."""
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction)
    inputs = {"x": ["n", 5, 4], "i": ["m", 2], "u": ["m", 4]}
    proto = model([node], inputs, ["y"], opset=18, types={"i": onnx.TensorProto.INT64})
    with pytest.raises(SlimlineError, match="axis 0 has to be the batch"):
        check_traced(proto, tmp_path, X, np.array([[0, 4], [0, 1], [0, -5]]), X[:, 0])


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("starts", [None, [1, 0, 2]])
def test_tensor_scatter(mode: str, starts: list[int] | None) -> None:
    """Against the loop of the operator's definition; ONNX Runtime does not have it."""
    starts = [3, 0, 4] if mode == "circular" and starts else starts
    update = RANDOM.standard_normal((3, 3, 4)).astype(np.float32)
    expected = X.copy()
    for sample in range(3):
        for step in range(3):
            row = (starts[sample] if starts else 0) + step
            expected[sample, row % 5 if mode == "circular" else row] = update[sample, step]
    arrays = [X, update] + ([] if starts is None else [np.array(starts)])
    assert_same(eager(node_model("TensorScatter", *arrays, opset=24, mode=mode), *arrays), [expected])


def test_an_unknown_reduction_is_refused() -> None:
    arrays = [X, np.array([[0]]), X[:1]]
    with pytest.raises(SlimlineError, match="combines entries by 'mean', which ONNX does not have"):
        eager(node_model("ScatterND", *arrays, reduction="mean"), *arrays)
