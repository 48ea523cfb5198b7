"""Folding forwards changes nothing but rounding, and leaves a norm alone where zeros are put in behind it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.methods.simplify.fold_batch_norm_before import FoldBatchNormBefore
from tests.methods.simplify.equality import Does, applied, count, network_of


def test_the_equation_by_hand() -> None:
    """W = (2, -1), b = 7; channel 0: g = 3, shift 0.5; channel 1: g = 4, shift -2: W' = (6, -4), b' = 7 + 1 + 2."""
    norm, layer = nn.BatchNorm1d(2, eps=0.0), nn.Linear(2, 1)
    network = network_of(Does(lambda x, n, a: a(n(x)), norm, layer), 2)
    values = {
        "running_mean": [1.0, 2.0], "running_var": [4.0, 0.25], "0.weight": [6.0, 2.0], "0.bias": [3.5, 6.0],
        "1.weight": [[2.0, -1.0]], "1.bias": [7.0],
    }  # fmt: skip
    for name, tensor in network.weights().items():
        tensor.data.copy_(torch.tensor(next(v for ending, v in values.items() if name.endswith(ending))))
    weight, bias = FoldBatchNormBefore().apply(network).network.weights().values()
    np.testing.assert_allclose(weight.detach().numpy(), [[6.0, -4.0]])
    np.testing.assert_allclose(bias.detach().numpy(), [7 + 2 * 0.5 + -1 * -2])


FOLDS: list[tuple[Callable[..., Tensor], tuple[int, ...], nn.Module, nn.Module]] = [
    (lambda x, n, a: a(n(x)), (4,), nn.BatchNorm1d(4), nn.Linear(4, 3)),
    (lambda x, n, a: a(n(x)), (4,), nn.BatchNorm1d(4), nn.Linear(4, 3, bias=False)),
    (lambda x, n, a: a(n(x)), (4, 6, 6), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, stride=2)),
    (lambda x, n, a: a(n(x)), (4, 6, 6), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 6, 3, groups=2, bias=False)),
    (lambda x, n, a: a(n(x)), (4, 6, 6), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4, padding="valid")),
    (lambda x, n, a: a(n(x)), (4, 6, 6), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1, padding="same")),
    (lambda x, n, a: a(n(x)), (4, 9), nn.BatchNorm1d(4), nn.Conv1d(4, 6, 3, dilation=2)),
    (lambda x, n, a: a(n(x)), (4, 6, 6), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 1, groups=2)),
    (lambda x, n, a: a(n(x).flatten(1)), (4, 2, 3), nn.BatchNorm2d(4), nn.Linear(24, 3)),
    (lambda x, n, a: a(n(x).transpose(1, 2)), (4, 6), nn.BatchNorm1d(4), nn.Linear(4, 3)),
    (lambda x, n, a: a(n(x)[:, 1:3]), (4, 6, 6), nn.BatchNorm2d(4), nn.Conv2d(2, 3, 1)),
    (lambda x, n, a: a(n(x).view(x.shape[0], 4, 1, 1)), (4,), nn.BatchNorm1d(4), nn.Conv2d(4, 3, 1)),
]


@pytest.mark.parametrize(("does", "shape", "norm", "layer"), FOLDS)
def test_every_kind_of_layer(
    does: Callable[..., Tensor], shape: tuple[int, ...], norm: nn.Module, layer: nn.Module
) -> None:
    outcome = applied(FoldBatchNormBefore(), network_of(Does(does, norm, layer), *shape))
    assert outcome.changed == ["parts.1"] and not outcome.skipped and count(outcome.network, "batch_norm") == 0
    assert len(outcome.network.weights()) == 2


PADDED = [
    nn.Conv2d(4, 3, 3, padding=1),
    nn.Conv2d(4, 3, 3, padding="same"),
    nn.Conv2d(4, 4, 1, padding=(0, 1), groups=4, bias=False),
    nn.ConvTranspose2d(4, 3, 3),
    nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2, bias=False),
]


@pytest.mark.parametrize("layer", PADDED)
@pytest.mark.parametrize("shifts", [True, False])
def test_a_layer_that_pads_takes_in_a_scale_and_no_shift(layer: nn.Module, shifts: bool) -> None:
    """With the shift folded, every place at the border would be wrong: `applied` compares them all."""
    network = network_of(Does(lambda x, n, a: a(n(x)), nn.BatchNorm2d(4), layer), 4, 6, 6)
    if not shifts:
        for name, tensor in network.weights().items():
            if name.endswith("mean") or name == "parts.0.bias":
                tensor.data.zero_()
    outcome = applied(FoldBatchNormBefore(), network)
    assert count(outcome.network, "batch_norm") == int(shifts)
    if shifts:
        (why,) = outcome.skipped.values()
        assert "zero padding is not shifted" in why or "fewer taps" in why


def test_a_shift_of_one_channel_is_enough_to_stay() -> None:
    network = network_of(Does(lambda x, n, a: a(n(x)), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1)), 4, 6, 6)
    for name, tensor in network.weights().items():
        if name.endswith("mean") or name == "parts.0.bias":
            tensor.data.zero_()
            tensor.data[3] = 1e-6 if name.endswith("mean") else 0.0
    assert not applied(FoldBatchNormBefore(), network).changed


STAYS: list[tuple[Callable[..., Tensor], tuple[int, ...], nn.Module, nn.Module, str]] = [
    (lambda x, n, a: a(F.relu(n(x))), (4,), nn.BatchNorm1d(4), nn.Linear(4, 4), "is not followed by"),
    (lambda x, n, a: a(y := n(x)) + y, (4,), nn.BatchNorm1d(4), nn.Linear(4, 4), "read by several operators"),
    (lambda x, n, a: a(a(n(x))), (4,), nn.BatchNorm1d(4), nn.Linear(4, 4), "shared or computed"),
    (lambda x, n, a: a(F.pad(n(x), (1, 1))), (4, 5), nn.BatchNorm1d(4), nn.Conv1d(4, 3, 3), "is not followed by"),
    (lambda x, n, a: a(n(x)), (5, 4), nn.BatchNorm1d(5), nn.Linear(4, 3), "do not belong to the channels"),
    (lambda x, n, a: a(n(x)), (4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3), "do not belong to the channels"),
    (lambda x, n, a: n(a(x)), (4,), nn.BatchNorm1d(4), nn.Linear(4, 4), "is not followed by"),
]


@pytest.mark.parametrize(("does", "shape", "norm", "layer", "why"), STAYS)
def test_what_stays_and_why(
    does: Callable[..., Tensor], shape: tuple[int, ...], norm: nn.Module, layer: nn.Module, why: str
) -> None:
    outcome = applied(FoldBatchNormBefore(), network_of(Does(does, norm, layer), *shape))
    (reason,) = outcome.skipped.values()
    assert not outcome.changed and why in reason and count(outcome.network, "batch_norm") == 1


def test_a_norm_in_training_mode_stays() -> None:
    network = network_of(Does(lambda x, n, a: a(n(x)), nn.BatchNorm1d(4), nn.Linear(4, 3)), 4).set_training_(True)
    outcome = FoldBatchNormBefore().apply(network)
    assert not outcome.changed and set(outcome.skipped.values()) == {"uses the statistics of the batch"}
