"""Conversions against numpy, ml_dtypes and the ONNX package, over every number of sixteen bits."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators import TABLE
from slimline.sources.onnx.operators.types import converted
from slimline.sources.onnx.values import Known, to_tensor
from tests.sources.onnx.models import check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import operators

RNG = np.random.default_rng(0)
KINDS = onnx.TensorProto
HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)
"""Every number in half precision, with both infinities and all the NaN."""
PLAIN = ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


@pytest.mark.parametrize("to", PLAIN)
@pytest.mark.parametrize("start", PLAIN)
def test_types_that_numpy_has(start: str, to: str) -> None:
    x = np.array([0, 1, 2, 100], start)
    (found,) = eager(one("Cast", [x], to=int(helper.np_dtype_to_tensor_dtype(np.dtype(to)))), x)
    assert found.dtype == to
    np.testing.assert_array_equal(found, x.astype(to))


def test_fractions_are_cut_and_upper_bits_are_lost() -> None:
    x = np.array([-1.9, -0.5, 0.5, 1.9], "f4")
    assert eager(one("Cast", [x], to=KINDS.INT64), x)[0].tolist() == [-1, 0, 0, 1]
    assert eager(one("Cast", [x], to=KINDS.BOOL), x)[0].tolist() == [True] * 4
    whole = np.array([200, 65536 + 3], "i4")
    assert eager(one("Cast", [whole], to=KINDS.INT8), whole)[0].tolist() == [-56, 3]
    assert eager(one("Cast", [whole], to=KINDS.UINT16), whole)[0].tolist() == [200, 3]


FLOAT8 = {
    KINDS.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn, KINDS.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    KINDS.FLOAT8E5M2: ml_dtypes.float8_e5m2, KINDS.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
}  # fmt: skip


@pytest.mark.parametrize("saturate", [True, False])
@pytest.mark.parametrize("to", FLOAT8)
def test_floats_of_eight_bits(to: int, saturate: bool) -> None:
    wide = HALVES.astype(np.float32)
    with np.errstate(invalid="ignore"):  # NaN
        wide = np.concatenate([wide, [1e6, -1e6, 3e38], wide * np.float32(1.0003)]).astype(np.float32)
    expected = numpy_helper.saturate_cast(wide, FLOAT8[to]) if saturate else wide.astype(FLOAT8[to])
    found = converted(torch.from_numpy(wide), to, saturate)
    np.testing.assert_array_equal(found.float().numpy(), expected.astype(np.float32))
    back = converted(found, KINDS.FLOAT16)
    assert back.dtype == torch.float16
    np.testing.assert_array_equal(back.float().numpy(), expected.astype(np.float32))


def test_float4() -> None:
    halves = HALVES.astype(np.float32)
    with np.errstate(invalid="ignore"):  # NaN
        expected = halves.astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    found = converted(torch.from_numpy(halves), KINDS.FLOAT4E2M1).numpy()
    np.testing.assert_array_equal(found, np.where(np.isnan(halves), 0, expected))
    number = ~np.isnan(halves)
    np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(expected[number]))


@pytest.mark.parametrize("saturate", [True, False])
@pytest.mark.parametrize("round_mode", ["up", "down", "nearest"])
def test_powers_of_two(round_mode: str, saturate: bool) -> None:
    draws = RNG.integers(0, 2**31, 4_000).astype(np.uint32).view(np.float32)  # positive, of every exponent
    edges = np.array(
        [0, 2.0**-127, 2.0**-126, 1.5 * 2.0**-126, 1, 1.5, 3, 6, 2.0**127, 3.4e38, np.inf, np.nan], np.float32
    )
    x = np.concatenate([edges, HALVES[: 2**15 : 7].astype(np.float32), draws])
    expected = numpy_helper.to_float8e8m0(x, saturate, round_mode).astype(np.float32)
    found = converted(torch.from_numpy(x), KINDS.FLOAT8E8M0, saturate, round_mode)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("to", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2])
def test_integers_of_less_than_a_byte_wrap_around(to: Any) -> None:
    x = np.arange(-20, 21)
    found = converted(torch.from_numpy(x).float(), int(helper.np_dtype_to_tensor_dtype(np.dtype(to))))
    assert found.dtype == (torch.int8 if ml_dtypes.iinfo(to).min < 0 else torch.uint8)
    np.testing.assert_array_equal(found.numpy(), x.astype(to).astype(int))


def test_bfloat16() -> None:
    found = converted(torch.from_numpy(HALVES.astype(np.float32)), KINDS.BFLOAT16)
    with np.errstate(invalid="ignore"):  # NaN
        expected = HALVES.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(found.float().numpy(), expected)


@pytest.mark.parametrize("to", ["f2", "i8", "?", "u2"])
def test_to_the_type_of_another_tensor(to: str) -> None:
    x, like = np.array([0, 1, 2.5], "f4"), np.zeros(2, to)
    (found,) = eager(one("CastLike", [x, like], 19), x, like)
    assert found.dtype == like.dtype
    np.testing.assert_array_equal(found, x.astype(to))


@pytest.mark.parametrize("to", [ml_dtypes.int4, ml_dtypes.uint2, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_to_the_type_of_a_constant(to: Any) -> None:
    like = np.zeros(1, to)
    stored = to_tensor(like)
    node = OnnxNode("CastLike", "", ("a", "b"), ("y",), {}, 25)
    x = torch.tensor([-9.0, 1.0, 14.0])
    found = TABLE["", "CastLike"].function(node, None, x, Known(like, stored.dtype, stored))
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found.float().numpy(), x.numpy().astype(to).astype(np.float32))


BITS = [("f4", "i4"), ("i4", "f4"), ("f8", "i8"), ("u2", "i2"), ("f2", "u2"), ("i1", "u1"), ("?", "u1"), ("u8", "f8")]


@pytest.mark.parametrize(("start", "to"), BITS)
def test_bits_read_as_another_type(start: str, to: str) -> None:
    x = np.array([[1, 0, 1]], "u1").astype(start) if start == "?" else (np.array([[3, 200, 7]]) % 128).astype(start)
    (found,) = eager(one("BitCast", [x], 26, to=int(helper.np_dtype_to_tensor_dtype(np.dtype(to)))), x)
    assert found.dtype == to
    np.testing.assert_array_equal(found.view("u1"), x.view(to).view("u1"))


def test_bits_of_another_width_are_refused() -> None:
    x = np.zeros(3, "f4")
    with pytest.raises(SlimlineError, match="32 bits as torch.int16"):
        eager(one("BitCast", [x], 26, to=int(KINDS.INT16)), x)


def test_text_is_refused() -> None:
    with pytest.raises(SlimlineError, match="type number 8"):
        converted(torch.zeros(2), KINDS.STRING)


def test_a_conversion_to_the_same_type_leaves_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=KINDS.FLOAT),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["c"], to=KINDS.INT64),
        helper.make_node("Cast", ["c"], ["y"], to=KINDS.FLOAT),
    ]
    x = RNG.standard_normal((3, 4)).astype("f4") * 5
    network = check_traced(model(nodes, {"x": ["N", 4]}, ["y"]), tmp_path, x)
    assert [name for name in operators(network) if "assert" not in name] == [
        "aten.relu.default", "aten.to.dtype", "aten.to.dtype",
    ]  # fmt: skip
