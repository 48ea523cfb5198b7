"""One step of each cell against its equation, written out with numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.cells import Cell, activation, gru_step, lstm_step, rnn_step, unroll

HIDDEN, BATCH = 3, 2


def cell(kind: str, gates: int, **attributes: object) -> Cell:
    node = OnnxNode(kind, "", (), (), attributes)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rows = gates * HIDDEN
    return Cell(node, 0, normal(rows, HIDDEN), normal(rows, HIDDEN), normal(2 * rows), normal(3 * HIDDEN))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_lstm() -> None:
    c = cell("LSTM", 4)
    x, h, memory = torch.randn(BATCH, 4 * HIDDEN), torch.randn(BATCH, HIDDEN), torch.randn(BATCH, HIDDEN)
    sums = x.numpy() + h.numpy() @ c.r.numpy().T + c.b.numpy()[4 * HIDDEN :]
    i, o, f, g = np.split(sums, 4, 1)
    p_i, p_o, p_f = np.split(c.p.numpy(), 3)
    new = sigmoid(f + p_f * memory.numpy()) * memory.numpy() + sigmoid(i + p_i * memory.numpy()) * np.tanh(g)
    hidden, state = lstm_step(c, x, (h, memory))
    np.testing.assert_allclose(state.numpy(), new, rtol=1e-5)
    np.testing.assert_allclose(hidden.numpy(), sigmoid(o + p_o * new) * np.tanh(new), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("before_reset", [0, 1])
def test_gru(before_reset: int) -> None:
    c = cell("GRU", 3, linear_before_reset=before_reset)
    x, h = torch.randn(BATCH, 3 * HIDDEN), torch.randn(BATCH, HIDDEN)
    weights, biases = np.split(c.r.numpy(), 3), np.split(c.b.numpy()[3 * HIDDEN :], 3)
    of_z, of_r, of_h = np.split(x.numpy(), 3, 1)
    z = sigmoid(of_z + h.numpy() @ weights[0].T + biases[0])
    r = sigmoid(of_r + h.numpy() @ weights[1].T + biases[1])
    if before_reset:
        candidate = np.tanh(of_h + r * (h.numpy() @ weights[2].T + biases[2]))
    else:
        candidate = np.tanh(of_h + (r * h.numpy()) @ weights[2].T + biases[2])
    (found,) = gru_step(c, x, (h,))
    np.testing.assert_allclose(found.numpy(), (1 - z) * candidate + z * h.numpy(), rtol=1e-5, atol=1e-6)


def test_rnn_in_a_loop_stops_at_the_length_of_each_sample() -> None:
    c = cell("RNN", 1)
    x, h = torch.randn(4, BATCH, HIDDEN), torch.zeros(BATCH, HIDDEN)
    y, (last,) = unroll(c, rnn_step, x, (h,), torch.tensor([4, 1]), backwards=False)
    single, (end,) = unroll(c, rnn_step, x[:1, 1:], (h[1:],), None, backwards=False)
    np.testing.assert_allclose(last[1].numpy(), end[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(y[0, 1].numpy(), single[0, 0].numpy(), rtol=1e-5)
    assert not y[1:, 1].any()


def test_parameters_are_taken_in_the_order_of_the_functions_that_have_them() -> None:
    node = OnnxNode(
        "LSTM",
        "",
        (),
        (),
        {"activations": ["HardSigmoid", "Tanh", "Elu"], "activation_alpha": [0.5, 2.0], "activation_beta": [0.25]},
    )
    hard, tanh, elu = Cell(node, 0, torch.zeros(0), torch.zeros(0)).activations()
    x = torch.tensor([0.5, -1.0])
    assert hard(x).tolist() == [0.5, 0.0]
    assert tanh(x).tolist() == torch.tanh(x).tolist()
    assert elu(x).tolist() == pytest.approx([0.5, 2 * (np.exp(-1) - 1)])


def test_an_activation_that_onnx_lacks() -> None:
    with pytest.raises(SlimlineError, match="'mish' is not known"):
        activation("mish", iter(()), iter(()))
