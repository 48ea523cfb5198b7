"""What a tracker shows of a network while it trains."""

from collections.abc import Mapping

import torch
from torch import Tensor

from slimline.network.network import Network
from slimline.network.shapes import recorded

HISTOGRAM_SAMPLES = 64
LAYERS = (
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.linear.default,
    torch.ops.aten.matmul.default,
)
"""Operators whose results are drawn."""


def sparsity(network: Network) -> float:
    """The share of zeros among the weights of two or more axes; 0 when there are none."""
    weights = [w for w in network.module.parameters() if w.ndim > 1]
    zeros = sum(w.numel() - int(torch.count_nonzero(w)) for w in weights)
    return zeros / max(1, sum(w.numel() for w in weights))


def weight_histograms(network: Network) -> dict[str, Tensor]:
    """The weights by the names under which a tracker draws them."""
    return {f"weights/{n}": w for n, w in network.weights().items() if w.is_floating_point() and w.ndim > 1}


def activation_histograms(network: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What every layer answers to a batch, by the names under which a tracker draws it."""
    given = (inputs[name] for name in network.input_names)
    answers = recorded(network, given, lambda node, value: value if node.target in LAYERS else None)
    return {f"activations/{name}": value for name, value in answers.items()}
