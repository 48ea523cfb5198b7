"""What is averaged over can go inexactly; what order matters to stays."""

import pytest
import torch

from tests.network.rules.probes import Move, check_that_all_stay, check_that_ids_move_as_values_do, walked

MOVES: dict[str, Move] = {
    "mean over places": lambda x: x.mean((2, 3)),
    "largest of the places": lambda x: x.amax((-1, -2), keepdim=True),
    "softmax over places": lambda x: x + 0 * x.softmax(2),
    "norm over places": lambda x: x / torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True) * x.amax((2, 3), True) * 4,
    "roll of places": lambda x: x.roll(1, 2),
    "flip of places": lambda x: x.flip(3),
    "max of places": lambda x: x.max(2)[0],
}
STAYING: dict[str, Move] = {
    "roll": lambda x: torch.roll(x, 1, 1),
    "flip": lambda x: x.flip(1),
    "softmax": lambda x: x.softmax(1),
    "cumsum": lambda x: x.cumsum(1),
    "argmax": lambda x: x.argmax(1),
    "max": lambda x: x.max(1)[0],
    "mean of all, in one number": lambda x: x.mean().expand(x.shape[0]),
}


@pytest.mark.parametrize("name", MOVES)
def test_ids_move_as_the_values_do(name: str) -> None:
    check_that_ids_move_as_values_do(MOVES[name])


@pytest.mark.parametrize("name", STAYING)
def test_what_needs_all_channels_freezes_them(name: str) -> None:
    check_that_all_stay(STAYING[name])


@pytest.mark.parametrize(
    ("move", "exact"),
    [
        (lambda x: x.mean(1), False),
        (lambda x: x.mean((1, 2, 3)), False),
        (lambda x: x.var(1), False),
        (lambda x: x.amax(1), False),
        (lambda x: x.logsumexp(1), False),
        (lambda x: x.sum(1, keepdim=True), True),
        (lambda x: torch.linalg.vector_norm(x, dim=1), True),
        (lambda x: x.mean((2, 3)), True),
    ],
)
def test_zeros_change_an_average_and_not_a_sum(move: Move, exact: bool) -> None:
    """Whether a rule says so agrees with what the operator does to the channels that are left."""
    got = walked(move)
    assert not any(got.kept())
    assert bool(got.walk.inexact()) == (not exact)
    x = -torch.rand(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    zeroed = torch.cat([torch.zeros(2, 3, 4, 4), x[:, 3:]], 1)
    whole, less = move(zeroed), move(x[:, 3:])
    assert torch.allclose(whole[:, -3:] if whole.shape != less.shape else whole, less) == exact
