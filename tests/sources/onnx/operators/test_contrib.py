"""Fused operators against ONNX Runtime, whose own optimiser writes them."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from tests.sources.onnx.models import assert_same, check_eager, eager, in_onnx_runtime, model

RNG = np.random.default_rng(0)
DOMAIN = "com.microsoft"


def contrib(kind: str, arrays: list[np.ndarray | None], outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    names = ["" if array is None else f"x{i}" for i, array in enumerate(arrays)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(kind, names, results, domain=DOMAIN, **attributes)
    shapes = {name: array.shape for name, array in zip(names, arrays, strict=True) if array is not None}
    proto = model([node], shapes, results, opset=17)
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return proto


def check(kind: str, *arrays: np.ndarray | None, **attributes: Any) -> None:
    check_eager(contrib(kind, list(arrays), **attributes), *(array for array in arrays if array is not None))


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("f4")


def test_gelu_in_its_forms() -> None:
    check("Gelu", normal(3, 8))
    check("BiasGelu", normal(3, 8), normal(8))
    check("FastGelu", normal(3, 8))
    check("FastGelu", normal(3, 8), normal(8))
    check("QuickGelu", normal(3, 8), alpha=1.5)


@pytest.mark.parametrize("a_turned", [0, 1])
@pytest.mark.parametrize("b_turned", [0, 1])
@pytest.mark.parametrize("batches_turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_fused_matmul(a_turned: int, b_turned: int, batches_turned: tuple[int, int]) -> None:
    batch_a, batch_b = batches_turned
    a, b = normal(4, 3, 5), normal(4, 5, 6)
    a = a.swapaxes(1, 2) if a_turned else a
    b = b.swapaxes(1, 2) if b_turned else b
    a = np.moveaxis(a, 1, 0) if batch_a else a
    b = np.moveaxis(b, 1, 0) if batch_b else b
    check(
        "FusedMatMul",
        np.ascontiguousarray(a),
        np.ascontiguousarray(b),
        alpha=0.5,
        transA=a_turned,
        transB=b_turned,
        transBatchA=batch_a,
        transBatchB=batch_b,
    )


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("LeakyRelu", [0.1]),
        ("Clip", [0.0, 6.0]),
        ("Clip", [-0.5, 0.5]),
        ("HardSigmoid", [0.2, 0.5]),
    ],
)
def test_fused_conv(activation: str, parameters: list[float]) -> None:
    attributes = {"activation_params": parameters} if parameters else {}
    check("FusedConv", normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(4), activation=activation, **attributes)


def test_fused_conv_adds_before_the_activation() -> None:
    x, w, b, z = normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(4), normal(2, 4, 3, 3)
    check("FusedConv", x, w, b, z, activation="Relu")


def test_fused_gemm() -> None:
    attributes = {"transB": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.2}
    check("FusedGemm", normal(3, 5), normal(4, 5), normal(4), **attributes)


def test_an_activation_that_is_not_known() -> None:
    proto = contrib("FusedConv", [normal(1, 2, 4, 4), normal(3, 2, 2, 2)], activation="Mish")
    with pytest.raises(SlimlineError, match="'Mish' is not supported"):
        eager(proto, normal(1, 2, 4, 4), normal(3, 2, 2, 2))


@pytest.mark.parametrize("optional", [(False, False), (True, False), (True, True)])
def test_skip_layer_normalization(optional: tuple[bool, bool]) -> None:
    x, skip, gamma = normal(2, 5, 8), normal(2, 5, 8), normal(8)
    beta, bias = (normal(8) if wanted else None for wanted in optional)
    check("SkipLayerNormalization", x, skip, gamma, beta, bias, epsilon=1e-5)


def test_skip_layer_normalization_returns_the_sum() -> None:
    arrays = [normal(2, 5, 8), normal(2, 5, 8), normal(8), normal(8)]
    proto = contrib("SkipLayerNormalization", arrays, 4, epsilon=1e-5)
    proto.graph.node[0].output[1:3] = ["", ""]
    del proto.graph.output[1:3]
    assert_same(eager(proto, *arrays), in_onnx_runtime(proto, *arrays))
