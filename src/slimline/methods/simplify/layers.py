"""Linear, convolution and transposed convolution layers: their weights by group, scaled, shifted and written back."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from slimline.network.calls import arguments, layer_of, readers_of
from slimline.network.network import Network, get_tensor
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED
from slimline.network.surgery import set_bias_, set_weight

aten = torch.ops.aten
LAYERS = {aten.linear.default} | CONVOLUTIONS.keys() | TRANSPOSED.keys()


def grouped(weight: Tensor, groups: int, transposed: bool = False) -> Tensor:
    """A weight as (groups, outputs of a group, inputs of a group, taps); it has one tap per place of the kernel.

    Args:
        weight: (outputs, inputs / groups, ...), or (inputs, outputs / groups, ...) of a transposed convolution.
    """
    blocks = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    return blocks.transpose(1, 2) if transposed else blocks


def ungrouped(blocks: Tensor, kernel: tuple[int, ...], transposed: bool = False) -> Tensor:
    """The weight whose blocks these are; the inverse of `grouped`."""
    groups, outputs, inputs, _ = blocks.shape
    if transposed:
        return blocks.transpose(1, 2).reshape(groups * inputs, outputs, *kernel)
    return blocks.reshape(groups * outputs, inputs, *kernel)


def scaled_outputs(blocks: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``scale * layer(x) + shift``, with a scale and a shift per output channel."""
    groups, outputs = blocks.shape[:2]
    return blocks * scale.view(groups, outputs, 1, 1), scale * bias + shift


def scaled_inputs(blocks: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``layer(scale * x + shift)``, with a scale and a shift per input channel."""
    groups, _, inputs, _ = blocks.shape
    added = (blocks * shift.view(groups, 1, inputs, 1)).sum((2, 3)).flatten()
    return blocks * scale.view(groups, 1, inputs, 1), bias + added


@dataclass(frozen=True)
class Layer:
    """A call with a stored weight, and what it computes."""

    node: Node
    name: str
    """Name of its weight in the network."""
    weight: Tensor
    bias: Tensor | None
    groups: int
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...] | None
    """Zeros on both sides of each axis; None where the two sides differ."""
    output_padding: tuple[int, ...]
    transposed: bool

    @property
    def title(self) -> str:
        """The name that reports give it."""
        return layer_of(self.name)

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    @property
    def pointwise(self) -> bool:
        """Whether every place of the result comes from one place of the input, and no place is made of padding."""
        return all(size == 1 for size in self.kernel) and self.padding is not None and not any(self.padding)

    @property
    def channel_axis(self) -> int:
        """Where the channels lie in its input and its output."""
        return 1 if self.kernel else -1

    @property
    def blocks(self) -> Tensor:
        """Its weight in double precision, by `grouped`."""
        return grouped(self.weight.double(), self.groups, self.transposed)

    @property
    def full_bias(self) -> Tensor:
        """Its bias in double precision, zeros where it has none."""
        blocks = self.blocks
        zeros = torch.zeros(blocks.shape[0] * blocks.shape[1], dtype=torch.float64)
        return zeros if self.bias is None else self.bias.double()

    def why_no_shift_before(self) -> list[str]:
        """Why a constant added to its input is not a constant added to its output; [] means it is."""
        if self.transposed and not (self.pointwise and set(self.stride) <= {1} and not any(self.output_padding)):
            return ["a transposed convolution reaches some places with fewer taps than others"]
        if self.padding is None or any(self.padding):
            return ["its zero padding is not shifted with its input"]
        return []


def read_layer(network: Network, node: Node) -> Layer | str:
    """The layer that a call is, or why its weights cannot be changed."""
    if node.target not in LAYERS:
        return f"{node.name} is no convolution or linear layer"
    given = arguments(node)
    weight, bias = given["weight"], given["bias"]
    stored = isinstance(weight, Node) and weight.op == "get_attr"
    if not stored or len(readers_of(network, str(weight.target))) > 1:
        return f"the weight of {node.name} is shared or computed"
    if isinstance(bias, Node) and bias.op != "get_attr":
        return f"the bias of {node.name} is computed"
    tensor = get_tensor(network.module, str(weight.target)).detach()
    axes = CONVOLUTIONS.get(node.target, TRANSPOSED.get(node.target, 0))
    if not tensor.is_floating_point() or tensor.ndim != axes + 2:
        return f"the weight of {node.name} is not a matrix or kernel of floating point numbers"
    own = None if bias is None else get_tensor(network.module, str(bias.target)).detach()
    stride, dilation, more = (_each(given.get(name, default), axes) for name, default in _DEFAULTS)
    padding = _zeros_on_both_sides(given.get("padding", 0), tuple(tensor.shape[2:]), dilation)
    transposed, name = node.target in TRANSPOSED, str(weight.target)
    return Layer(node, name, tensor, own, given.get("groups", 1), stride, dilation, padding, more, transposed)


_DEFAULTS = (("stride", 1), ("dilation", 1), ("output_padding", 0))


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """A number for each of the kernel's axes; one stands for all."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * axes if len(values) == 1 else values


def _zeros_on_both_sides(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...] | None:
    if padding == "valid":
        return (0,) * len(kernel)
    if padding != "same":
        return _each(padding, len(kernel))
    total = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    return None if any(n % 2 for n in total) else tuple(n // 2 for n in total)


def write_layer_(network: Network, layer: Layer, blocks: Tensor, bias: Tensor) -> None:
    """Give a layer other weights of the same shape, and a bias where it had one or needs one; edits the network."""
    set_weight(network, layer.name, ungrouped(blocks, layer.kernel, layer.transposed).to(layer.weight.dtype))
    write_bias_(network, layer, bias)


def write_bias_(network: Network, layer: Layer, bias: Tensor) -> None:
    """Give a layer a bias of its own where it had one or needs one; edits the network."""
    before = arguments(layer.node)["bias"]
    if isinstance(before, Node) and len(readers_of(network, str(before.target))) == 1:
        set_weight(network, str(before.target), bias.to(layer.weight.dtype))
    elif isinstance(before, Node) or bool(bias.any()):
        set_bias_(network, layer.node, bias.to(layer.weight.dtype))
