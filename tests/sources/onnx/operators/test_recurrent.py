"""Recurrent layers against ONNX Runtime: torch's operator for the usual forms, a loop for the others."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.runtimes.onnx_file import write_onnx
from slimline.sources.onnx.network import from_onnx
from tests.sources.onnx.models import assert_same, check_eager, check_traced, eager, in_onnx_runtime, model, write

RNG = np.random.default_rng(0)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6
ATEN = {"LSTM": "aten.lstm.input", "GRU": "aten.gru.input", "RNN": "aten.rnn_tanh.input"}


def weights(kind: str, directions: int) -> dict[str, np.ndarray]:
    rows = GATES[kind] * HIDDEN
    shapes = {"w": (directions, rows, FEATURES), "r": (directions, rows, HIDDEN), "b": (directions, 2 * rows)}
    return {name: (RNG.standard_normal(shape) * 0.4).astype("f4") for name, shape in shapes.items()}


def layer(
    kind: str,
    direction: str = "forward",
    extra: dict[str, np.ndarray] | None = None,
    biased: bool = True,
    **attributes: Any,
) -> onnx.ModelProto:
    """One layer on the input x (time, batch, features); ``extra`` holds lens, h, c or p as constants."""
    stored = weights(kind, 2 if direction == "bidirectional" else 1)
    stored |= extra or {}
    if not biased:
        del stored["b"]
    names = ["x", *(name if name in stored else "" for name in ("w", "r", "b", "lens", "h", "c", "p"))]
    while not names[-1]:
        names.pop()
    outputs = ["y", "yh", "yc"] if kind == "LSTM" else ["y", "yh"]
    node = helper.make_node(kind, names, outputs, direction=direction, hidden_size=HIDDEN, **attributes)
    return model([node], {"x": [STEPS, "batch", FEATURES]}, outputs, stored, opset=17)


def sequences() -> np.ndarray:
    return RNG.standard_normal((STEPS, BATCH, FEATURES)).astype("f4")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("biased", [True, False])
def test_directions(kind: str, direction: str, biased: bool) -> None:
    check_eager(layer(kind, direction, biased=biased), sequences())


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_initial_states(kind: str) -> None:
    shape = (2, BATCH, HIDDEN)
    extra = {"h": RNG.standard_normal(shape).astype("f4")}
    if kind == "LSTM":
        extra["c"] = RNG.standard_normal(shape).astype("f4")
    check_eager(layer(kind, "bidirectional", extra), sequences())
    if kind == "GRU":
        check_eager(layer(kind, "bidirectional", extra, linear_before_reset=1), sequences())


def test_peepholes() -> None:
    extra = {"p": (RNG.standard_normal((2, 3 * HIDDEN)) * 0.5).astype("f4")}
    check_eager(layer("LSTM", "bidirectional", extra), sequences())


def test_what_changes_nothing_keeps_the_usual_form(tmp_path: Path) -> None:
    """Peepholes of zeros, and lengths that are all that of the sequence."""
    extra = {"p": np.zeros((1, 3 * HIDDEN), "f4"), "lens": np.full(BATCH, STEPS, "i4")}
    network = from_onnx(write(batch_first("LSTM", "forward", extra), tmp_path))
    found = [str(n.target) for n in network.module.graph.nodes if n.op == "call_function"]
    assert "aten.lstm.input" in found
    x = sequences().swapaxes(0, 1).copy()
    ours = network.run({"input": torch.from_numpy(x)})
    assert_same([y.numpy() for y in ours], in_onnx_runtime(tmp_path / "model.onnx", x))


def test_coupled_gates() -> None:
    check_eager(layer("LSTM", "forward", input_forget=1), sequences())


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_clipping(kind: str) -> None:
    check_eager(layer(kind, "forward", clip=0.3), sequences())


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lengths_per_sample(kind: str, direction: str) -> None:
    check_eager(layer(kind, direction, {"lens": np.array([5, 2, 3], "i4")}), sequences())


@pytest.mark.parametrize(
    ("kind", "activations", "alpha", "beta"),
    [
        ("RNN", ["Relu"], [], []),
        ("RNN", ["LeakyRelu"], [0.2], []),
        ("RNN", ["ThresholdedRelu"], [0.3], []),
        ("RNN", ["Softsign"], [], []),
        ("RNN", ["Softplus"], [], []),
        ("RNN", ["Elu"], [0.7], []),
        ("RNN", ["ScaledTanh"], [0.9], [0.8]),
        ("RNN", ["Affine"], [0.5], [0.1]),
        ("GRU", ["HardSigmoid", "Relu"], [0.25], [0.4]),
        ("LSTM", ["HardSigmoid", "Tanh", "Softsign"], [0.25], [0.4]),
    ],
)
def test_activations(kind: str, activations: list[str], alpha: list[float], beta: list[float]) -> None:
    # ONNX Runtime wants one alpha and one beta per activation as soon as there is one.
    attributes: dict[str, Any] = {"activations": activations}
    attributes |= {"activation_alpha": alpha} if alpha else {}
    attributes |= {"activation_beta": beta} if beta else {}
    check_eager(layer(kind, "forward", **attributes), sequences())


def batch_first(
    kind: str, direction: str, extra: dict[str, np.ndarray] | None = None, **attributes: Any
) -> onnx.ModelProto:
    """How exporters write a layer whose input has the batch first: a Transpose before it and one behind it."""
    inner = layer(kind, direction, extra, **attributes)
    directions = 2 if direction == "bidirectional" else 1
    nodes = [
        helper.make_node("Transpose", ["input"], ["x"], perm=[1, 0, 2]),
        *inner.graph.node,
        helper.make_node("Transpose", ["y"], ["turned"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["turned", "shape"], ["out"]),
    ]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in inner.graph.initializer}
    stored["shape"] = np.array([0, 0, directions * HIDDEN])
    return model(nodes, {"input": ["batch", STEPS, FEATURES]}, ["out"], stored, opset=17)


def traced(proto: onnx.ModelProto, folder: Path) -> list[str]:
    """Operators of the traced network, which has been compared with ONNX Runtime at batch 1 and 3."""
    network = check_traced(proto, folder, sequences().swapaxes(0, 1).copy())
    return [str(n.target) for n in network.module.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize(
    ("kind", "direction"), [("LSTM", "bidirectional"), ("GRU", "bidirectional"), ("RNN", "reverse")]
)
def test_the_usual_form_is_torchs_operator(kind: str, direction: str, tmp_path: Path) -> None:
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    assert ATEN[kind] in traced(batch_first(kind, direction, **attributes), tmp_path)


def test_a_gru_that_resets_first_is_unrolled(tmp_path: Path) -> None:
    assert "aten.gru.input" not in traced(batch_first("GRU", "forward"), tmp_path)


def test_states_stored_for_one_sample_serve_every_batch(tmp_path: Path) -> None:
    """Exporters that are given one sample store its initial state, mostly zeros."""
    extra = {"h": np.zeros((1, 1, HIDDEN), "f4"), "c": np.full((1, 1, HIDDEN), 0.5, "f4")}
    network = from_onnx(write(batch_first("LSTM", "forward", extra), tmp_path))
    x = sequences().swapaxes(0, 1).copy()
    (ours,) = network.run({"input": torch.from_numpy(x)})
    one_by_one = [in_onnx_runtime(tmp_path / "model.onnx", x[i : i + 1])[0] for i in range(BATCH)]
    assert_same([ours.numpy()], [np.concatenate(one_by_one)])


def test_an_lstm_goes_out_as_one_operator(tmp_path: Path) -> None:
    network = from_onnx(write(batch_first("LSTM", "bidirectional"), tmp_path))
    write_onnx(network, tmp_path / "out.onnx")
    assert [n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node].count("LSTM") == 1
    x = sequences().swapaxes(0, 1).copy()
    for batch in (1, 3):
        theirs = in_onnx_runtime(tmp_path / "model.onnx", x[:batch])
        assert_same(in_onnx_runtime(tmp_path / "out.onnx", x[:batch]), theirs)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("clip", [{}, {"clip": 50.0}])
def test_layout_with_the_batch_first(kind: str, clip: dict[str, float], tmp_path: Path) -> None:
    """ONNX Runtime lacks it; the same layer between transposes is what it is compared with."""
    shape = (BATCH, 2, HIDDEN)
    states = {name: RNG.standard_normal(shape).astype("f4") for name in (("h", "c") if kind == "LSTM" else ("h",))}
    proto = layer(kind, "bidirectional", {name: s.swapaxes(0, 1).copy() for name, s in states.items()}, **clip)
    x = sequences()
    y, *last = in_onnx_runtime(proto, x)
    proto.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    for tensor in proto.graph.initializer:
        if tensor.name in states:
            tensor.CopyFrom(onnx.numpy_helper.from_array(states[tensor.name], tensor.name))
    shape_of_x = proto.graph.input[0].type.tensor_type.shape
    del shape_of_x.dim[:]
    for size in ("batch", STEPS, FEATURES):
        shape_of_x.dim.add(**({"dim_param": size} if isinstance(size, str) else {"dim_value": size}))
    path = write(proto, tmp_path)
    found = eager(onnx.load(path), x.swapaxes(0, 1).copy())
    assert_same(found, [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in last)])
