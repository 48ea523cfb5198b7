"""Shapes against ONNX Runtime, eager and traced with a free batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.network import from_onnx
from slimline.sources.onnx.operators.shape import refuse_absurd
from tests.sources.onnx.models import assert_same, check_traced, eager, model, write
from tests.sources.onnx.operators.one_node import check, node_model, operators

X = np.random.default_rng(0).standard_normal((3, 4, 6, 8)).astype(np.float32)
BLOCKS = ["aten.reshape.default", "aten.permute.default", "aten.reshape.default"]
ONES = np.random.default_rng(1).standard_normal((3, 1, 6, 1)).astype(np.float32)


@pytest.mark.parametrize("bounds", [{}, {"start": 1}, {"start": -3, "end": -1}, {"start": 2, "end": 9}, {"start": 4}])
def test_shape(bounds: dict[str, int]) -> None:
    check("Shape", X, **bounds)


def test_size() -> None:
    check("Size", X)


@pytest.mark.parametrize("axes", [[1], [1, 3], [-1]])
def test_squeeze_takes_axes_as_attribute_and_as_input(axes: list[int]) -> None:
    check("Squeeze", ONES, opset=11, axes=axes)
    check("Squeeze", ONES, np.array(axes))


def test_squeeze_without_axes() -> None:
    check("Squeeze", ONES)


@pytest.mark.parametrize("axes", [[0], [2, 0], [-1, 1]])
def test_unsqueeze_takes_axes_as_attribute_and_as_input(axes: list[int]) -> None:
    check("Unsqueeze", X, opset=11, axes=axes)
    check("Unsqueeze", X, np.array(axes))


def test_an_axis_that_is_not_one_cannot_go() -> None:
    with pytest.raises(SlimlineError, match="removes axis 1, which has the size 4 and not 1"):
        eager(node_model("Squeeze", X, np.array([1])), X, np.array([1]))


def test_the_batch_cannot_go(tmp_path: Path) -> None:
    node = helper.make_node("Squeeze", ["x", "axes"], ["y"])
    path = write(model([node], {"x": ["n", 4]}, ["y"], {"axes": np.array([0])}), tmp_path)
    with pytest.raises(SlimlineError, match="removes axis 0, which holds the samples of a batch"):
        from_onnx(path)


@pytest.mark.parametrize("perm", [None, [0, 2, 3, 1], [3, 1, 0, 2], [0, 1, 2, 3]])
def test_transpose(perm: list[int] | None) -> None:
    check("Transpose", X, **({} if perm is None else {"perm": perm}))


def test_concat() -> None:
    check("Concat", X, X[:, :2], X[:, :1], axis=1)
    check("Concat", X, axis=-1)


@pytest.mark.parametrize("shape", [[3, 5, 6, 7], [2, 3, 1, 6, 1], [1], [4, 1, 8]])
def test_expand_goes_both_ways(shape: list[int]) -> None:
    check("Expand", ONES, np.array(shape))


def test_tile() -> None:
    check("Tile", X, np.array([1, 2, 1, 3]))
    check("Tile", ONES, np.array([1, 5, 1, 2]))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    check("DepthToSpace", X, blocksize=2, mode=mode)


def test_depth_to_space_was_dcr_before_it_had_a_mode() -> None:
    check("DepthToSpace", X, opset=9, blocksize=2)


def test_space_to_depth() -> None:
    check("SpaceToDepth", X, blocksize=2)


def test_space_to_depth_undoes_depth_to_space() -> None:
    """In both modes; ONNX has one for SpaceToDepth since opset 28, which ONNX Runtime does not run yet."""
    for mode in ("DCR", "CRD"):
        (wide,) = eager(node_model("DepthToSpace", X, blocksize=2, mode=mode), X)
        assert_same(eager(node_model("SpaceToDepth", wide, opset=28, blocksize=2, mode=mode), wide), [X])


@pytest.mark.parametrize(
    ("kind", "constants", "attributes", "expected"),
    [
        ("Transpose", [], {"perm": [0, 2, 3, 1]}, ["aten.permute.default"]),
        ("Transpose", [], {"perm": [0, 1, 2, 3]}, []),
        ("Unsqueeze", [[1, -1]], {}, ["aten.unsqueeze.default"] * 2),
        ("Tile", [[1, 2, 1, 1]], {}, ["aten.repeat.default"]),
        ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}, ["aten.pixel_shuffle.default"]),
        (
            "DepthToSpace",
            [],
            {"blocksize": 2},
            BLOCKS,
        ),
        (
            "SpaceToDepth",
            [],
            {"blocksize": 2},
            BLOCKS,
        ),
    ],
)
def test_traced(
    kind: str, constants: list[list[int]], attributes: dict[str, object], expected: list[str], tmp_path: Path
) -> None:
    names = [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(kind, ["x", *names], ["y"], **attributes)
    arrays = {name: np.array(value) for name, value in zip(names, constants, strict=True)}
    network = check_traced(model([node], {"x": ["n", 4, 6, 8]}, ["y"], arrays), tmp_path, X)
    assert operators(network) == expected


def test_a_token_for_every_sample(tmp_path: Path) -> None:
    """A class token as vision transformers have it: Expand to (n, 1, c) by a computed shape, and Concat."""
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], end=1),
        helper.make_node("Concat", ["n", "rest"], ["shape"], axis=0),
        helper.make_node("Expand", ["token", "shape"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x"], ["y"], axis=1),
    ]
    token = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    constants = {"rest": np.array([1, 8]), "token": token}
    x = X[:, 0]
    network = check_traced(model(nodes, {"x": ["n", 6, 8]}, ["y"], constants), tmp_path, x)
    assert operators(network) == ["aten.sym_size.int", "aten.expand.default", "aten.cat.default"]
    assert [tuple(p.shape) for p in network.module.parameters()] == [(1, 1, 8)]


def test_expand_to_the_shape_of_another_value(tmp_path: Path) -> None:
    nodes = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Expand", ["z", "shape"], ["y"])]
    x, z = X, ONES
    check_traced(model(nodes, {"x": ["n", 4, 6, 8], "z": ["n", 1, 6, 1]}, ["y"]), tmp_path, x, z)


def test_sizes_travel_through_every_operator(tmp_path: Path) -> None:
    """The shape of x goes through all that move numbers before it is a shape again."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Unsqueeze", ["shape", "zero"], ["row"]),
        helper.make_node("Tile", ["row", "twice"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"]),
        helper.make_node("Split", ["columns"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Squeeze", ["left", "one"], ["flat"]),
        helper.make_node("Expand", ["flat", "wide"], ["again"]),
        helper.make_node("Slice", ["again", "zero", "one", "zero"], ["first"]),
        helper.make_node("Squeeze", ["first", "zero"], ["sizes"]),
        helper.make_node("Shape", ["sizes"], ["rank"]),
        helper.make_node("Size", ["rank"], ["count"]),
        helper.make_node("Unsqueeze", ["count", "zero"], ["count1"]),
        helper.make_node("Concat", ["sizes", "count1"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "twice": np.array([2, 1]), "wide": np.array([3, 4])
    }  # fmt: skip
    network = check_traced(model(nodes, {"x": ["n", 4, 6, 8]}, ["y"], constants), tmp_path, X)
    assert operators(network) == ["aten.reshape.default"]


@pytest.mark.parametrize(("kind", "amount"), [("Expand", [2**20, 2**20]), ("Tile", [2**20, 2**20])])
def test_absurd_sizes_are_refused(kind: str, amount: list[int]) -> None:
    x = np.zeros((1, 1), np.float32)
    with pytest.raises(SlimlineError, match=r"which is 4,096\.0 GiB|1048576, 1048576\], 4,096\.0 GiB"):
        eager(node_model(kind, x, np.array(amount)), x, np.array(amount))


def test_the_bound_is_two_gibibytes() -> None:
    refuse_absurd([2**29], torch.float32)
    with pytest.raises(SlimlineError, match="more than 2 GiB is not plausible"):
        refuse_absurd([2**29 + 1], torch.float32)
