"""Padding against ONNX Runtime and numpy, eager and traced with a free batch."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from tests.sources.onnx.models import assert_same, check_traced, eager, model
from tests.sources.onnx.operators.one_node import check, node_model, operators

X = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "pads", [[0, 0, 1, 2, 0, 0, 3, 0], [1, 0, 0, 0, 0, 2, 0, 0], [0, 1, -1, 0, 0, 0, -2, 1], [0] * 8]
)
def test_constant(pads: list[int]) -> None:
    check("Pad", X, np.array(pads), np.array(1.5, np.float32))
    check("Pad", X, np.array(pads))


def test_pads_were_attributes() -> None:
    check("Pad", X, opset=10, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=-1.0)
    check("Pad", X, opset=7, pads=[0, 0, 1, 2, 0, 0, 3, 0], mode="edge")


def test_axes() -> None:
    check("Pad", X, np.array([1, 2, 0, 3]), np.array(2.0, np.float32), np.array([-1, 1]))


def test_whole_numbers() -> None:
    x = np.arange(12).reshape(3, 4)
    check("Pad", x, np.array([1, 0, 0, 2]), np.array(7))
    check("Pad", x, np.array([1, 0, 0, 2]), mode="edge")


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize(
    "pads",
    [
        [0, 0, 1, 2, 0, 0, 3, 1],
        [0, 0, 0, 1, 0, 0, 0, 2],
        [0, 1, 2, 0, 0, 1, 0, 0],
        [1, 2, 0, 0, 1, 0, 0, 1],
        [0, 0, 4, 3, 0, 0, 4, 3],
    ],
)
def test_padding_with_own_entries(mode: str, pads: list[int]) -> None:
    pairs = list(zip(pads[:4], pads[4:], strict=True))
    proto = node_model("Pad", X, np.array(pads), mode=mode)
    assert_same(eager(proto, X, np.array(pads)), [np.pad(X, pairs, mode=mode)])  # type: ignore[call-overload]


@pytest.mark.parametrize("mode", ["reflect", "wrap", "edge"])
def test_more_than_the_value_has(mode: str) -> None:
    """Numpy goes back and forth, or round and round, as often as is needed."""
    pads = np.array([0, 0, 0, 9, 0, 0, 0, 11])
    assert_same(
        eager(node_model("Pad", X, pads, mode=mode), X, pads),
        [np.pad(X, [(0, 0), (0, 0), (0, 0), (9, 11)], mode=mode)],  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("pads", "mode", "written"),
    [
        ([0, 0, 1, 2, 0, 0, 3, 4], "constant", [2, 4, 1, 3]),
        ([0, 2, 0, 0, 0, 1, 0, 0], "constant", [0, 0, 0, 0, 2, 1]),
        ([0, 0, 0, 1, 0, 0, 0, 1], "constant", [1, 1]),
        ([0, 0, 1, 2, 0, 0, 2, 1], "reflect", [2, 1, 1, 2]),
    ],
)
def test_a_traced_pad_is_one_operator(pads: list[int], mode: str, written: list[int], tmp_path: Path) -> None:
    x = np.concatenate([X, X[:1]])
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    network = check_traced(model([node], {"x": ["n", 3, 5, 4]}, ["y"], {"pads": np.array(pads)}), tmp_path, x)
    assert operators(network) == ["aten.pad.default"]
    (call,) = (n for n in network.module.graph.nodes if n.op == "call_function")
    assert call.args[1] == written


def test_nothing_to_pad_is_no_operator(tmp_path: Path) -> None:
    x = np.concatenate([X, X[:1]])
    node = helper.make_node("Pad", ["x", "pads"], ["y"])
    assert (
        operators(check_traced(model([node], {"x": ["n", 3, 5, 4]}, ["y"], {"pads": np.zeros(8, int)}), tmp_path, x))
        == []
    )


@pytest.mark.parametrize("shape", [[2, 3, 8, 3], [4, 1, 2, 9], [2, 3, 5, 4]])
def test_center_crop_pad(shape: list[int]) -> None:
    """The reference of ONNX in closed form: the smaller of both sizes lies in the middle, an odd rest after it."""
    (found,) = eager(node_model("CenterCropPad", X, np.array(shape)), X, np.array(shape))
    expected = np.zeros(shape, np.float32)
    source, target = [], []
    for have, want in zip(X.shape, shape, strict=True):
        first, size = abs(have - want) // 2, min(have, want)
        source.append(slice(first, first + size) if want < have else slice(None))
        target.append(slice(first, first + size) if want > have else slice(None))
    expected[tuple(target)] = X[tuple(source)]
    np.testing.assert_array_equal(found, expected)


def test_the_wrong_number_of_amounts_is_refused() -> None:
    with pytest.raises(SlimlineError, match="3 amounts of padding for 4 axes"):
        eager(node_model("Pad", X, np.array([1, 1, 1])), X, np.array([1, 1, 1]))


def test_absurd_padding_is_refused() -> None:
    pads = np.array([0, 0, 2**40, 0, 0, 0, 0, 0])
    with pytest.raises(SlimlineError, match="is not plausible"):
        eager(node_model("Pad", X, pads), X, pads)
