"""Quantise and dequantise against ONNX Runtime, the ONNX reference, and the form our own methods and exporter use."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime.quantization as ortq
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from slimline.network.network import Network
from slimline.runtimes.onnx_file import write_onnx
from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.module import OnnxModule
from slimline.sources.onnx.network import from_onnx
from tests.sources.onnx.models import (
    assert_same,
    check_eager,
    check_traced,
    eager,
    in_onnx_runtime,
    model,
    one,
    relative_error,
)

RNG = np.random.default_rng(0)
BITS = onnx.TensorProto


def typed(proto: onnx.ModelProto, *dtypes: object) -> onnx.ModelProto:
    """The model with the types of its outputs, which ONNX Runtime asks for."""
    for output, dtype in zip(proto.graph.output, dtypes, strict=True):
        output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return proto


def operators_of(network: Network) -> list[str]:
    return [str(n.target) for n in network.module.graph.nodes if n.op == "call_function"]


def small_cnn(folder: Path) -> Path:
    weights = {
        "w1": RNG.standard_normal((8, 3, 3, 3)).astype("f4") * 0.3,
        "b1": RNG.standard_normal(8).astype("f4"),
        "w2": RNG.standard_normal((8, 8, 3, 3)).astype("f4") * 0.2,
        "w3": RNG.standard_normal((5, 8)).astype("f4"),
        "b3": RNG.standard_normal(5).astype("f4"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    proto = model(nodes, {"x": ["batch", 3, 8, 8]}, ["y"], weights, opset=17)
    onnx.save(proto, folder / "float.onnx")
    return folder / "float.onnx"


class Samples(ortq.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.left = iter([{"x": RNG.standard_normal((1, 3, 8, 8)).astype("f4")} for _ in range(8)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


@pytest.mark.parametrize(
    ("form", "per_channel"),
    [(ortq.QuantFormat.QDQ, False), (ortq.QuantFormat.QDQ, True), (ortq.QuantFormat.QOperator, True)],
)
def test_a_network_of_onnx_runtimes_quantiser_comes_in_and_goes_out_again(
    tmp_path: Path, form: ortq.QuantFormat, per_channel: bool
) -> None:
    path = tmp_path / "int8.onnx"
    ortq.quantize_static(
        small_cnn(tmp_path),
        path,
        Samples(),
        quant_format=form,
        per_channel=per_channel,
        activation_type=ortq.QuantType.QUInt8,
        weight_type=ortq.QuantType.QInt8,
    )
    network = from_onnx(path)
    found = operators_of(network)
    assert "quantized_decomposed.quantize_per_tensor.default" in found
    assert ("quantized_decomposed.dequantize_per_channel.default" in found) == per_channel
    assert found.count("aten.conv2d.default") == 2  # noqa: PLR2004
    written = tmp_path / "out.onnx"
    write_onnx(network, written)
    stored = {tensor.data_type for tensor in onnx.load(written).graph.initializer if len(tensor.dims) == 4}  # noqa: PLR2004
    assert stored == {BITS.INT8}
    for batch in (1, 3):
        x = RNG.standard_normal((batch, 3, 8, 8)).astype("f4")
        (theirs,) = in_onnx_runtime(path, x)
        (ours,) = network.run({"x": torch.from_numpy(x)})
        # Their integer kernels round ties and products in another order: an activation may be off by one step.
        assert relative_error(ours.numpy(), theirs) < 0.02  # noqa: PLR2004
        assert relative_error(in_onnx_runtime(written, x)[0], ours.numpy()) < 0.02  # noqa: PLR2004


def pair(scale: np.ndarray, zero: np.ndarray, **attributes: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    return model(nodes, {"x": ["n", 4, 6]}, ["y"], {"s": scale, "z": zero}, opset=21)


@pytest.mark.parametrize("integer", ["int8", "uint8"])
def test_one_scale_becomes_python_numbers(tmp_path: Path, integer: str) -> None:
    x = RNG.standard_normal((3, 4, 6)).astype("f4") * 100
    network = check_traced(pair(np.float32(0.37), np.array(3, integer)), tmp_path, x)
    quantize, dequantize = (n for n in network.module.graph.nodes if n.op == "call_function")
    limits = np.iinfo(integer)
    assert quantize.args[1:] == dequantize.args[1:]
    assert quantize.args[1:] == (float(np.float32(0.37)), 3, limits.min, limits.max, getattr(torch, integer))


@pytest.mark.parametrize("integer", ["int8", "uint8"])
def test_scales_per_channel_stay_stored(tmp_path: Path, integer: str) -> None:
    x = RNG.standard_normal((3, 4, 6)).astype("f4") * 100
    scales, zeros = np.array([0.3, 0.5, 1, 2], "f4"), np.array([0, 1, 2, 9], integer)
    network = check_traced(pair(scales, zeros, axis=-2), tmp_path, x)
    assert [name.split(".")[1] for name in operators_of(network)] == ["quantize_per_channel", "dequantize_per_channel"]
    for node in network.module.graph.nodes:
        if node.op == "call_function":
            assert [argument.op for argument in node.args[1:3]] == ["get_attr", "get_attr"]


def test_a_bias_of_int32_stays_one(tmp_path: Path) -> None:
    bias, scales = RNG.integers(-1000, 1000, 4).astype("i4"), np.array([0.3, 0.5, 1, 2], "f4")
    nodes = [
        helper.make_node("DequantizeLinear", ["b", "s"], ["real"], axis=0),
        helper.make_node("Add", ["x", "real"], ["y"]),
    ]
    proto = model(nodes, {"x": ["n", 4]}, ["y"], {"b": bias, "s": scales}, opset=17)
    network = check_traced(proto, tmp_path, RNG.standard_normal((3, 4)).astype("f4"))
    assert "quantized_decomposed.dequantize_per_channel.default" in operators_of(network)
    write_onnx(network, tmp_path / "out.onnx")
    x = RNG.standard_normal((2, 4)).astype("f4")
    assert_same(in_onnx_runtime(tmp_path / "out.onnx", x), [(x + bias * scales).astype("f4")])


@pytest.mark.parametrize("integer", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_scales_at_run_time(integer: str, shape: tuple[int, ...]) -> None:
    x = RNG.standard_normal((3, 4, 6)).astype("f4") * 40000
    scale, zero = np.full(shape, 1.5, "f4"), np.full(shape, 7, integer)
    check_eager(typed(one("QuantizeLinear", [x, scale, zero]), integer), x, scale, zero)
    q = RNG.integers(0, 127, (3, 4, 6)).astype(integer)
    check_eager(typed(one("DequantizeLinear", [q, scale, zero]), "f4"), q, scale, zero)


@pytest.mark.parametrize("opset", [10, 13])
def test_old_forms(opset: int) -> None:
    """Without a zero point the result is uint8; ties go to the even neighbour."""
    x, scale = np.array([-3, 0.5, 1.5, 2.5, 300], "f4"), np.array(1, "f4")
    (ours,) = eager(one("QuantizeLinear", [x, scale], opset), x, scale)
    assert ours.dtype == np.uint8
    assert ours.tolist() == [0, 0, 2, 2, 255]


@pytest.mark.parametrize("narrow", [ml_dtypes.int4, ml_dtypes.uint4, np.int8])
@pytest.mark.parametrize("axis", [0, 1])
def test_blocks(narrow: type, axis: int) -> None:
    x = RNG.standard_normal((6, 5)).astype("f4") * 20
    shape = (2, 5) if axis == 0 else (6, 2)
    scale, zero = RNG.uniform(0.5, 2, shape).astype("f4"), RNG.integers(0, 3, shape).astype(narrow)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis, block_size=3),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis, block_size=3),
    ]
    proto = model(nodes, {"x": [6, 5]}, ["y"], {"s": scale, "z": zero}, opset=21)
    check_eager(proto, x)


def test_weights_of_four_bits_keep_their_limits(tmp_path: Path) -> None:
    weight, scale = RNG.integers(-8, 8, (4, 3)).astype(ml_dtypes.int4), RNG.uniform(0.5, 2, 4).astype("f4")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["real"], axis=0),
        helper.make_node("Gemm", ["x", "real"], ["y"], transB=1),
    ]
    proto = model(nodes, {"x": ["n", 3]}, ["y"], {"w": weight, "s": scale}, opset=21)
    network = check_traced(proto, tmp_path, RNG.standard_normal((3, 3)).astype("f4"))
    node = next(n for n in network.module.graph.nodes if "dequantize" in str(n.target))
    assert node.args[3:] == (0, -8, 7, torch.int8)


@pytest.mark.parametrize("kind", [BITS.FLOAT8E4M3FN, BITS.FLOAT8E5M2, BITS.FLOAT4E2M1, BITS.INT4, BITS.UINT2])
def test_output_type_by_attribute(kind: int) -> None:
    x = np.array([0, 0.25, 0.75, -2.5, 5, 1e6, -1e6, 3.5], "f4")
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"], output_dtype=kind)
    proto = model([node], {"x": [8]}, ["y"], {"s": np.float32(0.5)}, opset=25, types={"y": kind})
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    (ours,) = OnnxModule(build_graph(proto))(torch.from_numpy(x))
    assert ours.to(torch.float32).tolist() == expected.astype("f4").tolist()


def test_precision_of_half_scales() -> None:
    x = (RNG.standard_normal((4, 5)) * 20).astype("f2")
    scale, zero = np.array(0.33, "f2"), np.array(4, "u1")
    for proto, first in (
        (one("QuantizeLinear", [x, scale, zero], precision=BITS.FLOAT), x),
        (one("DequantizeLinear", [x.astype("u1"), scale, zero]), x.astype("u1")),
    ):
        expected = ReferenceEvaluator(proto).run(None, {"x0": first, "x1": scale, "x2": zero})
        assert_same(eager(proto, first, scale, zero), expected, 1e-3)


@pytest.mark.parametrize("x", [RNG.standard_normal((3, 4)), np.zeros((2, 2)), np.array([[1.0, 4.0]])])
def test_dynamic_quantize_linear(x: np.ndarray) -> None:
    check_eager(typed(one("DynamicQuantizeLinear", [x.astype("f4")], outputs=3), "u1", "f4", "u1"), x.astype("f4"))
