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


class Attention(nn.Module):
    """An encoder block: attention over heads, a feed-forward part, both behind a norm and beside a shortcut."""

    def __init__(
        self, width: int = 32, heads: int = 4, keys: int = 4, hidden: int = 24, fused: bool = True, gated: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.keys, self.each, self.fused, self.gated = heads, keys, width // heads, fused, gated
        self.embed, self.norms = nn.Linear(6, width), nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = (nn.Linear(width, keys * self.each) for _ in range(2))
        self.up, self.down = nn.Linear(width, hidden * (2 if gated else 1)), nn.Linear(hidden, width)
        self.head = nn.Linear(width, 5)

    def split(self, x: Tensor, heads: int) -> Tensor:
        x = x.view(x.shape[0], x.shape[1], heads, self.each).transpose(1, 2)
        if heads == self.heads:
            return x
        x = x[:, :, None].expand(x.shape[0], heads, self.heads // heads, x.shape[2], self.each)
        return x.reshape(x.shape[0], self.heads, x.shape[3], self.each)

    def attend(self, x: Tensor) -> Tensor:
        layers = ((self.query, self.heads), (self.key, self.keys), (self.value, self.keys))
        q, k, v = (self.split(layer(x), heads) for layer, heads in layers)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-1, -2) / self.each**0.5).softmax(-1) @ v
        return mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.heads * self.each)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.out(self.attend(self.norms[0](x)))
        y = self.up(self.norms[1](x))
        if self.gated:
            gate, y = y.chunk(2, -1)
            y = F.silu(gate) * y
        result: Tensor = self.head((x + self.down(F.gelu(y))).mean(1))
        return result


class JointProjection(nn.Module):
    """Queries, keys and values from one layer, taken apart by unbind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(6, 32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape[0], x.shape[1], 32)
        result: Tensor = self.head((x + self.out(y)).mean(1))
        return result


class GroupNorms(nn.Module):
    """Norms over groups of channels, one of them over channels that stand side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.Conv2d(32, 12, 1)
        self.norm, self.joint, self.head = nn.GroupNorm(4, 16), nn.GroupNorm(8, 32), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.one(x)))
        x = F.relu(self.joint(torch.cat([x, self.two(x)], 1)))
        result: Tensor = self.head(F.relu(self.three(x)).mean((2, 3)))
        return result


class GroupedConvolutions(nn.Module):
    """A block of ResNeXt (Xie et al. 2017) and a transposed convolution in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.grouped, self.wide = (
            nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 3, padding=1, groups=4), nn.Conv2d(24, 16, 1),
        )  # fmt: skip
        self.up, self.head = nn.ConvTranspose2d(16, 8, 2, 2, groups=4), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.narrow(x))
        x = F.relu(x + self.wide(F.relu(self.grouped(x))))
        result: Tensor = self.head(F.relu(self.up(x)).mean((2, 3)))
        return result


class Shuffled(nn.Module):
    """Half of the channels goes through a branch, then both halves are shuffled (Ma et al. 2018)."""

    def __init__(self, native: bool = False) -> None:
        super().__init__()
        self.stem, self.native, self.head = nn.Conv2d(3, 16, 1), native, nn.Linear(16, 5)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
                          nn.Conv2d(8, 8, 1), nn.ReLU())
            for _ in range(2)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            one, two = x.chunk(2, 1)
            x = torch.cat([one, branch(two)], 1)
            if self.native:
                x = torch.channel_shuffle(x, 2)
            else:
                x = x.view(x.shape[0], 2, 8, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        result: Tensor = self.head(x.mean((2, 3)))
        return result


class Recurrent(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, both_ways: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 10), nn.Linear(24 if both_ways else 12, 5)
        self.cells = kind(10, 12, layers, batch_first=True, bidirectional=both_ways)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.cells(self.embed(x))[0].mean(1))
        return result


class Pixels(nn.Module):
    """Channels become places and places channels (Shi et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(6, 8, 1), nn.Conv2d(32, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.two(F.pixel_shuffle(F.relu(self.one(x)), 2)))
        result: Tensor = self.head(F.pixel_unshuffle(x, 2))
        return result


class Volume(nn.Module):
    """Convolutions in three dimensions, up and down."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv3d(1, 8, 2, stride=2), nn.ConvTranspose3d(8, 6, 2, stride=2)
        self.norm, self.head = nn.BatchNorm3d(8), nn.Conv3d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(F.relu(self.up(F.relu(self.norm(self.down(x.unsqueeze(1)))))))
        return result


class Einstein(nn.Module):
    """A sum over named axes, and a matrix product with a stored matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 5)
        self.mix = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.einsum("bic,bjc->bij", self.one(x), self.two(x)).softmax(-1)
        y = torch.einsum("bij,bjc->bic", scores, torch.tanh(self.one(x)) @ self.mix)
        result: Tensor = self.head(F.relu(y).mean(1))
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
    "attention": Attention,
    "attention, explicit": lambda: Attention(fused=False),
    "attention, grouped queries": lambda: Attention(keys=2),
    "attention, gated": lambda: Attention(keys=2, fused=False, gated=True),
    "attention, joint projection": JointProjection,
    "group norms": GroupNorms,
    "grouped convolutions": GroupedConvolutions,
    "shuffled": Shuffled,
    "shuffled by one operator": lambda: Shuffled(native=True),
    "lstm": lambda: Recurrent(nn.LSTM, 2, True),
    "gru": lambda: Recurrent(nn.GRU, 1, False),
    "rnn": lambda: Recurrent(nn.RNN, 2, False),
    "pixel shuffle": Pixels,
    "volume": Volume,
    "einsum": Einstein,
}
SEQUENCES = ("attention", "lstm", "gru", "rnn", "einsum")


def samples(name: str, count: int, seed: int = 1) -> Tensor:
    """Random inputs for the network of that name."""
    shape = (4, 12) if name == "sequence" else (7, 6) if name.startswith(SEQUENCES) else (3, SIDE, SIDE)
    shape = (4, 4, 4) if name == "volume" else shape
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def randomise_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch-norm scales, shifts and statistics that are not the initial ones, as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
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


def exact_part(found: AxisGroups) -> AxisGroups:
    """Only those groups whose channels can be zeroed instead of removed."""
    return AxisGroups([g for g in found.groups if not g.inexact], found.frozen, found.propagation)


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
