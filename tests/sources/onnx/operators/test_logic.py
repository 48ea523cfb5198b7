"""Comparison, choice and logic against ONNX Runtime and numpy."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.sources.onnx.models import check_eager, check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check, operators

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5)).astype("f4")
COMPARISONS = ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"]


@pytest.mark.parametrize("dtype", ["f4", "i4", "i8"])
@pytest.mark.parametrize("kind", COMPARISONS)
def test_comparisons(kind: str, dtype: str) -> None:
    check(kind, RNG.integers(-2, 3, (4, 1, 6)).astype(dtype), RNG.integers(-2, 3, (5, 1)).astype(dtype))


@pytest.mark.parametrize("kind", COMPARISONS)
def test_nothing_compares_with_nan(kind: str) -> None:
    x = np.array([np.nan], "f4")
    assert eager(one(kind, [x, x]), x, x)[0].tolist() == [False]


@pytest.mark.parametrize("kind", ["And", "Or", "Xor"])
def test_connectives(kind: str) -> None:
    check(kind, np.array([[True], [False]]), np.array([True, False]))


def test_not_and_equality_of_truth_values() -> None:
    check("Not", np.array([True, False]))
    check("Equal", np.array([[True], [False]]), np.array([True, False]))


@pytest.mark.parametrize("kind", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "i8"])
def test_bits(kind: str, dtype: str) -> None:
    check(kind, RNG.integers(0, 120, (3, 1)).astype(dtype), RNG.integers(0, 120, 5).astype(dtype), opset=18)


@pytest.mark.parametrize("dtype", ["i1", "u1", "u2", "u4", "u8", "i8"])
def test_every_bit_turns(dtype: str) -> None:
    x = np.array([0, 1, 100], dtype)
    (found,) = eager(one("BitwiseNot", [x]), x)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, ~x)


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_shifts(dtype: str, direction: str) -> None:
    x = np.array([1, 2, np.iinfo(dtype).max, np.iinfo(dtype).max // 3], dtype)
    count = np.array([0, 1, 3, 7], dtype)
    (found,) = eager(one("BitShift", [x, count], direction=direction), x, count)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x << count if direction == "LEFT" else x >> count)


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i4", "i8", "u1"])
def test_a_choice_broadcasts_and_keeps_its_type(dtype: str) -> None:
    condition = np.array([[True], [False], [True]])
    a, b = RNG.integers(0, 9, (1, 5)).astype(dtype), RNG.integers(0, 9, (2, 1, 1)).astype(dtype)
    (found,) = eager(one("Where", [condition, a, b]), condition, a, b)
    assert found.dtype == a.dtype
    np.testing.assert_array_equal(found, np.where(condition, a, b))


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i4", "i8", "u8", "?"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_a_choice_between_numbers_keeps_their_type(dtype: str, shape: tuple[int, ...]) -> None:
    condition, a, b = np.array([True, False]), np.full(shape, 3, dtype), np.full(shape, 0, dtype)
    proto = model(
        [helper.make_node("Where", ["m", "a", "b"], ["y"])], {"m": (2,)}, ["y"], {"a": a, "b": b},
        types={"m": onnx.TensorProto.BOOL, "y": helper.np_dtype_to_tensor_dtype(a.dtype)},
    )  # fmt: skip
    (found,) = eager(proto, condition)
    expected = np.where(condition, a, b)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_a_mask_of_numbers_leaves_no_weight(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["m"]),
        helper.make_node("Not", ["m"], ["n"]),
        helper.make_node("Where", ["n", "low", "x"], ["y"]),
    ]
    constants = {"zero": np.float32(0), "low": np.array([-9], "f4")}
    network = check_traced(model(nodes, {"x": ["N", 4, 5]}, ["y"], constants), tmp_path, X)
    assert operators(network) == ["aten.gt.Scalar", "aten.logical_not.default", "aten.where.ScalarSelf"]
    assert not network.module.state_dict()


def test_a_constant_condition() -> None:
    nodes = [helper.make_node("Where", ["m", "x", "c"], ["y"])]
    constants = {"m": np.array([True, False, True, False, True]), "c": np.float32(7)}
    check_eager(model(nodes, {"x": X.shape}, ["y"], constants), X)
