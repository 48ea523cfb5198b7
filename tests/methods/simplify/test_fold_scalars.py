"""Folded constants change nothing but rounding, and stay where padding, readers or places forbid to fold them."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.methods.simplify.fold_scalars import FoldScalars
from tests.methods.simplify.equality import Constant, Does, applied, count, network_of


def test_both_equations_by_hand() -> None:
    """W = (2, -1), b = 7: twice the result plus 1 is (4, -2), 15; of (3 x_1 + 1, 4 x_2): (6, -4), 9."""
    after = network_of(Does(lambda x, a: a(x) * 2 + 1, nn.Linear(2, 1)), 2)
    constants = [Constant(torch.tensor(t)) for t in ([3.0, 4.0], [1.0, 0.0])]
    before = network_of(Does(lambda x, a, s, t: a(x * s() + t()), nn.Linear(2, 1), *constants), 2)
    for network, weight, bias in ((after, [[4.0, -2.0]], [15.0]), (before, [[6.0, -4.0]], [9.0])):
        weights = network.weights()
        weights["parts.0.weight"].data.copy_(torch.tensor([[2.0, -1.0]]))
        weights["parts.0.bias"].data.fill_(7.0)
        found = FoldScalars().apply(network).network.weights()
        assert found["parts.0.weight"].tolist() == weight and found["parts.0.bias"].tolist() == bias


def channels(*shape: int) -> Constant:
    return Constant(torch.rand(shape) + 0.5, trainable=True)


Case = tuple[Callable[..., Tensor], tuple[int, ...], nn.Module, Constant]
FOLD: list[Case] = [
    (lambda x, a, c: a(x) * 3, (4,), nn.Linear(4, 5), channels(1)),
    (lambda x, a, c: 1 - a(x) / 3, (4,), nn.Linear(4, 5, bias=False), channels(1)),
    (lambda x, a, c: c() * a(x) - 2, (3, 4), nn.Linear(4, 5), channels(5)),
    (lambda x, a, c: -a(x) / c(), (4,), nn.Linear(4, 5), channels(1, 5)),
    (lambda x, a, c: a(x) + c(), (4, 6, 6), nn.Conv2d(4, 5, 3, padding=1, bias=False), channels(5, 1, 1)),
    (lambda x, a, c: (a(x) - c()) * c(), (4, 6, 6), nn.Conv2d(4, 6, 3, groups=2), channels(1, 6, 1, 1)),
    (lambda x, a, c: a(x) * c(), (4, 6, 6), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), channels(6, 1, 1)),
    (lambda x, a, c: (a(x).transpose(1, 2) * 2).transpose(1, 2), (4, 6), nn.Conv1d(4, 6, 3), channels(1)),
    (lambda x, a, c: a(x * 3), (4,), nn.Linear(4, 5), channels(1)),
    (lambda x, a, c: a((x - 0.5) / 0.25), (4, 6, 6), nn.Conv2d(4, 5, 3), channels(1)),
    (lambda x, a, c: a((x - c()) / c()), (4, 6, 6), nn.Conv2d(4, 5, 3, stride=2), channels(4, 1, 1)),
    (lambda x, a, c: a(x / c()), (4, 6, 6), nn.Conv2d(4, 5, 3, padding=1), channels(4, 1, 1)),
    (lambda x, a, c: a(x * c()), (4, 6, 6), nn.ConvTranspose2d(4, 6, 3, groups=2), channels(4, 1, 1)),
    (lambda x, a, c: a((x + c()).flatten(1)), (4, 2, 2), nn.Linear(16, 3), channels(4, 2, 2)),
    (lambda x, a, c: (a(x) @ x.mT / 4).softmax(-1), (3, 4), nn.Linear(4, 4), channels(1)),
    (lambda x, a, c: (x @ a(x).mT * 4).softmax(-1), (3, 4), nn.Linear(4, 4), channels(1)),
]


@pytest.mark.parametrize(("does", "shape", "layer", "constant"), FOLD)
def test_it_folds(does: Callable[..., Tensor], shape: tuple[int, ...], layer: nn.Module, constant: Constant) -> None:
    outcome = applied(FoldScalars(), network_of(Does(does, layer, constant), *shape))
    assert set(outcome.changed) == {"parts.0"} and not outcome.skipped
    assert count(outcome.network, "add", "sub", "rsub", "mul", "div", "neg") == 0


STAY: list[tuple[Callable[..., Tensor], tuple[int, ...], nn.Module, Constant, str]] = [
    (lambda x, a, c: a(x + 1), (4, 6, 6), nn.Conv2d(4, 5, 3, padding=1), channels(1), "zero padding is not shifted"),
    (lambda x, a, c: a(1 - x), (4, 6, 6), nn.Conv2d(4, 5, 3, padding="same"), channels(1), "zero padding"),
    (lambda x, a, c: a(x + c()), (4, 6, 6), nn.ConvTranspose2d(4, 5, 3), channels(4, 1, 1), "fewer taps than others"),
    (lambda x, a, c: a(x) * c(), (5, 4), nn.Linear(4, 5), channels(5, 1), "do not belong to the channels of linear"),
    (lambda x, a, c: a(x) * c(), (4, 6, 6), nn.Conv2d(4, 6, 1), channels(6), "do not belong to the channels of conv2d"),
    (lambda x, a, c: a(x * c()), (4, 4, 4), nn.Conv2d(4, 6, 1), channels(4), "do not belong to the channels that"),
    (lambda x, a, c: (y := a(x)) * 3 + y, (4,), nn.Linear(4, 5), channels(1), "linear is read by other operators too"),
    (lambda x, a, c: a(y := x * 3) + y, (4,), nn.Linear(4, 4), channels(1), "mul is read by several operators"),
    (lambda x, a, c: a(a(x)) * 3, (4,), nn.Linear(4, 4), channels(1), "the weight of linear_1 is shared"),
    (lambda x, a, c: a(x).relu() * 3, (4,), nn.Linear(4, 4), channels(1), "does not follow a convolution"),
    (lambda x, a, c: a(x) * c(), (4,), nn.Linear(4, 1), channels(3), "changes the shape"),
    (lambda x, a, c: a(x) / 0, (4,), nn.Linear(4, 1), channels(1), "its constant is not finite"),
    (lambda x, a, c: a(x) + 2.0**52, (4,), nn.Linear(4, 1), channels(1), "so large that adding it rounds"),
    (lambda x, a, c: (y := a(x)) @ y * 0.5, (4, 4), nn.Linear(4, 4), channels(1), "neither side of matmul"),
    (lambda x, a, c: x @ a(x).relu() * 0.5, (4, 4), nn.Linear(4, 4), channels(1), "neither side of matmul"),
    (lambda x, a, c: (y := a(x) @ x) * 0.5 + y, (4, 4), nn.Linear(4, 4), channels(1), "matmul is read by other"),
    (lambda x, a, c: a(x) @ x + 0.5, (4, 4), nn.Linear(4, 4), channels(1), "does not follow a convolution"),
    (lambda x, a, c: a(x) @ x * c(), (4, 4), nn.Linear(4, 4), channels(4), "does not follow a convolution"),
]


@pytest.mark.parametrize(("does", "shape", "layer", "constant", "why"), STAY)
def test_it_stays(
    does: Callable[..., Tensor], shape: tuple[int, ...], layer: nn.Module, constant: Constant, why: str
) -> None:
    network = network_of(Does(does, layer, constant), *shape)
    outcome = FoldScalars().apply(network) if "finite" in why else applied(FoldScalars(), network)
    (reason,) = outcome.skipped.values()
    assert not outcome.changed and why in reason
    assert outcome.network.module.code == network.module.code


def test_the_factor_of_queries_and_keys_goes_into_one_of_them() -> None:
    def attention(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module) -> Tensor:
        heads = [layer(x).view(x.shape[0], -1, 2, 3).transpose(1, 2) for layer in (q, k, v)]
        weights = F.softmax(heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(3), -1)
        return (weights @ heads[2]).transpose(1, 2).flatten(2)

    network = network_of(Does(attention, *(nn.Linear(6, 6) for _ in range(3))), 5, 6)
    outcome = applied(FoldScalars(), network)
    assert outcome.changed == ["parts.0"] and count(outcome.network, "div") == 0
    ours, theirs = (n.weights()["parts.0.weight"].detach() for n in (outcome.network, network))
    torch.testing.assert_close(ours, theirs / math.sqrt(3))


def test_whole_numbers_are_left_alone() -> None:
    network = network_of(Does(lambda x, a: a(x.argmax(1) * 2), nn.Embedding(10, 3)), 4)
    assert not applied(FoldScalars(), network).changed
