"""Every rule against the operator itself: an operator that moves channels moves their ids in the same way."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.network.axes import Axes, Propagation
from slimline.network.rules import RULES, _matching, rule_for, unknown
from slimline.network.trace import trace

Move = Callable[[Tensor], Tensor]
CHANNELS, SIDE = 6, 4


class Probe(nn.Module):
    """A convolution, and a function of what it returns."""

    def __init__(self, move: Move) -> None:
        super().__init__()
        self.conv, self.move = nn.Conv2d(1, CHANNELS, 1), move

    def forward(self, x: Tensor) -> Tensor:
        return self.move(self.conv(x))


@dataclass
class Walked:
    """What the walk found for a `Probe`."""

    walk: Propagation
    before: Tensor
    """(2, 6, 4, 4): every place holds the id of its channel."""
    after: Axes


def walked(move: Move) -> Walked:
    network = trace(Probe(move).eval(), {"x": torch.randn(2, 1, SIDE, SIDE)})
    walk = Propagation(network)
    walk.run()
    nodes = list(network.module.graph.nodes)
    convolution = next(n for n in nodes if n.target is torch.ops.aten.conv2d.default)
    ids = walk.axes[convolution.name][1]
    assert ids is not None and len(ids) == CHANNELS
    before = torch.from_numpy(ids + 1).double()[None, :, None, None]  # 0 means "no channel"
    before = before.expand(2, -1, SIDE, SIDE).contiguous()
    return Walked(walk, before, walk.axes[nodes[-1].args[0][0].name])


MOVES: dict[str, Move] = {
    "flatten": lambda x: x.flatten(1),
    "flatten places": lambda x: x.flatten(2),
    "view": lambda x: x.view(x.shape[0], CHANNELS, SIDE * SIDE),
    "view with -1": lambda x: x.view(x.shape[0], -1, SIDE),
    "reshape to rows": lambda x: x.permute(0, 2, 3, 1).reshape(-1, CHANNELS).view(x.shape[0], -1, CHANNELS),
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "channels last, flat": lambda x: x.permute(0, 2, 3, 1).flatten(1),
    "transpose": lambda x: x.transpose(1, 3),
    "transpose from the end": lambda x: x.transpose(-3, -2),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "unsqueeze at the end": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x.mean((2, 3), keepdim=True).squeeze(3),
    "squeeze two": lambda x: x.mean((2, 3), keepdim=True).squeeze((-1, 2)),
    "indexing with None": lambda x: x.mean((2, 3))[:, :, None, None],
    "slice": lambda x: x[:, 1:4],
    "slice from the end": lambda x: x[:, -2:],
    "slice of places": lambda x: x[:, :, ::2, 1:3],
    "zero channels": lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)),
    "zero places": lambda x: F.pad(x, (1, 1, 2, 0)) + 0,
    "cat": lambda x: torch.cat([x, x], 1),
    "cat of slices": lambda x: torch.cat([x[:, 4:], x[:, :2]], -3),
    "cat of places": lambda x: torch.cat([x, x], 2),
    "max pooling": lambda x: F.max_pool2d(x, 2),
    "average pooling": lambda x: F.avg_pool2d(x, 2),
    "global average": lambda x: F.adaptive_avg_pool2d(x, 1),
    "upsampling": lambda x: F.interpolate(x, scale_factor=2.0),
    "mean over places": lambda x: x.mean((2, 3)),
    "largest of the places": lambda x: x.amax((-1, -2), keepdim=True),
    "clone": lambda x: x.contiguous().clone(),
    "dropout": lambda x: F.dropout2d(F.dropout(x, training=False), training=False),
}


@pytest.mark.parametrize("name", MOVES)
def test_ids_move_as_the_values_do(name: str) -> None:
    """The operator is run on a tensor of ids; every axis that carries ids has to say what lies there."""
    got = walked(MOVES[name])
    values = MOVES[name](got.before)
    assert len(got.after) == values.ndim
    assert [axis for axis, ids in enumerate(got.after) if ids is not None], "no axis carries ids"
    for axis, ids in enumerate(got.after):
        if ids is None:
            continue
        assert len(ids) == values.shape[axis]
        claimed = torch.from_numpy(ids + 1).double().view(-1, *[1] * (values.ndim - axis - 1)).expand_as(values)
        real = values != 0  # padding holds no channel of the convolution
        torch.testing.assert_close(values[real], claimed[real])
        added = (values == 0).all(dim=tuple(d for d in range(values.ndim) if d != axis))
        assert not np.isin(ids[added.numpy()], got.before.numpy() - 1).any()


STAYING: dict[str, Move] = {
    "split": lambda x: x.view(x.shape[0], 2, 3, SIDE, SIDE),
    "mixed with places": lambda x: x.view(x.shape[0], 3, 2 * SIDE, SIDE),
    "mean over channels": lambda x: x.mean(1),
    "mean over all": lambda x: x.mean((1, 2, 3)),
    "sum": lambda x: x.sum(1, keepdim=True),
    "every second": lambda x: x[:, ::2],
    "stack": lambda x: torch.stack([x, x], 1),
    "roll": lambda x: torch.roll(x, 1, 1),
    "flip": lambda x: x.flip(1),
    "gather": lambda x: x[:, torch.tensor([1, 0])],
    "softmax": lambda x: x.softmax(1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "pixel shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x], 1), 2),
    "matrix product": lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "circular padding of channels": lambda x: F.pad(x, (0, 0, 0, 0, 1, 1), mode="circular"),
    "cut off by padding": lambda x: F.pad(x, (0, 0, 0, 0, -1, 0)),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_mixes_channels_freezes_all_of_them_with_a_reason(name: str) -> None:
    got = walked(STAYING[name])
    assert all(ids is None for ids in got.after)
    reasons = [got.walk.frozen.get(int(value) - 1) for value in got.before[0, :, 0, 0]]
    assert all(reasons) and "is an output of the network" not in reasons


PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "larger": torch.maximum,
    "smaller": torch.minimum,
    "gate behind": lambda a, b: a * b.mean((2, 3), keepdim=True).sigmoid(),
    "gate before": lambda a, b: a.mean((2, 3), keepdim=True).sigmoid() * b,
    "places joined": lambda a, b: torch.cat([a, b], 2),
    "scaled": lambda a, b: 2 * a - b / 3,
}


class Pair(nn.Module):
    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.combine = nn.Conv2d(1, CHANNELS, 1), nn.Conv2d(1, CHANNELS, 1), combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.one(x), self.two(x))


def roots(walk: Propagation, weight: str) -> list[int]:
    ids = walk.weight_axes[weight][0]
    assert ids is not None
    return [walk.root(int(i)) for i in ids]


@pytest.mark.parametrize("name", PAIRS)
def test_operands_that_meet_are_the_same_channels(name: str) -> None:
    walk = Propagation(trace(Pair(PAIRS[name]).eval(), {"x": torch.randn(2, 1, SIDE, SIDE)}))
    walk.run()
    assert roots(walk, "one.weight") == roots(walk, "two.weight") and len(set(roots(walk, "one.weight"))) == CHANNELS


def test_operands_that_stand_side_by_side_are_not() -> None:
    walk = Propagation(trace(Pair(lambda a, b: torch.cat([a, b], 1)).eval(), {"x": torch.randn(2, 1, SIDE, SIDE)}))
    walk.run()
    assert len({*roots(walk, "one.weight"), *roots(walk, "two.weight")}) == 2 * CHANNELS


def test_reshape_is_split_into_the_shortest_runs() -> None:
    """Products of the sizes agree in every run, and no run could be cut in two."""
    generator = np.random.default_rng(0)
    for _ in range(300):
        sizes = [int(s) for s in generator.choice([1, 2, 3, 4], size=generator.integers(1, 6))]
        before, after = _merged(sizes, generator), _merged(sizes, generator)
        runs = _matching(before, after)
        assert [i for left, _ in runs for i in left] == list(range(len(before)))
        assert [j for _, right in runs for j in right] == list(range(len(after)))
        for left, right in runs:
            lefts, rights = [before[i] for i in left], [after[j] for j in right]
            assert np.prod(lefts, dtype=int) == np.prod(rights, dtype=int)
            inner = set(np.cumprod(lefts)[:-1].tolist()) & set(np.cumprod(rights)[:-1].tolist())
            assert not {p for p in inner if 1 < p < np.prod(lefts, dtype=int)}


def _merged(sizes: list[int], generator: np.random.Generator) -> tuple[int, ...]:
    """The same number of elements with some neighbouring axes merged."""
    result: list[int] = []
    for size in sizes:
        if result and generator.random() < 0.4:
            result[-1] *= size
        else:
            result.append(size)
    return tuple(result)


def test_rules_belong_to_operators_and_all_others_are_unknown() -> None:
    assert all(isinstance(target, torch._ops.OpOverload) for target in RULES)
    assert rule_for(torch.ops.aten.relu.default) is not unknown
    assert rule_for(torch.ops.aten.softmax.int) is unknown
