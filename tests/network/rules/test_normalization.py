"""Norms shrink with what they normalise; where an average changes, a network built smaller says what is right."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.network.axes import axis_groups, prune
from slimline.network.trace import trace
from tests.network.rules.probes import walked


class RootMeanSquare(nn.Module):
    """Written out, as exported encoders have it (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Normed(nn.Module):
    """A linear layer, a norm of its outputs, a linear layer."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(5, width), norm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.two(torch.tanh(self.norm(self.one(x))))
        return result


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer norm": nn.LayerNorm,
    "layer norm without weights": lambda n: nn.LayerNorm(n, elementwise_affine=False),
    "rms norm": nn.RMSNorm,
    "rms norm, written out": RootMeanSquare,
    "one group": lambda n: nn.GroupNorm(1, n),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_narrower_norm_is_that_of_a_network_built_narrower(name: str) -> None:
    torch.manual_seed(0)
    module, small = Normed(8, NORMS[name]), Normed(5, NORMS[name])
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    found = axis_groups(trace(module.eval(), {"x": torch.randn(2, 5)}))
    (group,) = found.groups
    assert group.width == 8 and "is averaged over by" in group.inexact
    kept = np.array([0, 2, 3, 6, 7])
    state = {}
    for key, value in module.state_dict().items():
        state[key] = value if key == "two.bias" else value[:, kept] if key == "two.weight" else value[kept]
    small.load_state_dict(state)
    x = torch.randn(4, 5)
    pruned = prune(found.propagation.network, found, {group.name: kept})
    torch.testing.assert_close(pruned.run({"x": x})[0], small.eval()(x).detach())


def test_whole_groups_of_a_group_norm_go_exactly_and_places_of_all_groups_do_not() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm, self.two = nn.Conv2d(3, 12, 1), nn.GroupNorm(3, 12), nn.Conv2d(12, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.two(F.relu(self.norm(self.one(x))))
            return result

    found = axis_groups(trace(Grouped().eval(), {"x": torch.randn(2, 3, 4, 4)}))
    whole, places = sorted(found.groups, key=lambda g: g.width)
    assert (whole.width, whole.span, whole.inexact) == (3, 4, "")
    assert (places.width, places.span) == (4, 3) and "is averaged over by group_norm" in places.inexact
    smaller = prune(found.propagation.network, found, {whole.name: np.array([0, 2]), places.name: np.array([1, 2, 3])})
    (norm,) = [n for n in smaller.module.graph.nodes if n.target is torch.ops.aten.group_norm.default]
    assert norm.args[1] == 2 and smaller.weights()["norm.weight"].shape == (6,)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_batch_and_instance_norms_are_exact(norm: Callable[..., nn.Module]) -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm, self.two = nn.Conv2d(3, 6, 1), norm(6, affine=True), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.two(torch.tanh(self.norm(self.one(x))))
            return result

    module = Between().eval()
    found = axis_groups(trace(module, {"x": torch.randn(2, 3, 4, 4)}))
    (group,) = found.groups
    assert not group.inexact and {"norm.weight", "norm.bias"} <= set(group.weights)
    x, kept = torch.randn(3, 3, 4, 4), np.array([0, 4, 5])
    hidden = torch.tanh(module.norm(module.one(x)))[:, kept]
    expected = F.conv2d(hidden, module.two.weight[:, kept], module.two.bias)
    got = prune(found.propagation.network, found, {group.name: kept}).run({"x": x})[0]
    torch.testing.assert_close(got, expected.detach())


def test_weights_that_are_standardised_change_with_the_channels_they_read() -> None:
    """As in Big Transfer (Kolesnikov et al. 2020): every filter is normalised over all it reads."""

    class Standardised(nn.Module):
        def __init__(self, width: int = 6) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(3, width, 1), nn.Conv2d(width, 5, 3), nn.Conv2d(5, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.two.weight
            weight = F.batch_norm(weight.reshape(1, 5, -1), None, None, training=True).reshape(weight.shape)
            result: Tensor = self.three(torch.tanh(F.conv2d(torch.tanh(self.one(x)), weight, self.two.bias)))
            return result

    module = Standardised().eval()
    found = axis_groups(trace(module, {"x": torch.randn(2, 3, 5, 5)}))
    assert {g.width: bool(g.inexact) for g in found.groups} == {6: True, 5: False}
    group = next(g for g in found.groups if g.width == 6)
    x, kept = torch.randn(3, 3, 5, 5), np.array([0, 2, 5])
    small = Standardised(3).eval()
    state = {k: v[kept] if k.startswith("one") else v for k, v in module.state_dict().items()}
    small.load_state_dict({**state, "two.weight": state["two.weight"][:, kept]})
    got = prune(found.propagation.network, found, {group.name: kept}).run({"x": x})[0]
    torch.testing.assert_close(got, small(x).detach())


def test_a_norm_over_channels_and_places_keeps_the_places() -> None:
    got = walked(lambda x: F.layer_norm(x, x.shape[1:]))
    assert got.after[1] is not None and got.after[2:] == [None, None]
