"""One walk through a network in which its dense layers are changed, each before it runs.

What a layer reads is what the changed layers before it put out, whatever branches there are. All samples go through the
graph together, so that one walk is enough however many layers there are.
"""

import math
from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from slimline.methods.readers import BATCH, MOST_ROWS, Reader, readers, rows_of, spread
from slimline.network.network import Network
from slimline.network.shapes import node_shapes
from slimline.task import Samples

LARGEST_MEMORY = 2**32
"""Bytes that the values alive in a walk may take: fewer samples are read where they are large."""
ALIVE = 8
"""Values alive at once, at a guess, in units of the largest."""
FEWEST = 16
Visit = Callable[[Reader, Iterator[Tensor]], None]
"""Given a layer and what it reads, as parts of [x; 1], (rows, inputs + 1); may change the layer's weight."""


def affordable(network: Network, wanted: int) -> int:
    """Samples whose values fit into memory."""
    batch = len(next(iter(network.examples.values())))
    largest = max(math.prod(shape) / batch for shape in node_shapes(network).values())
    return min(wanted, max(FEWEST, int(LARGEST_MEMORY / (4 * ALIVE * largest))))


def fitting(network: Network, samples: Samples) -> tuple[Samples, dict[str, str]]:
    """The samples whose values fit into memory, and what an outcome has to tell where these are not all."""
    taken = samples.take(slice(0, affordable(network, len(samples))))
    return taken, {} if len(taken) == len(samples) else {"samples": f"{len(taken)} of {len(samples)} fit into memory"}


def visit_(network: Network, weights: Collection[str], samples: Samples, visit: Visit) -> dict[str, str]:
    """Walk through the network and visit the layers with these weights; edits the network.

    Args:
        weights: of dense layers (`slimline.methods.readers.readers`) that run once.

    Returns:
        What an outcome has to tell: where only some of the samples were read, since all would not fit into memory.
    """
    taken, told = fitting(network, samples)
    inputs = taken.tensors()
    training = network.is_training()
    network.set_training_(False)
    with torch.no_grad():
        _Walk(network, weights, visit).run(*(inputs[name] for name in network.input_names))
    network.set_training_(training)
    return told


class _Walk(Interpreter):
    def __init__(self, network: Network, weights: Collection[str], visit: Visit) -> None:
        super().__init__(network.module)
        found = readers(network)
        self.by_call = {found[weight].calls[0].name: found[weight] for weight in weights}
        self.visit = visit

    def run_node(self, n: Node) -> object:
        reader = self.by_call.get(n.name)
        if reader is not None:
            (x, weight, *_), _ = self.fetch_args_kwargs_from_env(n)
            self.visit(reader, _rows(n, x, weight))
        return super().run_node(n)


def _rows(node: Node, x: Tensor, weight: Tensor) -> Iterator[Tensor]:
    parts = -(-len(x) // BATCH)
    for start in range(0, len(x), BATCH):
        rows = rows_of(node, x[start : start + BATCH], weight)
        yield rows[spread(len(rows), MOST_ROWS // parts)]
