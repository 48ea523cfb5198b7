"""Folding changes nothing but rounding, agrees with torch's own fusion, and leaves alone what it cannot fold."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.methods.simplify.equality import Does, applied, count, network_of
from tests.runtimes.networks import Depthwise, Residual, images, reference, traced


def random_norm(norm: nn.Module) -> None:
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3.0)
    if norm.affine:
        norm.weight.data.normal_()
        norm.bias.data.normal_()


LAYERS: list[tuple[nn.Module, nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), (4, 3, 9)),
    (nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=0.01), (4, 3, 6, 6)),
    (nn.Conv2d(6, 6, 3, groups=3, padding="same"), nn.BatchNorm2d(6), (4, 6, 6, 6)),
    (nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), (4, 2, 3, 4, 5)),
    (nn.Linear(3, 5), nn.BatchNorm1d(5), (4, 3)),
]


@pytest.mark.parametrize(("layer", "norm", "shape"), LAYERS)
def test_the_weights_are_those_of_torchs_own_fusion(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    random_norm(norm)
    fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    theirs = fuse(layer.double().eval(), norm.double().eval())
    ours = FoldBatchNorm().apply(trace(nn.Sequential(layer.float(), norm.float()), [torch.randn(shape)])).network
    weights = list(ours.weights().values())
    assert len(weights) == 2
    torch.testing.assert_close(weights[0], theirs.weight.float())
    torch.testing.assert_close(weights[1], theirs.bias.float())


def test_equation_14_by_hand() -> None:
    """W = (2, -1), b = 7, gamma 3, beta 1, mean 5, variance 4 - eps: g = 1.5, W' = (3, -1.5), b' = 1.5 (7 - 5) + 1."""
    layer, norm = nn.Linear(2, 1), nn.BatchNorm1d(1, eps=0.5)
    for tensor, values in (
        (layer.weight, [[2.0, -1.0]]), (layer.bias, [7.0]), (norm.weight, [3.0]), (norm.bias, [1.0]),
        (norm.running_mean, [5.0]), (norm.running_var, [3.5]),
    ):  # fmt: skip
        assert tensor is not None
        tensor.data = torch.tensor(values)
    network = FoldBatchNorm().apply(trace(nn.Sequential(layer, norm), [torch.randn(2, 2)])).network
    weight, bias = network.weights().values()
    assert weight.tolist() == [[3.0, -1.5]] and bias.tolist() == [4.0]


@pytest.mark.parametrize(("module", "norms"), [(Residual, 3), (Depthwise, 2)])
def test_outputs_stay_equal_to_rounding(module: type[nn.Module], norms: int) -> None:
    network = traced(module())
    outcome = FoldBatchNorm().apply(network)
    left = [n for n in outcome.network.module.graph.nodes if "batch_norm" in str(n.target)]
    assert len(outcome.changed) == norms and not left and not outcome.skipped
    before, after = (reference(n, images(16)) for n in (network, outcome.network))
    assert abs(before - after).max() <= 1e-5 * abs(before).max()
    assert outcome.network.parameter_count() < network.parameter_count()


class Odd(nn.Module):
    """One norm for every reason not to fold, and one that can be."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](x)  # after no layer
        y = self.first(x)
        x = self.norms[1](y) + y  # the layer is read by the addition too
        x = self.norms[2](self.twice(x)) + self.norms[3](self.twice(2 * x))  # one weight, two norms
        result: Tensor = self.norms[4](self.last(x))
        return result


class Plain(nn.Module):
    """A norm without scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.layer(x))
        return result


class Tied(nn.Module):
    """Two layers that share one weight under two names, one of them with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.normed, self.plain, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.plain.weight = self.normed.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.plain(torch.relu(self.norm(self.normed(x))))
        return result


