"""What the contract tests apply a method to: `toy`, or a network on which the method has something to do."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from slimline.methods.method import Method
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.toys import CLASSES, SIDE, toy

WIDTH = 8


class Redundant(nn.Module):
    """Something to simplify of every kind, for the images and the classes of `toy`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = weight_norm(nn.Conv2d(1, WIDTH, 3)), nn.BatchNorm2d(WIDTH)
        self.one, self.other = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, bias=False)
        self.dropout, self.scale = nn.Dropout(0.1), nn.Parameter(torch.rand(WIDTH, 1, 1) + 0.5)
        self.last_norm, self.head = nn.BatchNorm2d(WIDTH), nn.Linear(WIDTH * (SIDE - 4) ** 2, CLASSES)
        for norm in (self.stem_norm, self.last_norm):
            norm.running_mean, norm.running_var = torch.randn(WIDTH) * 0.1, torch.rand(WIDTH) + 0.5

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem((image - 0.5) / 0.25)))
        x = self.other(self.one(self.dropout(x))) * self.scale
        x = x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)
        x = x.sigmoid() + x.sigmoid() * 2
        result: Tensor = self.head(self.last_norm(x).flatten(2).flatten(1))
        return result


class Twins(nn.Module):
    """Two layers that were copied and never trained apart, for the images and the classes of `toy`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other = nn.Conv2d(1, WIDTH, 3), nn.Conv2d(WIDTH, 24, 3), nn.Conv2d(WIDTH, 24, 3)
        self.head = nn.Linear(24, CLASSES)
        self.other.load_state_dict(self.one.state_dict())

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).relu()
        result: Tensor = self.head((self.one(x).relu() + self.other(x.tanh())).mean((2, 3)))
        return result


@functools.cache
def _twins() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trace(Twins().eval(), {"image": torch.randn(2, 1, SIDE, SIDE)})


def twins() -> Network:
    """A `Twins`, the same every time; the caller may change it."""
    return _twins().copy()


@functools.cache
def _redundant() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trace(Redundant().eval(), {"image": torch.randn(2, 1, SIDE, SIDE)})


def redundant() -> Network:
    """A `Redundant`, the same every time; the caller may change it."""
    return _redundant().copy()


class Looked(nn.Module):
    """Grey values as numbers of rows in a table, not all of which come, for the images and the classes of `toy`."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.hidden, self.head = nn.Embedding(96, 16), nn.Linear(16, 24), nn.Linear(24, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.table((16 * (image.flatten(1) + 2)).clamp(0, 63).long())
        result: Tensor = self.head(self.hidden(x).relu().mean(1))
        return result


@functools.cache
def _looked() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trace(Looked().eval(), {"image": torch.randn(2, 1, SIDE, SIDE)})


def looked() -> Network:
    """A `Looked`, the same every time; the caller may change it."""
    return _looked().copy()


NETWORKS: dict[str, Callable[[], Network]] = {
    "CancelReshapes": redundant,
    "EliminateCommon": redundant,
    "FactorizeEmbedding": looked,
    "FoldBatchNormBefore": redundant,
    "FoldConstants": redundant,
    "FoldScalars": redundant,
    "MergeLinear": redundant,
    "PruneVocabulary": looked,
    "RemoveNoOps": redundant,
    "Simplify": redundant,
    "TieWeights": twins,
}
"""Method -> what it is tested on where that is not `toy`: the same input and output, the same network every time."""
ONLY_REWRITE = {"CancelReshapes", "EliminateCommon", "RemoveNoOps"}
"""Methods that change the graph and may leave every weight as it is."""


def network_for(method: Method) -> Network:
    """A network on which a method has something to do."""
    return NETWORKS.get(type(method).__name__, toy)()
