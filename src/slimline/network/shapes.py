"""Shapes of every value in a graph, by running its example."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from slimline.network.network import Network


class _Recorder(Interpreter):
    def __init__(self, network: Network) -> None:
        super().__init__(network.module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n.name] = tuple(value.shape)
        return value


def node_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Shape by node name for the network's example batch; values that are not tensors are left out."""
    if network.is_training():  # a run would change the statistics of its batch norms
        network = network.copy().set_training_(False)
    recorder = _Recorder(network)
    with torch.no_grad():
        recorder.run(*network.examples.values())
    return recorder.shapes
