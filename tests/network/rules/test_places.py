"""Channels stay what they are where space shrinks, grows or becomes channels."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.network.axes import axis_groups
from slimline.network.trace import trace
from tests.network.rules.probes import Move, check_that_all_stay, check_that_ids_move_as_values_do

MOVES: dict[str, Move] = {
    "max pooling": lambda x: F.max_pool2d(x, 2),
    "average pooling": lambda x: F.avg_pool2d(x, 2),
    "global average": lambda x: F.adaptive_avg_pool2d(x, 1),
    "upsampling": lambda x: F.interpolate(x, scale_factor=2.0),
    "bilinear upsampling": lambda x: F.interpolate(x, size=(8, 8), mode="bilinear"),
    "bicubic upsampling": lambda x: F.interpolate(x, size=(8, 8), mode="bicubic").round(),
    "reflected places": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "adaptive max pooling": lambda x: F.adaptive_max_pool2d(x, 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "patches": lambda x: F.unfold(x, 2),
    "windows": lambda x: x.unfold(2, 2, 2),
    "3-d pooling": lambda x: F.max_pool3d(x.unsqueeze(2), (1, 2, 2)),
}


@pytest.mark.parametrize("name", MOVES)
def test_ids_move_as_the_values_do(name: str) -> None:
    check_that_ids_move_as_values_do(MOVES[name])


def test_pixel_shuffle_needs_whole_squares_of_channels() -> None:
    """Channels 0 to 3 become the places of one, 4 to 7 those of another."""

    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 8, 1), nn.Conv2d(2, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.two(F.pixel_shuffle(self.one(x), 2))
            return result

    (group,) = axis_groups(trace(Shuffled(), {"x": torch.randn(2, 1, 4, 4)})).groups
    assert [p.tolist() for p in group.slices["one.weight", 0]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [p.tolist() for p in group.slices["two.weight", 1]] == [[0], [1]]


def test_windows_of_channels_freeze_them() -> None:
    check_that_all_stay(lambda x: x.unfold(1, 2, 1))
