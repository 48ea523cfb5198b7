"""The layers that read a channel as one factor of a sum of products, and the second moments of what they read.

    y = W x + b,   H = sum over rows of [x; 1] [x; 1]^T        one row per sample and output position

A convolution reads patches: its x holds the values under the kernel, channel by channel, in the order of
`torch.nn.functional.unfold`. Importance and reconstruction work on such rows and need not know convolutions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.nn import functional as F

from slimline.network.axes import Group
from slimline.network.network import Network, get_tensor
from slimline.task import Samples

BATCH = 32
MOST_INPUTS = 8192
"""Values under one kernel; the moments of a layer with more would take over half a gigabyte."""
MOST_ROWS = 2**18
"""Rows of one layer that are looked at, spread evenly over the samples and positions."""
LARGEST_MEMORY = 2**30
"""Bytes of moments that are held at once."""
CONVOLUTIONS = {torch.ops.aten.conv1d.default: 1, torch.ops.aten.conv2d.default: 2}


@dataclass(frozen=True)
class Reader:
    """A dense layer: a linear one, or a convolution in one or two dimensions without groups."""

    weight: str
    """Name of a weight of shape (outputs, channels, *kernel)."""
    bias: str | None
    calls: tuple[Node, ...]
    """A weight that is used several times has several."""

    def matrix(self, network: Network) -> Tensor:
        """[W, b] in float64, (outputs, inputs + 1); b is zero where the layer has none."""
        weight = get_tensor(network.module, self.weight).detach().double().flatten(1)
        bias = weight.new_zeros(len(weight)) if self.bias is None else get_tensor(network.module, self.bias).detach()
        return torch.cat([weight, bias.double()[:, None]], 1)

    def set_matrix_(self, network: Network, matrix: Tensor) -> None:
        """Write [W, b] into the layer of ``network``; edits it."""
        weight = get_tensor(network.module, self.weight)
        with torch.no_grad():
            weight.copy_(matrix[:, :-1].reshape(weight.shape))
            if self.bias is not None:
                get_tensor(network.module, self.bias).copy_(matrix[:, -1])


def readers(network: Network) -> dict[str, Reader]:
    """The dense layers of a network by the name of their weight, in the order of the graph."""
    found: dict[str, Reader] = {}
    elsewhere = set()
    for node in network.module.graph.nodes:
        weight = _dense_weight(node)
        if weight is None or get_tensor(network.module, weight)[0].numel() > MOST_INPUTS:
            elsewhere |= {str(a.target) for a in node.all_input_nodes if a.op == "get_attr"}
            continue
        calls = (*found[weight].calls, node) if weight in found else (node,)
        found[weight] = Reader(weight, _stored(node, 2), calls)
        elsewhere |= {bias for call in calls if (bias := _stored(call, 2)) not in (None, found[weight].bias)}
    shared = [r.bias for r in found.values() if r.bias is not None]
    elsewhere |= {bias for bias in shared if shared.count(bias) > 1}
    return {w: r for w, r in found.items() if w not in elsewhere and r.bias not in elsewhere}


def _dense_weight(node: Node) -> str | None:
    """Name of the weight of a linear layer or of a convolution without groups, whose bias is stored or absent."""
    if node.target is not torch.ops.aten.linear.default and node.target not in CONVOLUTIONS:
        return None
    if len(node.args) > 2 and node.args[2] is not None and _stored(node, 2) is None:
        return None
    grouped = node.target in CONVOLUTIONS and len(node.args) > 6 and node.args[6] != 1
    return None if grouped else _stored(node, 1)


def _stored(node: Node, place: int) -> str | None:
    value = node.args[place] if len(node.args) > place else None
    return str(value.target) if isinstance(value, Node) and value.op == "get_attr" else None


def rows_of(node: Node, x: Tensor, weight: Tensor) -> Tensor:
    """[x; 1] of one call in float32, (rows, inputs + 1).

    Args:
        x: what the layer reads, (samples, channels, *positions) for a convolution, else (..., channels).
        weight: the layer's, as it is in the network that computed ``x``.
    """
    dimensions = CONVOLUTIONS.get(node.target, 0)  # type: ignore[call-overload]
    if dimensions:
        stride, padding, dilation = (_pair(node, place, default) for place, default in ((3, 1), (4, 0), (5, 1)))
        if dimensions == 1:
            x, weight = x[:, :, None], weight[:, :, None]
        kernel = (int(weight.shape[2]), int(weight.shape[3]))
        if kernel == (1, 1) and padding == (0, 0):
            x = x[:, :, :: stride[0], :: stride[1]].flatten(2).transpose(1, 2)
        else:
            x = F.unfold(x, kernel, dilation, padding, stride).transpose(1, 2)
    x = x.reshape(-1, x.shape[-1]).float()
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


def _pair(node: Node, place: int, default: int) -> tuple[int, int]:
    """A hyperparameter of a convolution as (height, width); that of one dimension becomes its width."""
    value = node.args[place] if len(node.args) > place else [default]
    values = [int(v) for v in value]  # type: ignore[union-attr, arg-type]
    if CONVOLUTIONS[node.target] == 1:  # type: ignore[index]
        return (default, values[0])
    return (values[0], values[-1])


def spread(rows: int, most: int) -> slice:
    """Every so manieth row, so that at most ``most`` are left."""
    return slice(None, None, -(-rows // most) if rows else 1)


def batches(network: Network, samples: Samples) -> Iterator[tuple[Tensor, ...]]:
    """Inputs in the order of the network, a batch at a time."""
    for start in range(0, len(samples), BATCH):
        inputs = samples.take(slice(start, start + BATCH)).tensors()
        yield tuple(inputs[name] for name in network.input_names)


def second_moments(network: Network, weights: set[str], samples: Samples) -> dict[str, Tensor]:
    """H of the layers with these weights, float64 (inputs + 1, inputs + 1), summed over all their calls."""
    network = network.copy().set_training_(False)
    watcher = _Watcher(network, weights, MOST_ROWS // max(1, -(-len(samples) // BATCH)))
    with torch.no_grad():
        for inputs in batches(network, samples):
            watcher.run(*inputs)
    return watcher.moments


def moments_in_turns(
    network: Network, weights: Mapping[str, Sequence[str]], samples: Samples
) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
    """Names with the moments of the layers they stand for; they take turns where all would not fit into memory.

    Args:
        weights: by name, such as that of a group, the weights of layers.
    """
    turn, room = list[str](), LARGEST_MEMORY
    for name, wanted in weights.items():
        size = sum(8 * (get_tensor(network.module, w)[0].numel() + 1) ** 2 for w in wanted)
        if turn and size > room:
            yield turn, second_moments(network, {w for n in turn for w in weights[n]}, samples)
            turn, room = [], LARGEST_MEMORY
        turn.append(name)
        room -= size
    if turn:
        yield turn, second_moments(network, {w for n in turn for w in weights[n]}, samples)


def read_by(group: Group, dense: Mapping[str, Reader]) -> list[str]:
    """Weights of the dense layers that read a group."""
    return [weight for weight, axis in group.slices if axis == 1 and weight in dense]


class _Watcher(Interpreter):
    def __init__(self, network: Network, weights: set[str], most_rows: int) -> None:
        super().__init__(network.module)
        found = readers(network)
        self.calls = {call.name: found[w] for w in sorted(weights) for call in found[w].calls}
        self.moments: dict[str, Tensor] = {}
        self.most_rows = most_rows

    def run_node(self, n: Node) -> object:
        reader = self.calls.get(n.name)
        if reader is not None:
            (x, weight, *_), _ = self.fetch_args_kwargs_from_env(n)
            rows = rows_of(n, x, weight)
            rows = rows[spread(len(rows), self.most_rows)]
            moments = (rows.T @ rows).double()
            self.moments[reader.weight] = self.moments.get(reader.weight, torch.zeros_like(moments)) + moments
        return super().run_node(n)
