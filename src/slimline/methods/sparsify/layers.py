"""The weights that may become zero, as matrices of (outputs, inputs), and why the others may not.

The inputs of a convolution are its channels, under one place of the kernel after the other: a pattern of consecutive
inputs lies along the channels, which is where a processor reads several numbers at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.method import check_names
from slimline.methods.readers import readers
from slimline.methods.sparsify.patterns import Pattern
from slimline.network.calls import argument, called
from slimline.network.network import Network, get_tensor
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED
from slimline.training import keep_zeros

aten = torch.ops.aten
PLAIN = {aten.linear.default} | CONVOLUTIONS.keys()
"""Their weight is (outputs, inputs, *kernel); that of a product with a stored matrix on its right is turned."""
PRODUCTS = {aten.matmul.default, aten.mm.default}
GROUPS = 6
"""Place of the number of groups among the arguments of a transposed convolution."""


@dataclass(frozen=True)
class Layer:
    """A convolution, a linear layer or a product with a stored matrix."""

    weight: str
    transposed: bool = False
    """The weight is (inputs, outputs, ...)."""

    @property
    def name(self) -> str:
        """Of the layer in reports."""
        return self.weight.removesuffix(".weight")

    def matrix(self, weight: Tensor) -> Tensor:
        """A weight, or scores of its shape, as (outputs, places of the kernel * inputs)."""
        rows = weight.transpose(0, 1) if self.transposed else weight
        return rows.movedim(1, -1).flatten(1)

    def unmatrix(self, matrix: Tensor, like: Tensor) -> Tensor:
        """What `matrix` made, or a mask of it, in the shape of the weight ``like``."""
        shape = self.matrix_shape(like)
        rows = matrix.view(shape[0], *like.shape[2:], shape[1]).movedim(-1, 1)
        return rows.transpose(0, 1) if self.transposed else rows

    def matrix_shape(self, weight: Tensor) -> tuple[int, int]:
        """Outputs, and inputs under one place of the kernel."""
        first, second = int(weight.shape[0]), int(weight.shape[1])
        return (second, first) if self.transposed else (first, second)

    def stored(self, network: Network) -> Tensor:
        """The weight itself, as a matrix."""
        return self.matrix(get_tensor(network.module, self.weight).detach())


def zero_(network: Network, masks: Mapping[Layer, Tensor]) -> list[str]:
    """Make weights zero; edits the network and names the layers that have such weights.

    Args:
        masks: (outputs, places of the kernel * inputs), true for the weights that become zero.
    """
    weights = network.weights()
    keep_zeros.zero_(network, {x.weight: x.unmatrix(mask, weights[x.weight]) for x, mask in masks.items()})
    return [layer.name for layer, mask in masks.items() if bool(mask.any())]


def layers(network: Network, pattern: Pattern, skip: Sequence[str] = ()) -> tuple[list[Layer], dict[str, str]]:
    """The layers whose weights may become zero in a pattern, in the order of the graph, and why others may not.

    Args:
        skip: names of layers that are left alone.

    Raises:
        SlimlineError: a name in ``skip`` that is no layer's.
    """
    users: dict[str, list[tuple[Node, Node]]] = {}
    for node in network.module.graph.nodes:
        if node.op == "get_attr" and _is_matrix(get_tensor(network.module, str(node.target))):
            users.setdefault(str(node.target), []).extend((node, user) for user in node.users)
    found, reasons = [], {}
    for weight, calls in users.items():
        layer = Layer(weight, any(call.target not in PLAIN for _, call in calls))
        tensor = get_tensor(network.module, weight)
        why = unsupported(tensor.ndim, calls) or pattern.unsuited(*layer.matrix_shape(tensor))
        why = why or (["is named in skip"] if layer.name in skip else [])
        if why:
            reasons[layer.name] = "; ".join(why)
        else:
            found.append(layer)
    check_names("skip", skip, [*(layer.name for layer in found), *reasons], "layer")
    return found, reasons


def dense(network: Network, found: Sequence[Layer]) -> tuple[list[Layer], dict[str, str]]:
    """Those of the layers that can be visited on a walk through the network, and why not the others."""
    known = readers(network)
    why = dict[str, str]()
    for layer in found:
        reader = known.get(layer.weight)
        if reader is None:
            why[layer.name] = "is no linear layer or convolution in one or two dimensions without groups"
        elif len(reader.calls) > 1:
            why[layer.name] = f"runs {len(reader.calls)} times, so that what it reads is not known before it runs"
    return [layer for layer in found if layer.name not in why], why


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 1


def unsupported(axes: int, calls: Sequence[tuple[Node, Node]]) -> list[str]:
    """Why a stored tensor is no weight that may become zero; [] means it is one.

    Args:
        axes: of the tensor, how many there are.
        calls: its nodes, each with one that reads it.
    """
    found = []
    for stored, call in calls:
        place = next((i for i, value in enumerate(call.args) if value is stored), None)
        if place != 1 or not _reads_weights(call, axes):
            found.append(f"is read by {called(call)}, not as the weight of a layer")
        elif call.target in TRANSPOSED and argument(call, GROUPS, "groups", 1) != 1:
            found.append(f"belongs to a transposed convolution of {argument(call, GROUPS, 'groups')} groups")
    if not found and len({call.target in PLAIN for _, call in calls}) > 1:
        found.append("its rows are the outputs of one layer and the inputs of another")
    return list(dict.fromkeys(found))


def _reads_weights(call: Node, axes: int) -> bool:
    """Whether what a call reads in its second place is a weight; only as a matrix does a product read one."""
    return call.target in PLAIN | TRANSPOSED.keys() or (call.target in PRODUCTS and axes == 2)
