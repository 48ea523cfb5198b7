"""Single layers of every kind as networks, and the same with factors in their place."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from slimline.methods.factorize.factors import Decomposed, Layer, Part, layers, replace_
from slimline.methods.factorize.ranks import Ranks
from slimline.network.network import Network
from slimline.network.trace import trace

Kind = tuple[Callable[[], nn.Module], tuple[int, ...]]
POINTWISE: dict[str, Kind] = {
    "linear": (lambda: nn.Linear(5, 7), (4, 5)),
    "linear on a sequence": (lambda: nn.Linear(6, 4, bias=False), (4, 3, 6)),
    "pointwise": (lambda: nn.Conv2d(5, 7, 1), (4, 5, 6, 6)),
    "pointwise strided and padded": (lambda: nn.Conv2d(5, 7, 1, stride=(2, 1), padding=1), (4, 5, 7, 6)),
    "pointwise in one dimension": (lambda: nn.Conv1d(5, 7, 1, bias=False), (4, 5, 7)),
}
FLAT: dict[str, Kind] = {
    "conv1d": (lambda: nn.Conv1d(5, 7, 3, stride=2, padding=2, dilation=2), (4, 5, 11)),
}
WIDE: dict[str, Kind] = {
    "conv2d": (lambda: nn.Conv2d(5, 7, (3, 2), stride=(2, 1), padding=(1, 0)), (4, 5, 9, 8)),
    "conv2d dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=(2, 1), padding=(2, 1), bias=False), (4, 4, 9, 8)),
    "conv2d same": (lambda: nn.Conv2d(5, 7, (4, 3), padding="same", dilation=(1, 2)), (4, 5, 9, 8)),
    "conv2d valid": (lambda: nn.Conv2d(5, 7, 3, padding="valid", stride=2), (4, 5, 9, 8)),
    "conv3d": (lambda: nn.Conv3d(3, 5, (2, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1)), (4, 3, 4, 5, 6)),
}


def one_layer(kind: Kind) -> tuple[Network, Tensor]:
    """A network of one layer, the same every time, and other inputs for it."""
    make, shape = kind
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trace(nn.Sequential(make()), [torch.randn(shape)]), torch.randn(shape)


def the_layer(network: Network) -> Layer:
    (found,), skipped = layers(network, (), "Test")
    assert not skipped
    return found


def rewritten(
    network: Network,
    ranks: Ranks,
    parts: Callable[[Layer, Ranks], list[Part]],
    made: Callable[[Layer, Ranks], Decomposed],
) -> Network:
    """The network with its one layer as a chain, whatever that costs."""
    result = network.copy()
    layer = the_layer(result)
    replace_(result, layer, parts(layer, ranks), *made(layer, ranks))
    return result.tidy_().verify()


def answer(network: Network, x: Tensor) -> Tensor:
    return network.run({network.input_names[0]: x})[0]


def with_weight(network: Network, weight: Tensor) -> Network:
    """The network of one layer with another weight."""
    result = network.copy()
    with torch.no_grad():
        next(t for name, t in result.weights().items() if name.endswith("weight")).copy_(weight)
    return result


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
