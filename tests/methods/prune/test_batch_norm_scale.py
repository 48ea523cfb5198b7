"""Gammas against loops; without batch norm, standard deviations, which are what folding leaves of a gamma."""

import numpy as np
import pytest
import torch
from torch import nn

from slimline.errors import SlimlineError
from slimline.methods.prune.batch_norm_scale import scale_importance, scaled_by
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network.axes import axis_groups
from slimline.network.network import Network
from slimline.network.shapes import recorded
from slimline.network.trace import trace
from slimline.task import Task
from tests.methods.prune.test_l1 import Two
from tests.network.networks import network_of, samples
from tests.toys import patterns, toy


def gammas(network: Network, *names: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return sum(network.weights()[f"{name}.weight"].detach().double().abs().numpy() for name in names)  # type: ignore[return-value]


def test_the_gammas_of_all_layers_that_put_out_a_channel_are_added() -> None:
    """Signs do not count, and no data are needed."""
    network = network_of("plain adds")
    network.weights()["blocks.0.4.weight"].detach()[::2] *= -1
    found = scale_importance(network, axis_groups(network).groups, None)
    np.testing.assert_allclose(found["stem"], gammas(network, "stem_norm", "blocks.0.4", "blocks.1.4"), rtol=1e-6)
    np.testing.assert_allclose(found["blocks.0.0"], gammas(network, "blocks.0.1"), rtol=1e-6)


def test_a_channel_behind_a_flattening_batch_norm_has_its_own() -> None:
    network = network_of("flatten")
    found = scale_importance(network, axis_groups(network).groups, None)
    np.testing.assert_allclose(found["features.0"], gammas(network, "features.1"), rtol=1e-6)
    np.testing.assert_allclose(found["hidden"], gammas(network, "norm"), rtol=1e-6)


def test_batch_norms_before_the_layers_that_read_count_alone() -> None:
    """A dense block normalises what it has joined: the stem's channels are scaled by the first of each norm."""
    network = network_of("dense block")
    groups = axis_groups(network)
    names, bare = scaled_by(network, groups["stem"])
    assert names == ["norms.0.weight", "norms.1.weight", "norms.2.weight", "last.weight"] and bare == []
    found = scale_importance(network, groups.groups, None)
    expected = sum(gammas(network, name.removesuffix(".weight"))[:6] for name in names)
    np.testing.assert_allclose(found["stem"], expected, rtol=1e-6)


def test_without_batch_norm_it_is_the_standard_deviation() -> None:
    network = trace(Two([[1, -2, 3, -4], [0, 0, 0, 1], [-5, 0, 0, 0]]), [torch.randn(2, 4)])
    (name,) = network.input_names
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32) * [1, 1, 1, 3]
    task = Task(validate={name: x.astype(np.float32)}, score="relative")
    found = scale_importance(network, axis_groups(network).groups, task)["hidden"]
    weight = network.weights()["hidden.weight"].detach().numpy()
    np.testing.assert_allclose(found, (x @ weight.T).std(0), rtol=1e-5)


def test_a_layer_without_one_beside_a_layer_with_one_adds_its_standard_deviation() -> None:
    """The toy's trunk: a batch norm behind the stem, none behind the residual convolution."""
    network, images = toy(), patterns(90, seed=5)[0]
    task = Task(validate={"image": images})
    assert [node.name for node in scaled_by(network, axis_groups(network)["stem"])[1]] == ["conv2d_2"]
    found = scale_importance(network, axis_groups(network).groups, task)
    values = recorded(network, [torch.from_numpy(images)], lambda _, value: value.detach())
    deviations = values["conv2d_2"].double().numpy().std((0, 2, 3))
    np.testing.assert_allclose(found["stem"], gammas(network, "stem_norm") + deviations, rtol=1e-5)
    np.testing.assert_allclose(found["inner"], gammas(network, "inner_norm"), rtol=1e-6)


class Plain(nn.Module):
    """Two layers with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 2, 1),
        )  # fmt: skip
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, -2, 2)
                nn.init.uniform_(layer.bias, -1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x).mean((2, 3))
        return result


def test_folding_a_batch_norm_leaves_its_scale() -> None:
    """Where its statistics are those of the data: the same importance from gammas before and from values behind."""
    module, x = Plain(), torch.randn(256, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    for layer in module.layers:
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean of all batches
    with torch.no_grad():
        module.train()(x)  # the second layer's statistics are those behind the first batch norm, which sees the batch
    network = trace(module.eval(), [x[:2]])
    task = Task(validate={"x": x.numpy()}, score="relative")
    before = scale_importance(network, axis_groups(network).groups, None)
    folded = FoldBatchNorm().apply(network).network
    after = scale_importance(folded, axis_groups(folded).groups, task)
    assert before.keys() == after.keys() == {"layers.0", "layers.3"}
    for name, importance in before.items():
        np.testing.assert_allclose(after[name], importance, rtol=2e-3)


def test_a_layer_without_batch_norm_needs_data_and_says_so() -> None:
    with pytest.raises(SlimlineError, match=r"layers without batch norm \(conv2d_2 in the graph\) needs data"):
        PruneChannels(importance="batch_norm_scale").apply(toy())


@pytest.mark.parametrize("name", ["depthwise", "attention", "lstm", "slices and upsampling"])
def test_every_kind_of_group_has_an_order(name: str) -> None:
    network = network_of(name)
    task = Task(validate={"x": samples(name, 20).numpy()}, score="relative")
    for importance in scale_importance(network, axis_groups(network).groups, task).values():
        assert np.isfinite(importance).all() and importance.min() > 0
