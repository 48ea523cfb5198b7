"""The weights that may become zero, as matrices of (outputs, inputs), and why the others may not.

The inputs of a convolution are its channels, under one place of the kernel after the other: a pattern of consecutive
inputs lies along the channels, which is where a processor reads several numbers at once.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.errors import SlimlineError
from slimline.methods.readers import readers
from slimline.methods.sparsify.patterns import Pattern
from slimline.network.network import Network, get_tensor
from slimline.network.propagation import argument, called

aten = torch.ops.aten
PLAIN = {
    aten.linear.default, aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding,
    aten.conv2d.padding, aten.conv3d.padding,
}  # fmt: skip
"""Their weight is (outputs, inputs, *kernel)."""
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
"""Their weight is (inputs, outputs, *kernel), as is that of a product with a stored matrix on its right."""
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


@torch.no_grad()
def zero_(network: Network, masks: Mapping[Layer, Tensor]) -> list[str]:
    """Make weights zero; edits the network and names the layers that have such weights.

    Args:
        masks: (outputs, places of the kernel * inputs), true for the weights that become zero.
    """
    for layer, mask in masks.items():
        weight = get_tensor(network.module, layer.weight)
        weight.masked_fill_(layer.unmatrix(mask, weight), 0.0)  # a product with zero could leave -0, which packs worse
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
    _check_names(skip, [layer.name for layer in found] + list(reasons))
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
    return call.target in PLAIN | TRANSPOSED or (call.target in PRODUCTS and axes == 2)


def _check_names(skip: Sequence[str], known: list[str]) -> None:
    for name in skip:
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known, n=3) or known[:3])
            raise SlimlineError(f"skip names {name!r}, which is no layer; near names: {near}.")
