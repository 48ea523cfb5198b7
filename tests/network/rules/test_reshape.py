"""Rearranged values keep what they depend on."""

import numpy as np
import pytest
import torch
from torch import Tensor

from slimline.network.rules.reshape import matching
from tests.network.rules.probes import (
    CHANNELS,
    SIDE,
    Move,
    check_that_all_stay,
    check_that_ids_move_as_values_do,
    walked,
)

MOVES: dict[str, Move] = {
    "flatten": lambda x: x.flatten(1),
    "flatten places": lambda x: x.flatten(2),
    "view": lambda x: x.view(x.shape[0], CHANNELS, SIDE * SIDE),
    "view with -1": lambda x: x.view(x.shape[0], -1, SIDE),
    "reshape to rows": lambda x: x.permute(0, 2, 3, 1).reshape(-1, CHANNELS).view(x.shape[0], -1, CHANNELS),
    "split": lambda x: x.view(x.shape[0], 2, 3, SIDE, SIDE),
    "split in three": lambda x: x.view(x.shape[0], 2, 1, 3, SIDE * SIDE),
    "split and joined again": lambda x: x.view(x.shape[0], 3, 2, SIDE, SIDE).flatten(1, 2),
    "split, turned, joined": lambda x: x.view(x.shape[0], 3, 2, SIDE, SIDE).transpose(1, 2).flatten(1, 2),
    "unflatten": lambda x: x.unflatten(1, (3, 2)),
    "mixed with places": lambda x: x.view(x.shape[0], 3, 2 * SIDE, SIDE),
    "joined with the batch": lambda x: x.reshape(-1, SIDE, SIDE).reshape(x.shape[0], -1, SIDE, SIDE),
    "joined with the batch and split": lambda x: x.view(-1, 3, SIDE, SIDE).view(-1, 2, 3, SIDE, SIDE),
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "channels last, flat": lambda x: x.permute(0, 2, 3, 1).flatten(1),
    "transpose": lambda x: x.transpose(1, 3),
    "transpose from the end": lambda x: x.transpose(-3, -2),
    "movedim": lambda x: x.movedim(1, -1),
    "mT": lambda x: x.flatten(2).mT,
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "unsqueeze at the end": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x.mean((2, 3), keepdim=True).squeeze(3),
    "squeeze two": lambda x: x.mean((2, 3), keepdim=True).squeeze((-1, 2)),
    "indexing with None": lambda x: x.mean((2, 3))[:, :, None, None],
    "expand": lambda x: x[:, :, None].expand(-1, -1, 3, -1, -1),
    "expand at the front": lambda x: x.unsqueeze(1).expand(x.shape[0], 2, CHANNELS, SIDE, SIDE),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "repeat interleave": lambda x: x.repeat_interleave(3, 1),
    "channel shuffle": lambda x: torch.channel_shuffle(x, 3),
    "channel shuffle twice": lambda x: torch.channel_shuffle(torch.channel_shuffle(x, 2), 2),
}


@pytest.mark.parametrize("name", [n for n in MOVES if not n.startswith(("expand", "repeat"))])
def test_ids_move_as_the_values_do(name: str) -> None:
    check_that_ids_move_as_values_do(MOVES[name])


@pytest.mark.parametrize("name", ["expand", "expand at the front", "repeat", "repeat interleave"])
def test_copies_of_a_channel_depend_on_it(name: str) -> None:
    """Copies along a new axis may also go one by one: they depend on more than the channel."""
    got, values = walked(MOVES[name]), MOVES[name](torch.arange(6.0)[None, :, None, None].expand(2, -1, SIDE, SIDE))
    for place in np.ndindex(*values.shape):
        own = [got.walk.plain(int(ids[p])) for ids, p in zip(got.after, place, strict=True) if ids is not None]
        assert got.walk.plain(got.channels[int(values[place])]) <= frozenset().union(*own)


def test_a_split_leaves_whole_rows_and_columns_to_go() -> None:
    got = walked(lambda x: x.view(x.shape[0], 2, 3, SIDE, SIDE))
    plain = [got.walk.plain(c) for c in got.channels]
    assert all(len(p) == 2 for p in plain) and len(frozenset().union(*plain)) == 5
    assert all(len(plain[i] & plain[j]) == (i // 3 == j // 3) + (i % 3 == j % 3) for i in range(6) for j in range(i))


def test_grids_that_cross_each_other_stay() -> None:
    """Rows of two and rows of three: nothing can go that leaves both of them whole."""
    check_that_all_stay(lambda x: x.view(x.shape[0], 3, 2, 4, 4).flatten(1, 2).view(x.shape[0], 2, 3, 4, 4))


def test_reshape_is_split_into_the_shortest_runs() -> None:
    """Products of the sizes agree in every run, and no run could be cut in two."""
    generator = np.random.default_rng(0)
    for _ in range(300):
        sizes = [int(s) for s in generator.choice([1, 2, 3, 4], size=generator.integers(1, 6))]
        before, after = _merged(sizes, generator), _merged(sizes, generator)
        runs = matching(before, after)
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


def test_a_new_tensor_has_positions_of_its_own() -> None:
    def move(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(x.shape[0], 2, SIDE, SIDE), torch.ones(x.shape[0], 1, SIDE, SIDE)], 1)

    got = walked(move)
    assert got.after[1] is None  # a single new channel cannot go
    assert all(got.kept())
