"""Arithmetic against ONNX Runtime and numpy, and what it becomes in a traced network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.sources.onnx.models import check_eager, check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check, operators

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5)).astype("f4")


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "f2"])
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
def test_two_inputs_broadcast_against_each_other(kind: str, dtype: str) -> None:
    a = RNG.integers(-9, 9, (3, 1, 5)).astype(dtype)
    b = RNG.choice([-4, -3, -1, 1, 2, 7], (4, 1)).astype(dtype)
    check(kind, a, b)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2"])
def test_narrow_integers_divide_towards_zero(dtype: str) -> None:
    a, b = np.array([7, 100, 3, 0]).astype(dtype), np.array([2, 7, 5, 3]).astype(dtype)
    (found,) = eager(one("Div", [a, b]), a, b)
    assert found.dtype == a.dtype
    assert found.tolist() == [3, 14, 0, 0]


def test_negative_integers_divide_towards_zero() -> None:
    a, b = np.array([-7, 7, -7, -1]), np.array([2, -2, -2, 3])
    assert eager(one("Div", [a, b]), a, b)[0].tolist() == [-3, -3, 3, 0]


@pytest.mark.parametrize("fmod", [0, 1])
@pytest.mark.parametrize("dtype", ["i4", "i8", "u1", "f4"])
def test_remainders(dtype: str, fmod: int) -> None:
    low = 0 if dtype == "u1" else -9
    a, b = RNG.integers(low, 9, 40).astype(dtype), RNG.choice([3, 5, 7] if low == 0 else [-5, -3, 4], 40).astype(dtype)
    (found,) = eager(one("Mod", [a, b], fmod=fmod), a, b)
    assert found.dtype == a.dtype
    np.testing.assert_array_equal(found, np.fmod(a, b) if fmod else np.mod(a, b))


@pytest.mark.parametrize("exponent", ["f4", "i4", "i8", "f8"])
@pytest.mark.parametrize("base", ["f4", "i4", "i8", "f8"])
def test_a_power_has_the_type_of_its_base(base: str, exponent: str) -> None:
    check("Pow", RNG.integers(1, 6, (2, 3)).astype(base), RNG.integers(0, 5, 3).astype(exponent))


@pytest.mark.parametrize(
    ("base", "exponent"), [("f4", np.float32(0.5)), ("i4", np.float32(2)), ("i4", np.float64(0.5))]
)
def test_a_power_with_a_number(base: str, exponent: Any) -> None:
    x = RNG.integers(1, 40, (2, 3)).astype(base)
    types = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name in ("x", "y")}
    node = helper.make_node("Pow", ["x", "c"], ["y"])
    check_eager(model([node], {"x": x.shape}, ["y"], {"c": np.array(exponent)}, types=types), x)


def test_a_number_to_a_power(tmp_path: Path) -> None:
    proto = model([helper.make_node("Pow", ["c", "x"], ["y"])], {"x": ["N", 4, 5]}, ["y"], {"c": np.float32(2.5)})
    assert operators(check_traced(proto, tmp_path, X)) == ["aten.pow.Scalar"]


@pytest.mark.parametrize("kind", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_inputs(kind: str, count: int) -> None:
    check(kind, *(RNG.standard_normal(shape).astype("f4") for shape in [(3, 4), (4,), (2, 1, 1)][:count]))


@pytest.mark.parametrize("kind", ["Max", "Min"])
def test_nan_is_the_largest_and_the_smallest(kind: str) -> None:
    a, b = np.array([1, np.nan, np.nan], "f4"), np.array([np.nan, 2, np.nan], "f4")
    assert np.isnan(eager(one(kind, [a, b]), a, b)[0]).all()


NUMBERS = {
    "Add": "aten.add.Tensor", "Sub": "aten.sub.Tensor", "Mul": "aten.mul.Tensor", "Div": "aten.div.Tensor",
    "Max": "aten.clamp.default", "Min": "aten.clamp.default", "Pow": "aten.pow.Tensor_Scalar",
}  # fmt: skip


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_number_is_an_argument_and_not_a_weight(kind: str, tmp_path: Path) -> None:
    nodes = [helper.make_node(kind, ["x", "c"], ["y"])]
    proto = model(nodes, {"x": ["N", 4, 5]}, ["y"], {"c": np.array([2], "f4")})
    network = check_traced(proto, tmp_path, X)
    assert operators(network) == [NUMBERS[kind]]
    assert not network.module.state_dict()


@pytest.mark.parametrize("kind", ["Sub", "Div", "Max", "Sum"])
def test_a_number_may_come_first(kind: str, tmp_path: Path) -> None:
    nodes = [helper.make_node(kind, ["c", "x"], ["y"])]
    network = check_traced(model(nodes, {"x": ["N", 4, 5]}, ["y"], {"c": np.float32(2)}), tmp_path, X)
    assert not network.module.state_dict()


@pytest.mark.parametrize(("kind", "attributes"), [("Div", {}), ("Mod", {}), ("Mod", {"fmod": 1})])
def test_a_whole_number_may_come_first(kind: str, attributes: dict[str, int]) -> None:
    x = np.array([-3, 2, 5, 90])
    nodes = [helper.make_node(kind, ["c", "x"], ["y"], **attributes)]
    proto = model(nodes, {"x": x.shape}, ["y"], {"c": np.array(17)}, types={"x": 7, "y": 7})
    check_eager(proto, x)


def test_a_constant_that_adds_axes_stays_a_tensor() -> None:
    nodes = [helper.make_node("Mul", ["x", "c"], ["y"])]
    check_eager(model(nodes, {"x": (5,)}, ["y"], {"c": np.full((1, 1), 3, "f4")}), X[0, 0])
