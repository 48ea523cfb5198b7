"""Small networks that cover what couples channels, and the tools that the tests of this room share."""

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.network.axes import AxisGroups
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.runtimes.networks import Depthwise, Residual

Kept = dict[str, NDArray[np.int64]]
SIDE = 8


class PlainAdds(nn.Module):
    """A stem and two identity blocks: three layers write the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.blocks = nn.ModuleList(nn.Sequential(*self._layers()) for _ in range(2))
        self.head = nn.Linear(12, 5)

    @staticmethod
    def _layers() -> list[nn.Module]:
        first = [nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
        return [*first, nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = F.relu(x + block(x))
        result: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return result


class OptionA(nn.Module):
    """Shortcuts without weights: every second pixel, and zeros for the channels that are new (He et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.one, self.one_norm = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.two, self.two_norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        y = self.two_norm(self.two(F.relu(self.one_norm(self.one(x)))))
        x = F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


class DepthMultiplier(nn.Module):
    """Pointwise, depthwise with two outputs per input, pointwise."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(3, 10, 1, bias=False), nn.BatchNorm2d(10)
        self.depth, self.depth_norm = nn.Conv2d(10, 20, 3, padding=1, groups=10), nn.BatchNorm2d(20)
        self.project = nn.Conv2d(20, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.expand_norm(self.expand(x)))
        x = F.relu6(self.depth_norm(self.depth(x)))
        result: Tensor = self.head(F.relu(self.project(x)).mean((2, 3)))
        return result


class Flattened(nn.Module):
    """Max pooling, then the 4 x 4 places of every channel side by side in front of a linear layer."""

    def __init__(self, use_view: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        self.hidden, self.norm, self.head = nn.Linear(6 * 16, 14), nn.BatchNorm1d(14), nn.Linear(14, 5)
        self.use_view = use_view

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = x.view(x.shape[0], 6 * 16) if self.use_view else torch.flatten(x, 1)
        result: Tensor = self.head(F.relu(self.norm(self.hidden(x))))
        return result


class Dense(nn.Module):
    """Every layer reads all earlier ones side by side (Huang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.last, self.head = nn.BatchNorm2d(18), nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(F.relu(norm(x)))], 1)
        result: Tensor = self.head(F.relu(self.last(x)).mean((2, 3)))
        return result


class SqueezeExcite(nn.Module):
    """A gate computed from the mean scales every channel (Hu et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Linear(12, 4), nn.Linear(4, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem_norm(self.stem(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        x = gate[:, :, None, None] * x
        result: Tensor = self.head(x.mean((2, 3)))
        return result


class SharedWeight(nn.Module):
    """One convolution is applied twice, so what it reads and what it writes are the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 10, 3, padding=1)
        self.tail, self.head = nn.Conv2d(10, 7, 1), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.shared(F.relu(self.shared(F.relu(self.stem(x))))))
        result: Tensor = self.head(F.relu(self.tail(x)).amax((2, 3)))
        return result


class Sliced(nn.Module):
    """Half of the channels takes another way (Zhang et al. 2018, without the shuffle), then an upsampling decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(6, 9, 3, padding=1)
        self.mix, self.up = nn.Conv2d(15, 8, 1), nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([x[:, :6], F.relu(self.branch(x[:, 6:]))], 1)
        result: Tensor = self.head(F.relu(self.up(F.relu(self.mix(x)))))
        return result


class Sequence(nn.Module):
    """One-dimensional convolutions, axes that change places, and a linear layer on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 10, 3, padding="same"), nn.Linear(10, 8)
        self.third, self.head = nn.Conv1d(8, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x)).transpose(1, 2)
        x = torch.tanh(self.second(x)).permute(0, 2, 1)
        x = F.avg_pool1d(F.relu(self.third(x)), 2).mean(2)
        result: Tensor = self.head(x)
        return result


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain adds": PlainAdds,
    "projection shortcut": Residual,
    "option-A shortcut": OptionA,
    "depthwise": Depthwise,
    "depthwise, multiplier 2": DepthMultiplier,
    "flatten": Flattened,
    "view": lambda: Flattened(use_view=True),
    "dense block": Dense,
    "squeeze and excite": SqueezeExcite,
    "shared weight": SharedWeight,
    "slices and upsampling": Sliced,
    "sequence": Sequence,
}


def samples(name: str, count: int, seed: int = 1) -> Tensor:
    """Random inputs for the network of that name."""
    shape = (4, 12) if name == "sequence" else (3, SIDE, SIDE)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def randomise_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch-norm scales, shifts and statistics that are not the initial ones, as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.data = torch.rand(layer.num_features, generator=generator) + 0.3
    return module.eval()


@functools.cache
def _traced(name: str) -> Network:
    torch.manual_seed(0)
    return trace(randomise_(NETWORKS[name]()), {"x": samples(name, 2)})


def network_of(name: str) -> Network:
    """A copy of the network of that name; tracing happens once."""
    return _traced(name).copy()


def random_halves(found: AxisGroups, seed: int) -> Kept:
    """For every group a random half of its channels."""
    generator = np.random.default_rng(seed)
    return {g.name: np.sort(generator.permutation(g.width)[: max(1, g.width // 2)]) for g in found.groups}


def zeroed(network: Network, found: AxisGroups, kept: Kept) -> Network:
    """The network at its full size, with every slice of the channels that are not kept set to zero."""
    result = network.copy()
    weights = result.weights()
    for name, indices in kept.items():
        group = found[name]
        for channel in sorted(set(range(group.width)) - set(indices.tolist())):
            for (weight, axis), positions in group.slices.items():
                with torch.no_grad():
                    weights[weight].index_fill_(axis, torch.from_numpy(positions[channel]), 0.0)
    return result


def differences(one: Network, two: Network) -> list[str]:
    """What two networks do not share, bit for bit; [] means they are equal."""
    found = []
    if (one.input_names, one.output_names, one.history) != (two.input_names, two.output_names, two.history):
        found.append("names or history")
    graphs = [[(n.op, n.name, n.target, str(n.args), str(n.kwargs)) for n in x.module.graph.nodes] for x in (one, two)]
    if graphs[0] != graphs[1]:
        found.append("graph")
    for what, ours, theirs in (("weights", one.weights(), two.weights()), ("examples", one.examples, two.examples)):
        if list(ours) != list(theirs):
            found.append(what)
        found += [f"{what} {n}" for n, t in ours.items() if n in theirs and not identical(t, theirs[n])]
    trainable = [{n for n, _ in x.module.named_parameters()} for x in (one, two)]
    if trainable[0] != trainable[1]:
        found.append("what can be trained")
    if not found and not all(map(identical, one.run(one.examples), two.run(one.examples))):
        found.append("outputs")
    return found


def identical(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
