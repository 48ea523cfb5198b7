"""Functions of one number against numpy, ONNX Runtime and the standard library."""

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators import TABLE
from tests.sources.onnx.models import check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check, operators

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((3, 4, 5, 2)) * 4).astype("f4")

FUNCTIONS = {
    "Abs": abs, "Neg": lambda x: -x, "Ceil": math.ceil, "Floor": math.floor, "Round": round, "Sqrt": math.sqrt,
    "Exp": math.exp, "Log": math.log, "Reciprocal": lambda x: 1 / x, "Erf": math.erf, "Sin": math.sin, "Cos": math.cos,
    "Tan": math.tan, "Asin": math.asin, "Acos": math.acos, "Atan": math.atan, "Sinh": math.sinh, "Cosh": math.cosh,
    "Asinh": math.asinh, "Acosh": math.acosh, "Atanh": math.atanh, "Identity": lambda x: x,
    "Sign": lambda x: (x > 0) - (x < 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions(kind: str) -> None:
    values = {"Acosh": [1.0, 1.5, 9.0], "Sqrt": [0.0, 0.25, 7.0], "Log": [0.1, 1.0, 7.0]}.get(
        kind, [-0.75, -0.5, 0.5, 0.3]
    )
    x = np.array(values, "f8")
    (found,) = eager(one(kind, [x]), x)
    np.testing.assert_allclose(found, [FUNCTIONS[kind](v) for v in values], rtol=1e-12)


def test_halves_round_to_the_even_neighbour() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], "f4")
    assert eager(one("Round", [x]), x)[0].tolist() == [-2, -2, 0, 0, 2, 2]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i8"])
@pytest.mark.parametrize("kind", ["Abs", "Sign"])
def test_signs_of_integers(kind: str, dtype: str) -> None:
    x = np.array([0, 1, np.iinfo(dtype).max, -5 if dtype[0] == "i" else 5], dtype)
    (found,) = eager(one(kind, [x]), x)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, np.abs(x) if kind == "Abs" else np.sign(x))


def test_determinants() -> None:
    check("Det", RNG.standard_normal((2, 4, 4)).astype("f4"))


@pytest.mark.parametrize(("negative", "positive"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_infinities(negative: int, positive: int) -> None:
    x = np.array([1, np.inf, -np.inf, np.nan], "f4")
    (found,) = eager(one("IsInf", [x], detect_negative=negative, detect_positive=positive), x)
    assert found.tolist() == [False, bool(positive), bool(negative), False]


def test_infinity_and_nan_in_eight_bits() -> None:
    bits = np.array([1, np.inf, -np.inf, np.nan], ml_dtypes.float8_e5m2).view("u1")
    x = torch.from_numpy(bits).view(torch.float8_e5m2)
    found = {kind: TABLE["", kind].function(OnnxNode(kind, "", (), ()), x).tolist() for kind in ("IsInf", "IsNaN")}
    assert found == {"IsInf": [False, True, True, False], "IsNaN": [False, False, False, True]}


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u8", "i1"])
@pytest.mark.parametrize("ends", [(2, 5), (None, 5), (2, None), (None, None), (5, 2)])
def test_clip_with_inputs(dtype: str, ends: tuple[int | None, int | None]) -> None:
    low, high = (None if end is None else np.array(end, dtype) for end in ends)
    check("Clip", np.arange(8).astype(dtype), low, high)


@pytest.mark.parametrize("dtype", ["u2", "u4"])
def test_clip_of_types_that_onnx_runtime_lacks(dtype: str) -> None:
    x, low, high = np.array([0, 1, 9, np.iinfo(dtype).max], dtype), np.array(1, dtype), np.array(8, dtype)
    (found,) = eager(one("Clip", [x, low, high]), x, low, high)
    assert (found.dtype, found.tolist()) == (x.dtype, [1, 1, 8, 8])


@pytest.mark.parametrize("attributes", [{}, {"min": -1.0}, {"max": 2.0}, {"min": -1.0, "max": 2.0}])
def test_clip_of_old_files_has_attributes(attributes: dict[str, float]) -> None:
    check("Clip", X, opset=10, **attributes)


CLIPS: list[tuple[float | None, float | None, str]] = [
    (0, 6, "aten.relu6.default"), (0, None, "aten.relu.default"), (-1, 0.5, "aten.clamp.default"),
    (None, 0.5, "aten.clamp.default"), (0, 1, "aten.clamp.default"),
]  # fmt: skip


@pytest.mark.parametrize("opset", [7, 13])
@pytest.mark.parametrize(("low", "high", "operator"), CLIPS)
def test_clip_with_numbers_is_one_operator(
    opset: int, low: float | None, high: float | None, operator: str, tmp_path: Path
) -> None:
    ends = {name: np.float32(end) for name, end in (("min", low), ("max", high)) if end is not None}
    if opset == 7:
        node: onnx.NodeProto = helper.make_node("Clip", ["x"], ["y"], **{k: float(v) for k, v in ends.items()})
    else:
        node = helper.make_node("Clip", ["x", *(name if name in ends else "" for name in ("min", "max"))], ["y"])
    constants: dict[str, Any] = {} if opset == 7 else ends
    network = check_traced(model([node], {"x": ["N", 4, 5, 2]}, ["y"], constants, opset), tmp_path, X)
    assert operators(network) == [operator]
    assert not network.module.state_dict()


def test_the_largest_float_of_old_files_is_no_end(tmp_path: Path) -> None:
    largest = float(np.finfo("f4").max)
    nodes = [
        helper.make_node("Clip", ["x"], ["a"], min=0.0, max=largest),
        helper.make_node("Clip", ["a"], ["y"], min=-largest, max=0.5),
    ]
    network = check_traced(model(nodes, {"x": ["N", 4, 5, 2]}, ["y"], opset=7), tmp_path, X)
    assert operators(network) == ["aten.relu.default", "aten.clamp.default"]
    (clamp,) = (node for node in network.module.graph.nodes if node.target is torch.ops.aten.clamp.default)
    assert clamp.args[1:] == (None, 0.5)
