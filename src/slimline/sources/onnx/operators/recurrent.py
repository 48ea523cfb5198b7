"""LSTM, GRU and RNN: torch's own operator for the usual forms, a loop over time steps for the others.

The usual form has the default activations and no clipping, peepholes, coupled gates or lengths per sample; a GRU also
has ``linear_before_reset``, which is how torch defines it. `slimline.sources.onnx.operators.cells` has the equations.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.cells import DEFAULTS, Cell, gru_step, lstm_step, rnn_step, unroll
from slimline.sources.onnx.operators.control_flow import check_steps, fixed
from slimline.sources.onnx.operators.table import operator, optional
from slimline.sources.onnx.values import Known, Value, tensor

TORCH_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where each of torch's gates stands among those of ONNX: ifgo in iofc, rzn in zrh."""
STEPS = {"LSTM": lstm_step, "GRU": gru_step, "RNN": rnn_step}


@operator("LSTM", raw=True)
def lstm(node: OnnxNode, _: Any, x: Value, w: Value, r: Value, *rest: Value) -> tuple[Tensor, ...]:
    """Long short-term memory; returns all hidden states, the last one, and the last cell state."""
    b, lengths, h, c, peepholes = (optional(rest, position) for position in range(5))
    return recurrent(node, _tensor(x), (w, r, b), lengths, [h, c], peepholes)


@operator("GRU", "RNN", raw=True)
def gru_or_rnn(node: OnnxNode, _: Any, x: Value, w: Value, r: Value, *rest: Value) -> tuple[Tensor, ...]:
    """Gated recurrent unit, or a plain recurrent layer; returns all hidden states and the last one."""
    b, lengths, h = (optional(rest, position) for position in range(3))
    return recurrent(node, _tensor(x), (w, r, b), lengths, [h])


def recurrent(
    node: OnnxNode,
    x: Tensor,
    weights: tuple[Value, Value, Value],
    lengths: Value,
    given: Sequence[Value],
    peepholes: Value = None,
) -> tuple[Tensor, ...]:
    """Any of the three layers in all its forms.

    Args:
        weights: of the input, of the hidden state, and biases; the first axis is the direction.
        given: initial states, or None.
    """
    batch_first = bool(node.get("layout", 0))
    w, r, b = _tensor(weights[0]), _tensor(weights[1]), tensor(weights[2])
    shape = (w.shape[0], x.shape[0 if batch_first else 1], r.shape[-1])
    states = [_state(value, shape, x, batch_first) for value in given]
    lengths = _without_full(lengths, x.shape[1 if batch_first else 0])
    peepholes = None if isinstance(peepholes, Known) and not peepholes.array.any() else peepholes
    if lengths is None and peepholes is None and is_usual(node, w.shape[0]):
        y, *last = fused(node, x, w, r, b, states)
    else:
        sequence = x.transpose(0, 1) if batch_first else x
        cells = [
            Cell(node, direction, w[direction], r[direction], _part(b, direction), _part(tensor(peepholes), direction))
            for direction in range(w.shape[0])
        ]
        y, *last = unrolled(node, sequence, cells, tensor(lengths), states)
        y = y.transpose(0, 1) if batch_first else y
    y = torch.unflatten(y, 2, (shape[0], shape[2]))
    y = y if batch_first else y.transpose(1, 2)
    return (y, *(state.transpose(0, 1) if batch_first else state for state in last))


def is_usual(node: OnnxNode, directions: int) -> bool:
    """Whether torch has the form of a node that has no peepholes and no lengths."""
    defaults = [name.lower() for name in DEFAULTS[node.kind]] * directions
    names = [name.lower() for name in node.get("activations") or defaults][: len(defaults)]
    same = names == defaults or (node.kind == "RNN" and set(names) == {"relu"})
    reset_first = node.kind == "GRU" and not node.get("linear_before_reset", 0)
    return same and not reset_first and not node.get("clip", 0) and not node.get("input_forget", 0)


def fused(
    node: OnnxNode, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, states: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """One call of torch's operator; states and last states are (directions, batch, hidden)."""
    batch_first, directions = bool(node.get("layout", 0)), w.shape[0]
    backwards = node.get("direction", "forward") == "reverse"
    parameters = []
    for direction in range(directions):
        parts = [w[direction], r[direction]] + ([] if b is None else list(b[direction].chunk(2)))
        parameters += [reorder(part, node.kind) for part in parts]
    rest = (parameters, b is not None, 1, 0.0, False, directions == 2, batch_first)  # noqa: PLR2004
    time = 1 if batch_first else 0
    x = x.flip(time) if backwards else x
    if node.kind == "LSTM":
        y, *last = torch.lstm(x, list(states), *rest)
    elif node.kind == "GRU":
        y, *last = torch.gru(x, states[0], *rest)
    else:
        relu = (node.get("activations") or ["Tanh"])[0].lower() == "relu"
        y, *last = (torch.rnn_relu if relu else torch.rnn_tanh)(x, states[0], *rest)
    return (y.flip(time) if backwards else y, *last)


def reorder(weight: Tensor, kind: str) -> Tensor:
    """Rows of a weight or bias with their gates in torch's order."""
    order = TORCH_ORDER[kind]
    size = weight.shape[0] // len(order)
    runs: list[list[int]] = []
    for gate in order:  # neighbours that stay neighbours are one slice
        if runs and runs[-1][1] == gate:
            runs[-1][1] = gate + 1
        else:
            runs.append([gate, gate + 1])
    if len(runs) == 1:
        return weight
    return torch.cat([weight[first * size : end * size] for first, end in runs])


def unrolled(
    node: OnnxNode, x: Tensor, cells: Sequence[Cell], lengths: Tensor | None, states: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """One step after the other, for each direction; x is (time, batch, features)."""
    check_steps(fixed(x.shape[0]))
    outputs, last = [], []
    for cell in cells:
        backwards = cell.direction == 1 or node.get("direction", "forward") == "reverse"
        first = tuple(state[cell.direction] for state in states)
        y, final = unroll(cell, STEPS[node.kind], x, first, lengths, backwards)
        outputs.append(y)
        last.append(final)
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
    return (y, *(torch.stack(group) for group in zip(*last, strict=True)))


def _state(value: Value, shape: tuple[int, ...], x: Tensor, batch_first: bool) -> Tensor:
    """An initial state as (directions, batch, hidden); one that is stored for a fixed batch serves every batch."""
    if value is None or (isinstance(value, Known) and not value.array.any()):
        return x.new_zeros(shape)
    state = _tensor(value)
    state = state.transpose(0, 1) if batch_first else state
    return state.expand(shape) if isinstance(value, Known) and state.shape[1] == 1 else state


def _without_full(lengths: Value, steps: Any) -> Value:
    """None when every sample is as long as the whole sequence."""
    whole = isinstance(lengths, Known) and isinstance(steps, int) and all(n == steps for n in lengths.array.reshape(-1))
    return None if whole else lengths


def _part(values: Tensor | None, direction: int) -> Tensor | None:
    return None if values is None else values[direction]


def _tensor(value: Value) -> Tensor:
    result = tensor(value)
    assert result is not None
    return result
