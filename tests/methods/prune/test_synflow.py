"""Flow in closed form, against a network of torch whose weights are made positive, and conserved by every channel."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.prune.filters import filters
from slimline.methods.prune.synflow import synflow_importance, synflow_scores
from slimline.network.axes import Group, axis_groups
from slimline.network.network import get_tensor
from slimline.network.trace import trace
from tests.network.networks import PlainAdds, network_of, randomise_, samples


class Chain(nn.Module):
    """Layers of these widths with ReLU between them."""

    def __init__(self, *widths: int, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        result: Tensor = self.layers[-1](x)
        return result


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_network_in_closed_form(bias: bool) -> None:
    """R is a product of matrices; a channel's part is what goes in times what goes out. Biases do not count."""
    module = Chain(4, 5, 6, 3, bias=bias)
    network = trace(module, [torch.randn(2, 4)])
    found = synflow_importance(network, axis_groups(network).groups, None)
    a, b, c = (abs(layer.weight.detach().double().numpy()) for layer in module.layers)
    one, two = a @ np.ones(4), b @ a @ np.ones(4)
    np.testing.assert_allclose(found["layers.0"], one * (np.ones(3) @ c @ b), rtol=1e-6)
    np.testing.assert_allclose(found["layers.1"], two * (np.ones(3) @ c), rtol=1e-6)
    for importance in found.values():
        assert importance.sum() == pytest.approx((c @ two).sum(), rel=1e-6)


def test_a_residual_network_against_torch() -> None:
    """The module itself, in double precision, its weights positive, its batch norms factors."""
    torch.manual_seed(0)
    module = PlainAdds()
    randomise_(module)
    network = network_of("plain adds")
    assert torch.equal(module.stem.weight, network.weights()["stem.weight"])
    twin = copy.deepcopy(module).double()
    for layer in twin.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data = layer.weight.data.abs()
            layer.bias.data.zero_()
            assert layer.running_mean is not None
            layer.running_mean.zero_()
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data = layer.weight.data.abs()
            if layer.bias is not None:
                layer.bias.data.zero_()
    twin(torch.ones(1, 3, 8, 8, dtype=torch.float64)).sum().backward()

    def of(*names: str) -> Tensor:
        layers = [twin.get_submodule(name).weight for name in names]
        return sum((w * w.grad).detach().flatten(1).sum(1) for w in layers)  # type: ignore[return-value, operator]

    found = synflow_importance(network, axis_groups(network).groups, None)
    np.testing.assert_allclose(found["stem"], of("stem", "blocks.0.3", "blocks.1.3"), rtol=1e-6)
    np.testing.assert_allclose(found["blocks.1.0"], of("blocks.1.0"), rtol=1e-6)


def outgoing(
    group: Group, scores: dict[str, Tensor], consumed: set[tuple[str, int]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    total = np.zeros(group.width)
    for (weight, axis), positions in group.slices.items():
        if (weight, axis) in consumed:
            each = scores[weight].movedim(axis, 0).flatten(1).sum(1).numpy()
            total += [each[p].sum() for p in positions]
    return total


@pytest.mark.parametrize("name", ["plain adds", "projection shortcut", "flatten", "slices and upsampling", "sequence"])
def test_what_flows_into_a_channel_flows_out_of_it(name: str) -> None:
    """The law of the paper's section 4: of every channel, whatever additions, slices and joins there are."""
    network = network_of(name)
    scores, groups = synflow_scores(network), axis_groups(network).groups
    consumed = {(w, 1) for w in scores if get_tensor(network.module, w).ndim > 1} - {("up.weight", 1)} | {
        ("up.weight", 0)
    }
    for group in groups:
        incoming = sum(held.sum(1).numpy() for held in filters(network, group, scores))
        np.testing.assert_allclose(incoming, outgoing(group, scores, consumed), rtol=1e-9)
        assert np.all(np.asarray(incoming) > 0)


def test_all_that_comes_out_comes_through_every_layer() -> None:
    """Of a chain without bias the scores of each layer add up to R."""
    network = trace(Chain(4, 8, 8, 8, 3), [torch.randn(2, 4)])
    sums = [float(score.sum()) for score in synflow_scores(network).values()]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-12)


def test_what_single_precision_cannot_hold_is_computed_and_what_double_cannot_is_one_sentence() -> None:
    module = Chain(4, *[64] * 20, 3)
    for layer in module.layers:
        assert isinstance(layer, nn.Linear)
        layer.weight.data *= 1e4  # R is about 1e100, beyond 3e38
    network = trace(module, [torch.randn(2, 4)])
    found = synflow_importance(network, axis_groups(network).groups, None)
    assert min(importance.sum() for importance in found.values()) > 1e60
    for name, weight in network.weights().items():
        weight.detach().mul_(1e12 if name.startswith("layers") else 1)
    with pytest.raises(SlimlineError, match="grows beyond what double precision holds"):
        synflow_importance(network, axis_groups(network).groups, None)


def test_layers_that_saturate_let_everything_through() -> None:
    """ReLU6 would cut off a flow that grows beyond six, and softmax make all of it one."""

    class Saturated(Chain):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu6(self.layers[0](x))
            return self.layers[1](torch.sigmoid(x)).softmax(1)  # type: ignore[no-any-return]

    plain, saturated = Chain(4, 5, 3), Saturated(4, 5, 3)
    networks = [trace(module, [torch.randn(2, 4)]) for module in (plain, saturated)]
    one, other = (synflow_importance(n, axis_groups(n).groups, None)["layers.0"] for n in networks)
    np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("name", ["attention", "attention, explicit", "attention, grouped queries", "attention, gated"])
def test_queries_and_keys_get_a_flow_of_their_own(name: str) -> None:
    network = network_of(name)
    found = synflow_importance(network, axis_groups(network).groups, None)
    assert all((importance > 0).all() for importance in found.values()) and len(found) > 3


def test_fused_and_explicit_attention_are_one() -> None:
    one, other = (network_of(name) for name in ("attention", "attention, explicit"))
    for network in (one, other):
        for name, weight in network.weights().items():
            torch.manual_seed(len(name))
            weight.detach().copy_(torch.rand(weight.shape))
    found, expected = (synflow_importance(n, axis_groups(n).groups, None) for n in (one, other))
    assert found.keys() == expected.keys()
    for name, importance in found.items():
        np.testing.assert_allclose(importance / importance.sum(), expected[name] / expected[name].sum(), rtol=1e-6)


def test_a_group_that_feeds_nothing_is_one_sentence() -> None:
    network = network_of("plain adds")
    network.weights()["blocks.0.3.weight"].detach().zero_()
    with pytest.raises(SlimlineError, match=r"Nothing of SynFlow's flow passes group blocks\.0\.0: choose another"):
        PruneChannels(importance="synflow", multiple=1).apply(network)


def test_the_network_stays_as_it_was() -> None:
    network = network_of("plain adds")
    before = {name: w.detach().clone() for name, w in network.weights().items()}
    synflow_scores(network)
    assert all(torch.equal(w, before[name]) and w.grad is None for name, w in network.weights().items())
    assert network.run({"x": samples("plain adds", 2)})[0].dtype is torch.float32
