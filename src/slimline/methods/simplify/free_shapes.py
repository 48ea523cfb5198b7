"""The shape of every value of a graph for any batch, found without computing the values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node

from slimline.network.network import BATCH_NORM_TRAINING_ARGUMENT, Network

BATCHES = (1, 2, 1009)
"""Sizes are straight lines in the batch. Two points fix a line, a large prime is no other size by accident, and 1 shows
what is dropped or broadcast when it is 1."""
SMALL = BATCHES.index(2)


@dataclass(frozen=True)
class FreeShape:
    """The shape of a tensor for each of `BATCHES`, and its type."""

    at: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    @property
    def small(self) -> tuple[int, ...]:
        """The shape for a batch of two."""
        return self.at[SMALL]

    @property
    def rank(self) -> int | None:
        """How many axes there are; None where it depends on the batch."""
        return len(self.small) if len({len(shape) for shape in self.at}) == 1 else None

    def fixed(self, axis: int) -> bool:
        """Whether the size of an axis is the same for every batch."""
        return self.rank is not None and len({shape[axis] for shape in self.at}) == 1

    def free_axes(self) -> list[int]:
        """The axes whose size depends on the batch."""
        return [axis for axis in range(self.rank or 0) if not self.fixed(axis)]


@dataclass(frozen=True)
class FreeShapes:
    """What is known of a graph's values."""

    tensors: dict[Node, FreeShape] = field(default_factory=dict)
    numbers: dict[Node, tuple[Any, ...]] = field(default_factory=dict)
    """Values that are plain numbers, for each of `BATCHES`."""

    def same(self, one: Node, other: Node) -> bool:
        """Whether two nodes hold tensors of the same shape and type for every batch."""
        return one in self.tensors and self.tensors[one] == self.tensors.get(other)

    def fixed(self, node: Node, axis: int) -> bool:
        """Whether the size of a node's axis is known and the same for every batch."""
        shape = self.tensors.get(node)
        return shape is not None and shape.fixed(axis)

    def floating(self, node: Node) -> bool:
        """Whether a node is known to hold floating point numbers."""
        return node in self.tensors and self.tensors[node].dtype.is_floating_point

    def small_number(self, value: Any) -> Any:
        """A number or list of an argument for a batch of two."""
        return torch.fx.map_arg(value, lambda node: self.numbers[node][SMALL])


def free_shapes(network: Network) -> FreeShapes:
    """Shapes, types and plain numbers of every node, for any batch.

    Edits that leave every node's result as it was, or scale it, leave them right. What depends on an operator whose
    sizes follow from values, such as ``nonzero``, is not known.
    """
    with torch.no_grad(), FakeTensorMode() as mode:
        weights = {name: mode.from_tensor(weight) for name, weight in network.weights().items()}
        runs = [_without_values(network, weights, batch) for batch in BATCHES]
    found = FreeShapes()
    for node in runs[0]:
        values = [run.get(node) for run in runs]
        tensors = [value for value in values if isinstance(value, Tensor)]
        if len(tensors) == len(BATCHES):
            found.tensors[node] = FreeShape(tuple(tuple(t.shape) for t in tensors), tensors[0].dtype)
        elif all(isinstance(value, (int, float)) for value in values):
            found.numbers[node] = tuple(values)
    return found


def _without_values(network: Network, weights: Mapping[str, Tensor], batch: int) -> dict[Node, Any]:
    """What every node gives for one batch, tensors as shells that hold no numbers."""
    seen: dict[Node, Any] = {}
    examples = iter(network.examples.values())
    for node in network.module.graph.nodes:
        if node.op == "placeholder":
            example = next(examples)
            seen[node] = torch.empty((batch, *example.shape[1:]), dtype=example.dtype)
        elif node.op == "get_attr":
            seen[node] = weights[str(node.target)]
        elif node.op == "call_function" and all(n in seen for n in node.all_input_nodes):
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), seen.__getitem__)
            if node.target is torch.ops.aten.batch_norm.default:  # in training it has no answer to a batch of one
                args = (*args[:BATCH_NORM_TRAINING_ARGUMENT], False, *args[BATCH_NORM_TRAINING_ARGUMENT + 1 :])
            try:
                seen[node] = node.target(*args, **kwargs)
            except RuntimeError:  # its sizes need values; it and what reads it stay unknown
                continue
    return seen
