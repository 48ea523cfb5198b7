"""Values that meet position by position are the same channels."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.network.propagation import Propagation
from slimline.network.trace import trace
from tests.network.rules.probes import CHANNELS, SIDE, Move, check_that_ids_move_as_values_do, walked

MOVES: dict[str, Move] = {
    "clone": lambda x: x.contiguous().clone(),
    "dropout": lambda x: F.dropout2d(F.dropout(x, training=False), training=False),
    "identities": lambda x: x.relu().abs().clamp(0, 9).clamp_min(0).to(torch.float64),
    "scaled": lambda x: 2 * x - x,
    "where": lambda x: torch.where(x > 0, x, 0 * x),
    "masked": lambda x: x.masked_fill(x < 0, 1.0),
    "prelu": lambda x: F.prelu(x, torch.full((CHANNELS,), 0.1, dtype=x.dtype)),
    "one slope": lambda x: F.prelu(x, torch.full((1,), 0.1, dtype=x.dtype)),
    "power": lambda x: (x**2).sqrt(),
}


@pytest.mark.parametrize("name", MOVES)
def test_ids_move_as_the_values_do(name: str) -> None:
    check_that_ids_move_as_values_do(MOVES[name])


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
    "interpolated": lambda a, b: torch.lerp(a, b, 0.3),
    "product added": lambda a, b: torch.addcmul(a, b, b),
    "chosen": lambda a, b: torch.where(a > 0, a, b),
    "gated halves": lambda a, b: F.glu(torch.cat([a, b], 1), 1),
    "contracted": lambda a, b: a.flatten(2).transpose(1, 2) @ b.flatten(2),
    "stacked": lambda a, b: torch.stack([a, b], 1),
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


def pair(combine: Callable[[Tensor, Tensor], Tensor]) -> Propagation:
    walk = Propagation(trace(Pair(combine).eval(), {"x": torch.randn(2, 1, SIDE, SIDE)}))
    walk.run()
    return walk


@pytest.mark.parametrize("name", PAIRS)
def test_operands_that_meet_are_the_same_channels(name: str) -> None:
    walk = pair(PAIRS[name])
    assert roots(walk, "one.weight") == roots(walk, "two.weight") and len(set(roots(walk, "one.weight"))) == CHANNELS


def test_operands_that_stand_side_by_side_are_not() -> None:
    walk = pair(lambda a, b: torch.cat([a, b], 1))
    assert len({*roots(walk, "one.weight"), *roots(walk, "two.weight")}) == 2 * CHANNELS


def test_an_axis_of_length_one_meets_nothing() -> None:
    assert not any(walked(lambda x: x * x.mean(1, keepdim=True)).kept())


def test_a_value_without_ids_freezes_what_meets_it() -> None:
    reasons = walked(lambda x: x + torch.arange(CHANNELS)[None, :, None, None]).kept()
    assert all(r is not None and "meets an axis that cannot be pruned in add" in r for r in reasons)
