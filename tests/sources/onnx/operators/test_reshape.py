"""Reshape and Flatten: ONNX Runtime, and what the traced graph says."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.module import OnnxModule
from slimline.sources.onnx.operators.reshape import reshaped
from tests.sources.onnx.models import assert_same, check_traced, in_onnx_runtime, model
from tests.sources.onnx.operators.one_node import check, operators

X = np.random.default_rng(0).standard_normal((3, 4, 6, 2)).astype(np.float32)


def traced(proto: onnx.ModelProto, x: np.ndarray) -> Network:
    """A network of one input and one output, traced without what a whole file goes through."""
    return trace(OnnxModule(build_graph(proto)), {"x": torch.from_numpy(x[:2])}, ("y",))


@pytest.mark.parametrize("target", [[12, 12], [0, -1], [0, 0, 12], [-1], [3, 4, 6, 2], [2, 0, -1, 1]])
def test_reshape(target: list[int]) -> None:
    check("Reshape", X, np.array(target))


def test_zero_is_a_size_with_allowzero() -> None:
    empty, target = np.zeros((0, 3, 4), np.float32), np.array([3, 4, 0])
    check("Reshape", empty, target, allowzero=1)


@pytest.mark.parametrize("axis", [-4, -1, 0, 1, 2, 4])
@pytest.mark.parametrize("opset", [9, 13])
def test_flatten(axis: int, opset: int) -> None:
    if opset >= 11 or axis >= 0:
        check("Flatten", X, opset=opset, axis=axis)


def test_what_is_flat_stays(tmp_path: Path) -> None:
    proto = model([helper.make_node("Flatten", ["x"], ["y"])], {"x": ["n", 6]}, ["y"])
    assert operators(check_traced(proto, tmp_path, X[:, 0, :, 0])) == []


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ([0, -1], ["aten.flatten.using_ints"]),
        ([-1, 48], ["aten.flatten.using_ints"]),
        ([0, 4, -1], ["aten.flatten.using_ints"]),
        ([0, 24, 2], ["aten.flatten.using_ints"]),
        ([0, 2, 2, -1], ["aten.reshape.default"]),
        ([-1, 4, 6, 2], []),
    ],
)
def test_a_traced_reshape_is_one_operator_for_any_batch(target: list[int], expected: list[str], tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "target"], ["y"])
    network = check_traced(model([node], {"x": ["n", 4, 6, 2]}, ["y"], {"target": np.array(target)}), tmp_path, X)
    assert operators(network) == expected


@pytest.mark.parametrize("target", [[-1, 6, 2], [-1, 2], [-1, 12, 2]])
def test_axes_that_join_the_batch(target: list[int], tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "target"], ["z"]), helper.make_node("Reshape", ["z", "back"], ["y"])]
    constants = {"target": np.array(target), "back": np.array([-1, 4, 6, 2])}
    network = check_traced(model(nodes, {"x": ["n", 4, 6, 2]}, ["y"], constants), tmp_path, X)
    assert operators(network)[-1] == "aten.reshape.default"


def test_a_target_computed_from_the_batch(tmp_path: Path) -> None:
    """Shape -> Gather -> Unsqueeze -> Concat -> Reshape, as PyTorch writes x.view(x.size(0), -1)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    network = check_traced(model(nodes, {"x": ["n", 4, 6, 2]}, ["y"], constants), tmp_path, X)
    assert operators(network) == ["aten.flatten.using_ints"]


def test_heads_split_and_join(tmp_path: Path) -> None:
    """The Reshapes of an attention layer: (n, t, c) -> (n, t, heads, c / heads) and back, with sizes from Shape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["nt"], end=2),
        helper.make_node("Concat", ["nt", "heads"], ["split"], axis=0),
        helper.make_node("Reshape", ["x", "split"], ["h"]),
        helper.make_node("Transpose", ["h"], ["ht"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["ht"], ["hb"], perm=[0, 2, 1, 3]),
        helper.make_node("Concat", ["nt", "rest"], ["join"], axis=0),
        helper.make_node("Reshape", ["hb", "join"], ["y"]),
    ]
    constants = {"heads": np.array([4, -1]), "rest": np.array([-1])}
    x = X.reshape(3, 6, 8)
    network = check_traced(model(nodes, {"x": ["n", 6, 8]}, ["y"], constants), tmp_path, x)
    assert operators(network) == [
        "aten.reshape.default", "aten.permute.default", "aten.permute.default", "aten.flatten.using_ints",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "targets",
    [
        [[1, 48]],
        [[1, -1]],
        [[1, -1, 2]],
        [[1, 4, 12]],
        [[4, 12], [1, 4, 12]],
        [[-1, 12], [1, -1, 12]],
        [[24, 2], [1, 4, 6, 2]],
    ],
)
def test_a_file_for_a_batch_of_one_gets_a_free_batch(targets: list[list[int]]) -> None:
    names = ["x", *(f"y{i}" for i in range(len(targets)))]
    nodes = [helper.make_node("Reshape", [a, f"t{a}"], [b]) for a, b in zip(names, names[1:], strict=False)]
    constants = {f"t{name}": np.array(target) for name, target in zip(names, targets, strict=False)}
    proto = model(nodes, {"x": [1, 4, 6, 2]}, names[-1:], constants)
    network = traced(proto, X)
    expected = np.concatenate([in_onnx_runtime(proto, X[i : i + 1])[0] for i in range(3)])
    assert_same([network.run({"x": torch.from_numpy(X)})[0].numpy()], [expected])


def test_a_sequence_before_its_batch_keeps_its_order() -> None:
    """(n, c, t) -> (t, n, c) -> (t * n, c) -> (t, n, c), as the readers of text do that were written for one line."""
    x = X.reshape(3, 8, 6)
    nodes = [
        helper.make_node("Transpose", ["x"], ["s"], perm=[2, 0, 1]),
        helper.make_node("Reshape", ["s", "rows"], ["flat"]),
        helper.make_node("Reshape", ["flat", "back"], ["z"]),
        helper.make_node("Transpose", ["z"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {"rows": np.array([6, 8]), "back": np.array([6, 1, -1])}
    proto = model(nodes, {"x": [1, 8, 6]}, ["y"], constants)
    network = traced(proto, x)
    assert_same([network.run({"x": torch.from_numpy(x)})[0].numpy()], [x.transpose(0, 2, 1)])


def test_an_empty_value_is_reshaped_as_it_says() -> None:
    assert reshaped(torch.zeros(2, 0, 3), [2, 0]).shape == (2, 0)
    assert reshaped(torch.zeros(2, 0), [5, 0]).shape == (5, 0)


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    """A list of sizes is reshaped and flattened on its way into a Reshape."""
    nodes = [
        helper.make_node("Reshape", ["sizes", "two"], ["table"]),
        helper.make_node("Flatten", ["table"], ["row"], axis=0),
        helper.make_node("Squeeze", ["row", "zero"], ["target"]),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"sizes": np.array([0, 2, 2, 12]), "two": np.array([2, -1]), "zero": np.array([0])}
    check_traced(model(nodes, {"x": ["n", 4, 6, 2]}, ["y"], constants), tmp_path, X)
