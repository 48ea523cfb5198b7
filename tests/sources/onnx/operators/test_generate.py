"""Generated values against ONNX Runtime and closed forms."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.generate import constant, range_
from slimline.sources.onnx.values import Known
from tests.sources.onnx.models import assert_same, check_traced, eager, model
from tests.sources.onnx.operators.one_node import check, node_model, operators

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def test_constants_that_no_graph_has_stored() -> None:
    found = constant(OnnxNode("Constant", "", (), ("y",), {"value_floats": [1.0, 2.5]}))
    assert (found.dtype, found.array.tolist()) == (torch.float32, [1.0, 2.5])
    with pytest.raises(SlimlineError, match="holds text"):
        constant(OnnxNode("Constant", "", (), ("y",), {"value_string": "a"}))


@pytest.mark.parametrize("value", [None, np.array([2.5], np.float32), np.array([7], np.int64), np.array([True])])
@pytest.mark.parametrize("shape", [[2, 3], [0], [1]])
def test_constant_of_shape(shape: list[int], value: np.ndarray | None) -> None:
    attributes = {} if value is None else {"value": onnx.numpy_helper.from_array(value)}
    check("ConstantOfShape", np.array(shape), **attributes)


def test_a_state_of_zeros_for_every_sample(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], end=1),
        helper.make_node("Concat", ["n", "two"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Concat", ["zeros", "x"], ["y"], axis=1),
    ]
    network = check_traced(model(nodes, {"x": ["n", 4]}, ["y"], {"two": np.array([2])}), tmp_path, X)
    assert operators(network) == ["aten.sym_size.int", "aten.full.default", "aten.cat.default"]


def test_absurd_constants_are_refused() -> None:
    shape = np.array([2**20, 2**20])
    with pytest.raises(SlimlineError, match=r"\[1048576, 1048576\], 4,096.0 GiB; more than 2 GiB is not plausible"):
        eager(node_model("ConstantOfShape", shape), shape)
    with pytest.raises(SlimlineError, match="not plausible"):
        eager(node_model("Range", np.array(0), np.array(2**40), np.array(1)), *map(np.array, (0, 2**40, 1)))


@pytest.mark.parametrize("ends", [(0, 5, 1), (10, 4, -2), (3, 3, 1), (5, 1, 1), (1.5, 4.0, 0.5), (0.0, 1.0, 0.3)])
def test_range(ends: tuple[float, float, float]) -> None:
    dtype = np.int64 if isinstance(ends[0], int) else np.float32
    check("Range", *(np.array(end, dtype) for end in ends))


def test_a_long_range_is_an_operator() -> None:
    start, limit, delta = (Known(np.array(end), torch.int64) for end in (0, 100_000, 1))
    found = range_(OnnxNode("Range", "", (), ("y",)), None, start, limit, delta)
    assert isinstance(found, torch.Tensor) and found.shape == (100_000,) and found[-1] == 99_999


def test_half_precision_counts_in_single() -> None:
    """From 2048 on halves have no odd numbers: adding one again and again would stand still."""
    ends = [np.array(end, np.float16) for end in (0, 3000, 1)]
    assert_same(
        eager(node_model("Range", *ends, opset=27), *ends), [np.arange(3000, dtype=np.float32).astype(np.float16)]
    )


def test_numbers_of_samples(tmp_path: Path) -> None:
    """A range to the batch size: sample i is gathered i-th."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Range", ["zero", "n", "one"], ["i"]),
        helper.make_node("Gather", ["x", "i"], ["y"]),
    ]
    constants = {"zero": np.array(0), "one": np.array(1)}
    check_traced(model(nodes, {"x": ["n", 4]}, ["y"], constants), tmp_path, X)


@pytest.mark.parametrize("attributes", [{}, {"k": 1}, {"k": -2, "dtype": onnx.TensorProto.INT32}])
def test_eye_like(attributes: dict[str, Any]) -> None:
    check("EyeLike", X, **attributes)


@pytest.mark.parametrize("kind", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(kind: str, periodic: int) -> None:
    check(kind, np.array(10), periodic=periodic)
    check(kind, np.array(10, np.int32), periodic=periodic, output_datatype=onnx.TensorProto.DOUBLE)


def test_a_window_of_one() -> None:
    (found,) = eager(node_model("HannWindow", np.array(1), periodic=0), np.array(1))
    np.testing.assert_array_equal(found, [0.0])
