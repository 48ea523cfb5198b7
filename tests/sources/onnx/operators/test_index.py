"""Reading by index against ONNX Runtime, eager and traced with a free batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from tests.sources.onnx.models import check_traced, eager, model
from tests.sources.onnx.operators.one_node import check, operators

X = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
INT64 = onnx.TensorProto.INT64


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("indices", [1, [0, 2, -1], [[0, 1], [-2, 0]]])
def test_gather(axis: int, indices: object) -> None:
    check("Gather", X, np.array(indices), axis=axis)
    check("Gather", X, np.array(indices, np.int32), axis=axis)


def test_gather_from_one_axis_by_a_table() -> None:
    check("Gather", X[0, 0], np.array([[0, 1], [-2, 3]]))


@pytest.mark.parametrize(
    ("indices", "axis", "expected"),
    [
        (np.array(2), 1, ["aten.select.int"]),
        (np.array(-1), 2, ["aten.select.int"]),
        (np.array([1, 2, 3]), 1, ["aten.slice.Tensor"]),
        (np.array([3, 0]), 1, ["aten.index_select.default"]),
        (np.array([[3, 0], [1, 1]]), 2, ["aten.index.Tensor"]),
    ],
)
def test_a_traced_gather_is_one_operator(indices: np.ndarray, axis: int, expected: list[str], tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)
    network = check_traced(model([node], {"x": ["n", 5, 4]}, ["y"], {"i": indices}), tmp_path, X)
    assert operators(network) == expected


def test_tokens_are_embedded(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)
    tokens = np.array([[0, 6, 3], [1, 1, 2], [5, 4, 0]])
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    proto = model([node], {"x": ["n", 3]}, ["y"], {"table": table}, types={"x": INT64})
    assert operators(check_traced(proto, tmp_path, tokens)) == ["aten.embedding.default"]


def test_positions_are_embedded(tmp_path: Path) -> None:
    """Tokens plus positions: the table of positions is read by a constant and by a range of a known length."""
    table = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Shape", ["x"], ["length"], start=1, end=2),
        helper.make_node("Squeeze", ["length", "zero"], ["stop"]),
        helper.make_node("Range", ["start", "stop", "step"], ["positions"]),
        helper.make_node("Unsqueeze", ["positions", "zero"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["embedded"]),
        helper.make_node("Gather", ["table", "ids"], ["other"]),
        helper.make_node("Concat", ["embedded", "other"], ["both"], axis=2),
        helper.make_node("Shape", ["x"], ["n"], end=1),
        helper.make_node("Concat", ["n", "one", "one"], ["shape"], axis=0),
        helper.make_node("Tile", ["both", "shape"], ["tiled"]),
        helper.make_node("Concat", ["x", "tiled"], ["y"], axis=2),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "start": np.array(0), "step": np.array(1), "table": table,
        "ids": np.array([[4, 4, 6, 0, 1]]),
    }  # fmt: skip
    network = check_traced(model(nodes, {"x": ["n", 5, 4]}, ["y"], constants), tmp_path, X)
    assert operators(network).count("aten.embedding.default") == 2
    assert [tuple(p.shape) for p in network.module.parameters()] == [(7, 4)]


def test_computed_indices_may_count_from_the_end(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "x"], ["y"], axis=1)
    table = X[:2]
    proto = model(
        [node, helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0, 2])],
        {"x": ["n"]}, ["z"], {"table": table}, types={"x": INT64},
    )  # fmt: skip
    check_traced(proto, tmp_path, np.array([-1, 0, -5]))


def test_an_index_beyond_the_end_is_refused() -> None:
    index = np.array([5, 0])
    proto = model([helper.make_node("Gather", ["x", "i"], ["y"], axis=1)], {"x": [3, 5, 4]}, ["y"], {"i": index})
    with pytest.raises(SlimlineError, match="reads entry 5 of axis 1, which has 5"):
        eager(proto, X)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis: int) -> None:
    indices = np.random.default_rng(1).integers(-3, 3, (2, 5, 3))
    check("GatherElements", X, indices, axis=axis)


@pytest.mark.parametrize(
    ("indices", "batch_dims"),
    [
        ([[0, 1, 2], [-1, -1, -1]], 0),
        ([[[0, 4]], [[2, -5]]], 0),
        ([[4, 3], [0, -4], [1, 1]], 1),
        ([[[2], [0]], [[1], [-1]], [[4], [4]]], 1),
        (np.array([[[3], [0], [1], [2], [-1]]] * 3), 2),
    ],
)
def test_gather_nd(indices: object, batch_dims: int) -> None:
    check("GatherND", X, np.array(indices), batch_dims=batch_dims)


def test_gather_nd_for_every_sample(tmp_path: Path) -> None:
    """One chosen row of every sample, as the reading of a last token is exported."""
    node = helper.make_node("GatherND", ["x", "i"], ["y"], batch_dims=1)
    proto = model([node], {"x": ["n", 5, 4], "i": ["n", 1]}, ["y"], types={"i": INT64})
    check_traced(proto, tmp_path, X, np.array([[4], [0], [-2]]))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int) -> None:
    check("OneHot", np.array([[0, 2, -1], [9, -4, 1]]), np.array(4), np.array([-1.0, 2.0], np.float32), axis=axis)


def test_one_hot_of_floats_and_depth_in_a_list() -> None:
    check(
        "OneHot", np.array([0.0, 3.0], np.float32), np.array([4.0], np.float32), np.array([0, 1], np.float32), opset=9
    )


def test_one_hot_traced(tmp_path: Path) -> None:
    node = helper.make_node("OneHot", ["x", "depth", "values"], ["y"])
    constants = {"depth": np.array(4), "values": np.array([0.5, 2.0], np.float32)}
    proto = model([node], {"x": ["n", 2]}, ["y"], constants, types={"x": INT64})
    check_traced(proto, tmp_path, np.array([[0, 3], [-1, 7], [2, 2]]))


@pytest.mark.parametrize(("time", "batch", "lengths"), [(0, 1, [3, 1, 0, 2, 3]), (1, 0, [5, 1, 4])])
def test_reverse_sequence(time: int, batch: int, lengths: list[int]) -> None:
    check("ReverseSequence", X, np.array(lengths), time_axis=time, batch_axis=batch)


def test_reverse_sequence_traced(tmp_path: Path) -> None:
    node = helper.make_node("ReverseSequence", ["x", "lengths"], ["y"], time_axis=1, batch_axis=0)
    proto = model([node], {"x": ["n", 5, 4], "lengths": ["n"]}, ["y"], types={"lengths": INT64})
    check_traced(proto, tmp_path, X, np.array([5, 2, 0]))
