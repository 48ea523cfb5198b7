"""What every node of a graph computes, looked at while it runs."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from slimline.network.network import Network

V = TypeVar("V")
Look = Callable[[Node, Tensor], V | None]


class _Recorder(Interpreter, Generic[V]):
    def __init__(self, module: GraphModule, look: Look[V]) -> None:
        super().__init__(module)
        self.look, self.found = look, dict[str, V]()

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        seen = self.look(n, value) if isinstance(value, Tensor) else None
        if seen is not None:
            self.found[n.name] = seen
        return value


def recorded(network: Network, inputs: Iterable[Tensor], look: Look[V]) -> dict[str, V]:
    """What ``look`` says of every tensor in a graph, by node name; where it says None there is no entry.

    Args:
        inputs: in the order of the network's own.
    """
    recorder = _Recorder(network.module, look)
    with torch.no_grad():
        recorder.run(*inputs)
    return recorder.found


def node_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Shape by node name for the network's example batch; values that are not tensors are left out."""
    return _on_examples(network, lambda _, value: tuple(value.shape))


def node_dtypes(network: Network) -> dict[str, torch.dtype]:
    """Number format by node name; values that are not tensors are left out."""
    return _on_examples(network, lambda _, value: value.dtype)


def _on_examples(network: Network, look: Look[V]) -> dict[str, V]:
    if network.is_training():  # a run would change the statistics of its batch norms
        network = network.copy().set_training_(False)
    return recorded(network, network.examples.values(), look)
