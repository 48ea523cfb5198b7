"""What the tests of the training loop share: small networks, batches that follow from the step, and losses."""

import functools
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.training.batch import Batch
from tests.toys import patterns

SIZE = 32


class Line(nn.Module):
    """A weighted sum of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


class Layers(nn.Module):
    """Three numbers in, two out; no batch norm, so that a batch may be split."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.dropout, self.second = nn.Linear(3, 16), nn.Dropout(dropout), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.dropout(torch.relu(self.first(x))))
        return result


class Images(nn.Module):
    """Two convolutions and a linear layer, for images (N, 1, 8, 8); no batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.two(torch.relu(self.one(image))))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


def module(kind: Callable[[], nn.Module]) -> nn.Module:
    """A new module with the same random weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind()


@functools.cache
def _traced(kind: str) -> Network:
    if kind == "images":
        return trace(module(Images), [torch.zeros(2, 1, 8, 8)])
    makers: dict[str, Callable[[], nn.Module]] = {
        "line": Line,
        "layers": Layers,
        "dropout": functools.partial(Layers, 0.3),
    }
    return trace(module(makers[kind]), [torch.zeros(2, 3)])


def line() -> Network:
    return _traced("line").copy()


def layers() -> Network:
    return _traced("layers").copy()


def with_dropout() -> Network:
    return _traced("dropout").copy()


def images() -> Network:
    return _traced("images").copy()


@dataclass(frozen=True)
class Made:
    """Batches that a function makes of the number of the step."""

    make: Callable[[int], Batch]
    size: int = SIZE
    identity: str = "made"

    def batch(self, step: int, rows: slice) -> Batch:
        return self.make(step).moved(lambda x: x[rows])


def numbers(step: int, size: int = SIZE) -> Tensor:
    return torch.from_numpy(np.random.default_rng(step).normal(size=(size, 3)).astype(np.float32))


def sums(step: int, size: int = SIZE) -> Batch:
    """The weighted sum that `Line` can learn: weights 1, -2 and 0.5, bias 3."""
    x = numbers(step, size)
    return Batch({"x": x}, (x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3,))


def curves(step: int, size: int = SIZE) -> Batch:
    """Two functions of three numbers that `Layers` can nearly learn."""
    x = numbers(step, size)
    return Batch({"x": x}, (torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs()], 1),))


def pictures(step: int, size: int = SIZE) -> Batch:
    found, labels = patterns(size, seed=100 + step)
    return Batch({"image": torch.from_numpy(found)}, (torch.from_numpy(labels),))


def squared(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
    return (outputs[0] - batch.targets[0]).square().mean()


def cross_entropy(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(outputs[0], batch.targets[0])


def state(network: Network) -> dict[str, Tensor]:
    """Copies of the weights."""
    return {name: tensor.detach().clone() for name, tensor in network.weights().items()}


def differences(one: Network, other: Network) -> list[str]:
    """Names of the weights that are not equal to the bit."""
    ours, theirs = one.weights(), other.weights()
    assert ours.keys() == theirs.keys() and ours
    return [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Files that this process writes cannot grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def distance(one: Network, other: Network) -> float:
    """The largest difference between any two weights."""
    theirs = other.weights()
    return max(float((w - theirs[n]).detach().abs().max()) for n, w in one.weights().items())
