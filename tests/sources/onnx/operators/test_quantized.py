"""Operators on integers against ONNX Runtime, whose own kernels may round to the neighbouring integer."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.sources.onnx.network import from_onnx
from tests.sources.onnx.models import assert_same, eager, in_onnx_runtime, model, write

RNG = np.random.default_rng(0)
DOMAIN = "com.microsoft"
SCALE, ZERO = np.float32(0.05), {"uint8": np.uint8(120), "int8": np.int8(-8)}


def integers(dtype: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


def with_constants(node: onnx.NodeProto, arrays: dict[str, Any], out: Any, domain: str = DOMAIN) -> onnx.ModelProto:
    """A model whose input is ``x``; all other arrays are constants."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype) for name, array in arrays.items()}
    kinds["y"] = helper.np_dtype_to_tensor_dtype(np.dtype(out))
    constants = {name: array for name, array in arrays.items() if name != "x"}
    shape = ["batch", *np.shape(arrays["x"])[1:]]
    proto = model([node], {"x": shape}, ["y"], constants, opset=17, types=kinds)
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def check(node: onnx.NodeProto, arrays: dict[str, Any], out: Any, domain: str = DOMAIN, steps: int = 1) -> None:
    """At most ``steps`` integers apart, and at most one value in ten."""
    proto = with_constants(node, arrays, out, domain)
    (ours,), (theirs,) = eager(proto, arrays["x"]), in_onnx_runtime(proto, arrays["x"])
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    apart = np.abs(ours.astype("f8") - theirs.astype("f8"))
    assert apart.max() <= steps
    assert (apart > 0).mean() <= 0.1  # noqa: PLR2004
    assert len(np.unique(theirs)) > 5  # noqa: PLR2004  (not everything saturates)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinear_conv(dtype: str, per_channel: bool) -> None:
    scales = RNG.uniform(0.01, 0.03, 4).astype("f4") if per_channel else np.float32(0.02)
    arrays = {
        "x": integers(dtype, 2, 3, 6, 6), "xs": SCALE, "xz": ZERO[dtype],
        "w": integers("int8", 4, 3, 3, 3), "ws": scales, "wz": np.zeros(np.shape(scales), "i1"),
        "ys": np.float32(0.3), "yz": ZERO[dtype], "b": RNG.integers(-2000, 2000, 4).astype("i4"),
    }  # fmt: skip
    node = helper.make_node("QLinearConv", list(arrays), ["y"], pads=[1, 1, 0, 0], strides=[2, 1])
    check(node, arrays, dtype, "")


def test_qlinear_conv_is_traced_to_pairs_around_the_plain_operator(tmp_path: Path) -> None:
    arrays = {
        "x": integers("uint8", 3, 3, 6, 6), "xs": SCALE, "xz": np.uint8(120),
        "w": integers("int8", 4, 3, 3, 3), "ws": np.full(4, 0.02, "f4"), "wz": np.zeros(4, "i1"),
        "ys": np.float32(0.3), "yz": np.uint8(0), "b": RNG.integers(-2000, 2000, 4).astype("i4"),
    }  # fmt: skip
    proto = with_constants(helper.make_node("QLinearConv", list(arrays), ["y"]), arrays, "uint8", "")
    network = from_onnx(write(proto, tmp_path))
    found = [str(n.target).removesuffix(".default") for n in network.module.graph.nodes if n.op == "call_function"]
    assert sorted(found) == [
        "aten.conv2d",
        "quantized_decomposed.dequantize_per_channel",
        "quantized_decomposed.dequantize_per_channel",
        "quantized_decomposed.dequantize_per_tensor",
        "quantized_decomposed.quantize_per_tensor",
    ]
    for batch in (1, 3):
        (ours,) = network.run({"x": torch.from_numpy(arrays["x"][:batch])})
        (theirs,) = in_onnx_runtime(proto, arrays["x"][:batch])
        assert np.abs(ours.numpy().astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("per_column", [False, True])
def test_qlinear_matmul(dtype: str, per_column: bool) -> None:
    scales = RNG.uniform(0.01, 0.03, 5).astype("f4") if per_column else np.float32(0.02)
    arrays = {
        "x": integers(dtype, 2, 4, 7), "xs": SCALE, "xz": ZERO[dtype],
        "b": integers("int8", 7, 5), "bs": scales, "bz": np.zeros(np.shape(scales), "i1"),
        "ys": np.float32(0.2), "yz": ZERO[dtype],
    }  # fmt: skip
    check(helper.make_node("QLinearMatMul", list(arrays), ["y"]), arrays, dtype, "")


@pytest.mark.parametrize("names", [["x", "w"], ["x", "w", "xz"], ["x", "w", "xz", "wz"]])
def test_matmul_integer_and_conv_integer_are_exact(names: list[str]) -> None:
    arrays = {"x": integers("uint8", 3, 40), "w": integers("int8", 40, 6), "xz": np.uint8(7), "wz": np.int8(-3)}
    given = {name: arrays[name] for name in names}
    check(helper.make_node("MatMulInteger", names, ["y"]), given, "int32", "", steps=0)
    arrays = {"x": integers("uint8", 2, 3, 5, 5), "w": integers("uint8", 4, 3, 3, 3), "xz": np.uint8(7)}
    arrays["wz"] = np.uint8(9)
    given = {name: arrays[name] for name in names}
    check(helper.make_node("ConvInteger", names, ["y"], pads=[1, 1, 1, 1]), given, "int32", "", steps=0)


def test_a_dynamically_quantised_layer_is_traced(tmp_path: Path) -> None:
    """What ONNX Runtime's quantize_dynamic writes for a matrix product."""
    weight = integers("int8", 16, 5)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["scale"]),
        helper.make_node("Mul", ["f", "scale"], ["y"]),
    ]
    proto = model(nodes, {"x": ["n", 16]}, ["y"], {"w": weight, "ws": np.float32(0.01)}, opset=17)
    network = from_onnx(write(proto, tmp_path))
    x = RNG.standard_normal((3, 16)).astype("f4")
    for batch in (1, 3):
        ours = network.run({"x": torch.from_numpy(x[:batch])})
        assert_same([y.numpy() for y in ours], in_onnx_runtime(proto, x[:batch]))


