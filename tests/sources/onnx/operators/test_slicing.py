"""Slices against ONNX Runtime, eager and traced with a free batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from slimline.errors import SlimlineError
from tests.sources.onnx.models import check_traced, eager, model
from tests.sources.onnx.operators.one_node import check, node_model, operators

X = np.random.default_rng(0).standard_normal((3, 7, 6)).astype(np.float32)
SMALLEST, LARGEST = -(2**63), 2**63 - 1


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [5], [1], [1]),
        ([1, 0], [LARGEST, 2**31 - 1], [1, 2], [2, 1]),
        ([-3], [-1], [-2], None),
        ([0, 1], [2, 3], None, None),
        ([-100], [100], [1], [3]),
        ([5], [1], [1], [1]),
        ([-1], [SMALLEST], [1], [-1]),
        ([LARGEST], [SMALLEST], [1], [-1]),
        ([5], [1], [1], [-2]),
        ([-2], [-6], [1], [-1]),
        ([100], [0], [1], [-3]),
        ([2], [5], [1], [-1]),
        ([5], [100], [1], [-1]),
        ([4, -1], [-100, 1], [1, 2], [-2, -1]),
    ],
)
def test_slice(starts: list[int], ends: list[int], axes: list[int] | None, steps: list[int] | None) -> None:
    arrays = [None if value is None else np.array(value) for value in (starts, ends, axes, steps)]
    while arrays[-1] is None:
        arrays.pop()
    check("Slice", X, *arrays)


def test_slice_bounds_were_attributes() -> None:
    check("Slice", X, opset=9, starts=[1, -2], ends=[2**31 - 1, LARGEST], axes=[1, 2])
    check("Slice", X, opset=9, starts=[1], ends=[2])


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (([1], [3], [1], [1]), ["aten.slice.Tensor"]),
        (([0], [LARGEST], [1], [1]), []),
        (([0], [7], [1], [1]), []),
        (([0], [LARGEST], [2], [2]), ["aten.slice.Tensor"]),
        (([-1], [SMALLEST], [1], [-1]), ["aten.flip.default"]),
        (([5], [0], [1], [-2]), ["aten.flip.default", "aten.slice.Tensor"]),
    ],
)
def test_a_traced_slice_is_one_operator(bounds: tuple[list[int], ...], expected: list[str], tmp_path: Path) -> None:
    node = helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["y"])
    constants = {name: np.array(v) for name, v in zip(("starts", "ends", "axes", "steps"), bounds, strict=True)}
    network = check_traced(model([node], {"x": ["n", 7, 6]}, ["y"], constants), tmp_path, X)
    assert operators(network) == expected


def test_a_slice_up_to_the_batch(tmp_path: Path) -> None:
    """The bound is only known when the network runs; here the batch is turned around, which is refused."""
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], end=1),
        helper.make_node("Slice", ["z", "zero", "n", "zero"], ["part"]),
        helper.make_node("Slice", ["part", "last", "smallest", "zero", "last"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "last": np.array([-1]), "smallest": np.array([SMALLEST])}
    z = X[:, ::-1].copy()
    with pytest.raises(SlimlineError, match="axis 0 has to be the batch"):
        check_traced(model(nodes, {"x": ["n", 7, 6], "z": ["n", 7, 6]}, ["y"], constants), tmp_path, X, z)


@pytest.mark.parametrize(
    ("opset", "sizes", "attributes"),
    [
        (11, None, {"axis": 1, "split": [3, 4]}),
        (13, [2, 4, 1], {"axis": -2}),
        (18, None, {"axis": 1, "num_outputs": 3}),
        (18, [7, 0], {"axis": 1}),
        (13, None, {"axis": 2}),
        (11, None, {"axis": 2}),
    ],
)
def test_split(opset: int, sizes: list[int] | None, attributes: dict[str, Any]) -> None:
    count = len(sizes or attributes.get("split", [])) or attributes.get("num_outputs", 2)
    check("Split", X, *([] if sizes is None else [np.array(sizes)]), opset=opset, outputs=count, **attributes)


def test_split_sizes_have_to_fit() -> None:
    sizes = np.array([3, 3])
    with pytest.raises(SlimlineError, match=r"splits an axis of size 7 into \[3, 3\]"):
        eager(node_model("Split", X, sizes, outputs=2, axis=1), X, sizes)


def test_a_traced_split_is_slices(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        helper.make_node("Concat", ["b", "a"], ["y"], axis=1),
    ]
    network = check_traced(model(nodes, {"x": ["n", 7, 6]}, ["y"], {"sizes": np.array([3, 4])}), tmp_path, X)
    assert operators(network) == ["aten.slice.Tensor", "aten.slice.Tensor", "aten.cat.default"]


@pytest.mark.parametrize("axis", [None, 0, -1])
def test_compress(axis: int | None) -> None:
    condition = np.array([False, True, True])
    check("Compress", X, condition, **({} if axis is None else {"axis": axis}))


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, 0, 2, -3])
def test_trilu(upper: int, k: int | None) -> None:
    check("Trilu", X, *([] if k is None else [np.array(k)]), upper=upper)


def test_a_causal_mask_is_a_constant(tmp_path: Path) -> None:
    """ConstantOfShape -> Trilu: x @ tril(1) sums from every entry to the last."""
    nodes = [
        helper.make_node("ConstantOfShape", ["square"], ["ones"], value=helper.make_tensor("v", 1, [1], [1.0])),
        helper.make_node("Trilu", ["ones"], ["mask"], upper=0),
        helper.make_node("Gemm", ["x", "mask"], ["y"]),
    ]
    x = X[:, 0]
    network = check_traced(model(nodes, {"x": ["n", 6]}, ["y"], {"square": np.array([6, 6])}), tmp_path, x)
    (y,) = network.run({"x": torch.from_numpy(x)})
    np.testing.assert_allclose(y.numpy(), np.cumsum(x[:, ::-1], 1)[:, ::-1], rtol=1e-5, atol=1e-5)
