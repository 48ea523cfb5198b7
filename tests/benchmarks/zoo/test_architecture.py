"""Random weights that are alive: of the right size, moved from where they start, tied ones drawn once."""

import numpy as np
import torch
from torch import nn

from zoo.architecture import built, floats, images, integers, randomise_, together, tokens


def test_kernels_keep_the_size_of_what_flows_through() -> None:
    """He: the variance of a kernel is 2 / fan-in; transposed ones read kernel / stride pixels of each channel."""
    torch.manual_seed(1)
    conv, grouped = nn.Conv2d(64, 256, 3), nn.Conv1d(64, 256, 5, groups=4)
    up, linear = nn.ConvTranspose2d(64, 256, 4, stride=2), nn.Linear(512, 256)
    for part, variance in ((conv, 2 / 576), (grouped, 2 / 80), (up, 2 / 256), (linear, 1 / 512)):
        randomise_(part)
        assert abs(float(part.weight.detach().var()) / variance - 1) < 0.05
    x = torch.randn(4, 64, 16, 16)
    inner = up(x)[:, :, 4:-4, 4:-4].detach()
    assert abs(float(inner.var()) / 2 - 1) < 0.1


def test_a_norm_that_starts_at_zero_is_about_one_and_other_parameters_are_moved() -> None:
    norm, plain = nn.LayerNorm(4096), nn.Embedding(64, 64)
    nn.init.zeros_(norm.weight)
    before = plain.weight.detach().clone()
    randomise_(nn.ModuleList([norm, plain]))
    weight = norm.weight.detach()
    assert abs(float(weight.mean()) - 1) < 0.01 and abs(float(weight.std()) - 0.1) < 0.01
    assert abs(float(norm.bias.detach().std()) - 0.1) < 0.01
    assert abs(float((plain.weight.detach() - before).std()) - 0.1) < 0.01


def test_tied_weights_are_drawn_once_and_frozen_ones_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(50, 64), nn.Linear(64, 50, bias=False)
            self.head.weight = self.table.weight
            self.sines = nn.Parameter(torch.ones(3), requires_grad=False)

    module = Tied()
    before = module.table.weight.detach().clone()
    randomise_(module)
    assert module.head.weight is module.table.weight and torch.equal(module.sines, torch.ones(3))
    assert abs(float((module.table.weight.detach() - before).std()) - 0.1) < 0.01


def test_batch_norms_have_the_statistics_of_a_batch_moved_a_little() -> None:
    """With numpy: the norm sees 5 x + 3 of a known batch."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(32)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.norm(5 * image + 3)
            return result

    inputs = images(32, 6)
    norm = built(Shifted, inputs).get_submodule("norm")
    seen = 5 * inputs(8)["image"].double().numpy() + 3
    mean, variance = seen.mean((0, 2, 3)), seen.var((0, 2, 3), ddof=1)
    moved = (norm.running_mean.double().numpy() - mean) / np.sqrt(variance)
    ratio = norm.running_var.double().numpy() / variance
    assert 0.05 < moved.std() < 0.2 and np.abs(moved).max() < 0.5
    assert 0.699 < ratio.min() < ratio.max() < 1.401 and ratio.std() > 0.1
    assert norm.momentum == 0.1 and not norm.training


def test_inputs_have_the_shapes_that_were_asked_for() -> None:
    make = together(
        floats(dense=(7,)), images(3, 4, 5), tokens(9, (6,)), integers({"user": (5, ()), "history": (8, (2,))})
    )
    found = {name: tuple(value.shape) for name, value in make(2).items()}
    assert found == {"dense": (2, 7), "image": (2, 3, 4, 5), "tokens": (2, 6), "user": (2,), "history": (2, 2)}
    many = make(500)
    assert sorted(many["tokens"].unique().tolist()) == list(range(9))
    assert sorted(many["user"].unique().tolist()) == list(range(5))