def ends(dtype: str, scale: float) -> dict[str, Any]:
    return {"ys": np.float32(scale), "yz": ZERO[dtype]}


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("kind", "scale", "attributes"),
    [
        ("QLinearSigmoid", 0.005, {}),
        ("QLinearLeakyRelu", 0.04, {"alpha": 0.1}),
        ("QLinearGlobalAveragePool", 0.02, {"channels_last": 0}),
        ("QLinearGlobalAveragePool", 0.02, {"channels_last": 1}),
        ("QLinearAveragePool", 0.03, {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
        ("QLinearSoftmax", 0.003, {"axis": -1, "opset": 13}),
    ],
)
def test_one_operand(kind: str, scale: float, attributes: dict[str, Any], dtype: str) -> None:
    arrays = {"x": integers(dtype, 2, 4, 6, 6), "xs": SCALE, "xz": ZERO[dtype], **ends(dtype, scale)}
    check(helper.make_node(kind, list(arrays), ["y"], domain=DOMAIN, **attributes), arrays, dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("kind", ["QLinearAdd", "QLinearMul"])
def test_two_operands(kind: str, dtype: str) -> None:
    arrays = {"x": integers(dtype, 2, 4, 6), "xs": SCALE, "xz": ZERO[dtype]}
    arrays |= {"b": integers(dtype, 4, 6), "bs": np.float32(0.03), "bz": ZERO[dtype], **ends(dtype, 0.1)}
    check(helper.make_node(kind, list(arrays), ["y"], domain=DOMAIN), arrays, dtype)


def test_concat() -> None:
    arrays = {"ys": np.float32(0.06), "yz": np.uint8(100), "x": integers("uint8", 2, 4), "xs": SCALE}
    arrays |= {"xz": np.uint8(120), "b": integers("uint8", 2, 3), "bs": np.float32(0.03), "bz": np.uint8(9)}
    check(helper.make_node("QLinearConcat", list(arrays), ["y"], domain=DOMAIN, axis=1), arrays, "uint8")


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("real", [False, True])
def test_gemm(transposed: int, real: bool) -> None:
    arrays = {
        "x": integers("uint8", 3, 7), "xs": SCALE, "xz": np.uint8(120),
        "b": integers("int8", *((5, 7) if transposed else (7, 5))), "bs": RNG.uniform(0.01, 0.03, 5).astype("f4"),
        "bz": np.zeros(5, "i1"), "c": RNG.integers(-900, 900, 5).astype("i4"),
    }  # fmt: skip
    node = helper.make_node("QGemm", list(arrays), ["y"], domain=DOMAIN, transB=transposed)
    if real:
        proto = with_constants(node, arrays, "float32")
        assert_same(eager(proto, arrays["x"]), in_onnx_runtime(proto, arrays["x"]), 1e-5)
        return
    arrays |= ends("uint8", 0.2)
    check(helper.make_node("QGemm", list(arrays), ["y"], domain=DOMAIN, transB=transposed), arrays, "uint8")


def test_gemm_with_alpha() -> None:
    arrays = {"x": integers("uint8", 3, 7), "xs": SCALE, "xz": np.uint8(120)}
    arrays |= {"b": integers("int8", 7, 5), "bs": np.float32(0.02), "bz": np.int8(0)}
    proto = with_constants(helper.make_node("QGemm", list(arrays), ["y"], domain=DOMAIN, alpha=0.5), arrays, "f4")
    assert_same(eager(proto, arrays["x"]), in_onnx_runtime(proto, arrays["x"]), 1e-5)
