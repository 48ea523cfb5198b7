"""Joined, cut and chosen axes."""

import pytest
import torch
import torch.nn.functional as F

from tests.network.rules.probes import Move, check_that_all_stay, check_that_ids_move_as_values_do, walked

MOVES: dict[str, Move] = {
    "slice": lambda x: x[:, 1:4],
    "slice from the end": lambda x: x[:, -2:],
    "slice of places": lambda x: x[:, :, ::2, 1:3],
    "narrow": lambda x: x.narrow(1, 2, 3),
    "select": lambda x: x.unflatten(1, (2, 3))[:, 1],
    "zero channels": lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)),
    "zero places": lambda x: F.pad(x, (1, 1, 2, 0)) + 0,
    "cat": lambda x: torch.cat([x, x], 1),
    "cat of slices": lambda x: torch.cat([x[:, 4:], x[:, :2]], -3),
    "cat of places": lambda x: torch.cat([x, x], 2),
    "stack": lambda x: torch.stack([x, x], 1),
    "stack at the end": lambda x: torch.stack([x, x], -1),
    "split": lambda x: torch.cat(x.split(4, 1)[::-1], 1),
    "split by sizes": lambda x: x.split([1, 3, 2], 1)[1],
    "chunk": lambda x: torch.cat(x.chunk(4, 1)[1:], 1),
    "tensor_split": lambda x: x.tensor_split(4, 1)[1],
    "unbind": lambda x: x.unflatten(1, (2, 3)).unbind(1)[0],
    "index": lambda x: x[:, :, torch.tensor([0, 2])],
    "index of two axes": lambda x: x[:, :, torch.tensor([0, 2]), torch.tensor([1, 1])],
    "index_select": lambda x: x.index_select(3, torch.tensor([0, 2])),
}
STAYING: dict[str, Move] = {
    "every second": lambda x: x[:, ::2],
    "gather": lambda x: x[:, torch.tensor([1, 0])],
    "chosen by truth": lambda x: x[:, :, torch.tensor([True, False, True, False])][:, torch.tensor([0])],
    "chosen apart": lambda x: x.transpose(1, 2)[:, torch.tensor([0, 2]), :, torch.tensor([1, 1])].transpose(0, 1),
    "gather by place": lambda x: x.gather(1, (x * 0).long()),
    "unbind": lambda x: x.unbind(1)[0],
    "circular padding of channels": lambda x: F.pad(x, (0, 0, 0, 0, 1, 1), mode="circular"),
    "cut off by padding": lambda x: F.pad(x, (0, 0, 0, 0, -1, 0)),
}


@pytest.mark.parametrize("name", MOVES)
def test_ids_move_as_the_values_do(name: str) -> None:
    check_that_ids_move_as_values_do(MOVES[name])


@pytest.mark.parametrize("name", STAYING)
def test_what_chooses_channels_freezes_them(name: str) -> None:
    check_that_all_stay(STAYING[name])


def test_only_what_is_selected_stays() -> None:
    reasons = walked(lambda x: x.select(1, 4)).kept()
    assert [place for place, reason in enumerate(reasons) if reason] == [4]
    assert reasons[4] == "is taken out by select.int (select)"


def test_padding_adds_channels_of_its_own() -> None:
    got = walked(lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)))
    ids = got.after[1]
    assert ids is not None and len(ids) == 11
    assert ids[2:8].tolist() == got.channels and len(set(ids.tolist())) == 11