def skipped_and_equal(module: nn.Module) -> tuple[Network, dict[str, str]]:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            random_norm(part)
    network = trace(module.eval(), {"x": torch.randn(2, 3, 12, 12)})
    outcome = FoldBatchNorm().apply(network)
    before, after = (reference(n, images(8)) for n in (network, outcome.network.verify()))
    assert abs(before - after).max() <= 1e-5 * abs(before).max()
    return outcome.network, outcome.skipped


def test_what_cannot_be_folded_is_left_with_its_reason() -> None:
    _, skipped = skipped_and_equal(Odd())
    assert list(skipped.values()) == [
        "does not follow a convolution or linear layer",
        "conv2d is read by other operators too",
        "the weight of conv2d_1 is shared or computed",
        "the weight of conv2d_2 is shared or computed",
    ]


def test_a_weight_shared_under_two_names_is_left_alone() -> None:
    _, skipped = skipped_and_equal(Tied())
    assert list(skipped.values()) == ["the weight of conv2d is shared or computed"]


def test_a_norm_in_training_mode_is_left_alone() -> None:
    network = traced(Residual()).set_training_(True)
    outcome = FoldBatchNorm().apply(network)
    assert not outcome.changed and set(outcome.skipped.values()) == {"uses the statistics of the batch"}


def test_a_norm_without_scale_and_shift_is_folded_too() -> None:
    network, skipped = skipped_and_equal(Plain())
    assert not skipped and len(network.weights()) == 2


PLACES: list[tuple[Callable[..., Tensor], tuple[int, ...], nn.Module, nn.Module, bool]] = [
    (lambda x, a, n: n(a(x)), (4, 5, 5), nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), True),
    (lambda x, a, n: n(a(x)), (4, 5, 5), nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False), nn.BatchNorm2d(6), True),
    (lambda x, a, n: n(a(x)), (4, 9), nn.ConvTranspose1d(4, 4, 3, groups=4), nn.BatchNorm1d(4), True),
    (lambda x, a, n: n(a(x)), (4, 5, 5), nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6), True),
    (lambda x, a, n: n(a(x).transpose(1, 2)), (5, 4), nn.Linear(4, 3), nn.BatchNorm1d(3), True),
    (lambda x, a, n: n(a(x).permute(0, 3, 1, 2)), (5, 5, 4), nn.Linear(4, 3), nn.BatchNorm2d(3), True),
    (lambda x, a, n: n(a(x).mT.contiguous().view(x.shape[0], 3, 5)).flatten(1), (5, 4), nn.Linear(4, 3),
     nn.BatchNorm1d(3), True),
    (lambda x, a, n: n(F.pixel_shuffle(a(x), 2)), (4, 3, 3), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(2), True),
    # the norm is per row, as many rows as features or not
    (lambda x, a, n: n(a(x)), (5, 4), nn.Linear(4, 3), nn.BatchNorm1d(5), False),
    (lambda x, a, n: n(a(x)), (3, 4), nn.Linear(4, 3), nn.BatchNorm1d(3), False),
    (lambda x, a, n: n(a(x).flatten(1)), (4, 3, 3), nn.Conv2d(4, 2, 1), nn.BatchNorm1d(18), False),
    (lambda x, a, n: n(a(x)), (3, 4, 3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), True),
    (lambda x, a, n: n(a(x).transpose(1, 2)), (3, 4, 3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), False),
]  # fmt: skip


@pytest.mark.parametrize(("does", "shape", "layer", "norm", "folds"), PLACES)
def test_every_kind_of_layer_and_only_along_its_channels(
    does: Callable[..., Tensor], shape: tuple[int, ...], layer: nn.Module, norm: nn.Module, folds: bool
) -> None:
    outcome = applied(FoldBatchNorm(), network_of(Does(does, layer, norm), *shape))
    assert count(outcome.network, "batch_norm") == (0 if folds else 1)
    assert (outcome.changed == ["parts.0"]) is folds
    assert [why.startswith("its scales do not belong") for why in outcome.skipped.values()] == [True] * (not folds)
