"""Activations, softmaxes and dropout against ONNX Runtime, and closed forms where it lacks the operator."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.sources.onnx.models import check_eager, check_traced, eager, in_onnx_runtime, model, one, relative_error
from tests.sources.onnx.operators.one_node import check, operators

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((3, 4, 5, 2)) * 3).astype("f4")

FORMS: list[tuple[str, dict[str, Any]]] = [
    ("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("Softplus", {}), ("Softsign", {}), ("HardSwish", {}), ("Mish", {}),
    ("LeakyRelu", {}), ("LeakyRelu", {"alpha": 0.3}), ("Elu", {}), ("Elu", {"alpha": 0.3}), ("Selu", {}),
    ("Selu", {"alpha": 1.5, "gamma": 2.0}), ("Celu", {}), ("Celu", {"alpha": 2.0}), ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}), ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 1 / 6}),
    ("HardSigmoid", {"alpha": 0.25, "beta": 0.4}), ("ThresholdedRelu", {}), ("ThresholdedRelu", {"alpha": 0.4}),
    ("Shrink", {}), ("Shrink", {"lambd": 1.5}), ("Shrink", {"lambd": 1.5, "bias": 1.5}),
    ("Shrink", {"lambd": 1.0, "bias": 0.25}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "attributes"), FORMS)
def test_activations(kind: str, attributes: dict[str, Any]) -> None:
    check(kind, X, **attributes)


@pytest.mark.parametrize("kind", ["LeakyRelu", "Elu", "Selu", "HardSigmoid", "Softplus", "Tanh"])
def test_activations_of_old_files(kind: str) -> None:
    check(kind, X, opset=7)


def test_activations_that_onnx_runtime_lacks() -> None:
    wide, gate = X.astype("f8"), X[::-1].astype("f8")
    for alpha in (1.0, 1.702):
        expected = wide / (1 + np.exp(-alpha * wide))
        (found,) = eager(one("Swish", [X], 24, alpha=alpha), X)
        assert relative_error(found, expected) < 1e-6
        (found,) = eager(one("SwiGLU", [X, gate.astype("f4")], 28, alpha=alpha), X, X[::-1].copy())
        assert relative_error(found, expected * gate) < 1e-6


CANONICAL = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hardswish", "Mish": "mish", "Gelu": "gelu",
    "LeakyRelu": "leaky_relu", "Elu": "elu", "Softplus": "softplus", "Selu": "selu", "Celu": "celu",
    "ThresholdedRelu": "threshold",
}  # fmt: skip


def test_each_becomes_one_operator(tmp_path: Path) -> None:
    names = ["x", *(f"v{i}" for i in range(len(CANONICAL) - 1)), "y"]
    nodes = [helper.make_node(kind, [names[i]], [names[i + 1]]) for i, kind in enumerate(CANONICAL)]
    network = check_traced(model(nodes, {"x": ["N", 4, 5, 2]}, ["y"]), tmp_path, X)
    assert operators(network) == [f"aten.{name}.default" for name in CANONICAL.values()]


def test_the_hard_sigmoids_of_torch_and_of_keras(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("HardSigmoid", ["x"], ["t"], alpha=1 / 6),
        helper.make_node("HardSigmoid", ["t"], ["y"], alpha=0.2),
    ]
    network = check_traced(model(nodes, {"x": ["N", 4, 5, 2]}, ["y"]), tmp_path, X)
    assert operators(network) == [
        "aten.hardsigmoid.default", "aten.mul.Tensor", "aten.add.Tensor", "aten.clamp.default",
    ]  # fmt: skip


SLOPES = [(4, 1, 1), (1, 4, 1, 1), (5, 2), (1,), (1, 1, 1), (4, 5, 1), (2,)]


@pytest.mark.parametrize("given", ["as a constant", "as an input"])
@pytest.mark.parametrize("shape", SLOPES)
def test_slopes_broadcast_to_the_input(shape: tuple[int, ...], given: str) -> None:
    slope = RNG.random(shape).astype("f4")
    if given == "as an input":
        check("PRelu", X, slope)
    else:
        nodes = [helper.make_node("PRelu", ["x", "s"], ["y"])]
        check_eager(model(nodes, {"x": X.shape}, ["y"], {"s": slope}), X)


@pytest.mark.parametrize(("shape", "operator"), [((4, 1, 1), "aten.prelu.default"), ((1,), "aten.leaky_relu.default")])
def test_a_slope_per_channel_or_one(shape: tuple[int, ...], operator: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("PRelu", ["x", "s"], ["y"])]
    constants = {"s": RNG.random(shape).astype("f4")}
    network = check_traced(model(nodes, {"x": ["N", 4, 5, 2]}, ["y"], constants), tmp_path, X)
    assert operators(network)[-1] == operator


AXES = {7: [None, 0, 1, 2, 3], 12: [None, 0, 2, -1, -2], 13: [None, 0, 1, -2]}
"""Opset -> axes; before 11 they count from the front."""


@pytest.mark.parametrize(("opset", "axis"), [(opset, axis) for opset, axes in AXES.items() for axis in axes])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmaxes_of_old_files_span_all_axes_behind_theirs(kind: str, axis: int | None, opset: int) -> None:
    check(kind, X, opset=opset, **({} if axis is None else {"axis": axis}))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_hardmax_takes_the_first_of_equals(axis: int) -> None:
    check("Hardmax", np.array([[1, 3, 3], [3, 3, 1]], "f4"), axis=axis)


def test_a_softmax_over_channels_of_one_pixel_is_over_one_axis(tmp_path: Path) -> None:
    x = X[:, :, :1, :1].copy()
    proto = model([helper.make_node("Softmax", ["x"], ["y"])], {"x": ["N", 4, 1, 1]}, ["y"], opset=9)
    network = check_traced(proto, tmp_path, x)
    assert operators(network) == ["aten.softmax.int"]


def test_old_softmax_over_everything_behind_a_free_batch(tmp_path: Path) -> None:
    proto = model([helper.make_node("Softmax", ["x"], ["y"])], {"x": ["N", 4, 5, 2]}, ["y"], opset=9)
    check_traced(proto, tmp_path, X)


@pytest.mark.parametrize("opset", [7, 13])
def test_dropout_is_the_identity_and_keeps_its_ratio_for_training(opset: int, tmp_path: Path) -> None:
    if opset < 12:
        nodes, constants = [helper.make_node("Dropout", ["x"], ["y"], ratio=0.25)], {}
    else:
        nodes, constants = [helper.make_node("Dropout", ["x", "r"], ["y"])], {"r": np.float32(0.25)}
    network = check_traced(model(nodes, {"x": ["N", 4, 5, 2]}, ["y"], constants, opset), tmp_path, X)
    assert operators(network) == ["aten.dropout.default"]
    torch.manual_seed(0)
    (dropped,) = network.copy().set_training_(True).run({"x": torch.ones(2000, 4, 5, 2)})
    assert set(np.round(dropped.unique().tolist(), 4)) == {0.0, round(1 / 0.75, 4)}
    assert dropped.mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("opset", [7, 10, 13])
def test_the_mask_of_inference_is_all_true(opset: int) -> None:
    proto = one("Dropout", [X], opset, outputs=2)
    y, mask = eager(proto, X)
    np.testing.assert_array_equal(y, X)
    assert (mask.dtype, mask.shape, mask.all()) == (np.dtype("f4" if opset < 10 else "?"), X.shape, True)


def test_training_mode_draws_the_mask_of_the_reference() -> None:
    arrays = [X, np.array(0.25, "f4"), np.array(True)]
    proto = one("Dropout", arrays, 13, outputs=2, seed=3)
    for value in proto.graph.output:
        value.type.tensor_type.elem_type = 1 if value.name == "y0" else 9
    ours = eager(proto, *arrays)
    theirs = ReferenceEvaluator(proto).run(None, {f"x{i}": array for i, array in enumerate(arrays)})
    np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    assert 0.6 < ours[1].mean() < 0.9


def test_gelu_is_x_times_the_normal_distribution() -> None:
    x = np.linspace(-4, 4, 33)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(eager(one("Gelu", [x]), x)[0], expected, atol=1e-12)


def test_in_half_precision() -> None:
    x = X.astype("f2")
    for kind in ("Relu", "LeakyRelu", "Softmax"):
        proto = one(kind, [x], 13)
        proto.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(x.dtype)
        (ours,), (theirs,) = eager(proto, x), in_onnx_runtime(proto, x)
        assert ours.dtype == np.float16
        assert relative_error(ours, theirs) < 1e-2
