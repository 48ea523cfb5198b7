"""One time step of LSTM, GRU and RNN as ONNX defines them, with every option, and the loop over steps.

The names are those of the ONNX definition: gates i, o, f, c (LSTM) and z, r, h (GRU); activations f, g and h.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode

Activation = Callable[[Tensor], Tensor]
States = tuple[Tensor, ...]
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
PLAIN: dict[str, Activation] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softplus": F.softplus,
}
"""Activations without parameters."""
PARAMETERS = {
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}
"""alpha and beta of the others when a node leaves them out; None where there is no beta."""


@dataclass(frozen=True)
class Cell:
    """The weights of one direction and what its node says about them."""

    node: OnnxNode
    direction: int
    w: Tensor
    """(gates x hidden, features)"""
    r: Tensor
    """(gates x hidden, hidden)"""
    b: Tensor | None = None
    """Biases of the input product, then those of the hidden product."""
    p: Tensor | None = None
    """Peepholes of the gates i, o and f."""

    def biases(self) -> tuple[Tensor | None, Tensor | None]:
        if self.b is None:
            return None, None
        of_input, of_hidden = self.b.chunk(2)
        return of_input, of_hidden

    def clip(self, x: Tensor) -> Tensor:
        limit = self.node.get("clip", 0.0)
        return x.clamp(-limit, limit) if limit else x

    def activations(self) -> list[Activation]:
        """The functions of this direction in the order f, g, h."""
        defaults = DEFAULTS[self.node.kind]
        names = self.node.get("activations") or list(defaults) * (self.direction + 1)
        alphas, betas = iter(self.node.get("activation_alpha", [])), iter(self.node.get("activation_beta", []))
        functions = [activation(name.lower(), alphas, betas) for name in names]
        first = self.direction * len(defaults)
        return functions[first : first + len(defaults)]


def activation(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    """The function of a name, which takes its parameters, where it has any, from those that are left.

    Raises:
        SlimlineError: ONNX has no such activation.
    """
    if name in PLAIN:
        return PLAIN[name]
    if name not in PARAMETERS:
        raise SlimlineError(f"the activation {name!r} is not known.")
    default_alpha, default_beta = PARAMETERS[name]
    alpha = next(alphas, default_alpha)
    beta = 0.0 if default_beta is None else next(betas, default_beta)
    return {
        "affine": lambda x: alpha * x + beta,
        "leakyrelu": lambda x: F.leaky_relu(x, alpha),
        "thresholdedrelu": lambda x: torch.where(x >= alpha, x, torch.zeros_like(x)),
        "scaledtanh": lambda x: alpha * torch.tanh(beta * x),
        "hardsigmoid": lambda x: (alpha * x + beta).clamp(0, 1),
        "elu": lambda x: F.elu(x, alpha),
    }[name]


def lstm_step(cell: Cell, x: Tensor, states: States) -> States:
    """From the product of one time step's input and the states (H, C) to the next states."""
    hidden, memory = states
    f, g, h = cell.activations()
    i_sum, o_sum, f_sum, c_sum = (x + F.linear(hidden, cell.r, cell.biases()[1])).chunk(4, -1)
    p_i, p_o, p_f = (None, None, None) if cell.p is None else cell.p.chunk(3)
    i_sum = i_sum if p_i is None else i_sum + p_i * memory
    f_sum = f_sum if p_f is None else f_sum + p_f * memory
    i_gate = f(cell.clip(i_sum))
    f_gate = 1 - i_gate if cell.node.get("input_forget", 0) else f(cell.clip(f_sum))
    memory = f_gate * memory + i_gate * g(cell.clip(c_sum))
    o_sum = o_sum if p_o is None else o_sum + p_o * memory
    return f(cell.clip(o_sum)) * h(memory), memory


def gru_step(cell: Cell, x: Tensor, states: States) -> States:
    """From the product of one time step's input and the state (H,) to the next state."""
    (hidden,) = states
    f, g = cell.activations()
    size = hidden.shape[-1]
    of_hidden = cell.biases()[1]
    bias_zr, bias_h = (None, None) if of_hidden is None else (of_hidden[: 2 * size], of_hidden[2 * size :])
    gates = x[..., : 2 * size] + F.linear(hidden, cell.r[: 2 * size], bias_zr)
    z, r = f(cell.clip(gates)).chunk(2, -1)
    if cell.node.get("linear_before_reset", 0):
        product = r * F.linear(hidden, cell.r[2 * size :], bias_h)
    else:
        product = F.linear(r * hidden, cell.r[2 * size :], bias_h)
    candidate = g(cell.clip(x[..., 2 * size :] + product))
    return ((1 - z) * candidate + z * hidden,)


def rnn_step(cell: Cell, x: Tensor, states: States) -> States:
    """From the product of one time step's input and the state (H,) to the next state."""
    (hidden,) = states
    (f,) = cell.activations()
    return (f(cell.clip(x + F.linear(hidden, cell.r, cell.biases()[1]))),)


def unroll(
    cell: Cell,
    step: Callable[[Cell, Tensor, States], States],
    x: Tensor,
    states: States,
    lengths: Tensor | None,
    backwards: bool,
) -> tuple[Tensor, States]:
    """All steps in order, or in reverse.

    Args:
        x: (time, batch, features).
        lengths: steps of each sample; behind them the output is 0 and the state stays as it is.

    Returns:
        Hidden states (time, batch, hidden), and the last states.
    """
    products = F.linear(x, cell.w, cell.biases()[0])
    order: Sequence[int] = range(x.shape[0])
    outputs: dict[int, Tensor] = {}
    for t in reversed(order) if backwards else order:
        new = step(cell, products[t], states)
        if lengths is not None:
            inside = (t < lengths)[:, None]
            states = tuple(torch.where(inside, after, before) for after, before in zip(new, states, strict=True))
            outputs[t] = torch.where(inside, new[0], torch.zeros_like(new[0]))
        else:
            states = new
            outputs[t] = new[0]
    return torch.stack([outputs[t] for t in order]), states
