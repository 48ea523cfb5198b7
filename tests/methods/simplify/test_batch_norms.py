"""A batch norm as a scale and a shift, against torch's batch norm."""

import pytest
import torch
from torch import nn

from slimline.methods.simplify.batch_norms import batch_norm_affine, fold_batch_norms_, scale_and_shift
from slimline.methods.simplify.channel_affine import Affine, plan_before, plan_behind
from slimline.methods.simplify.free_shapes import free_shapes
from tests.methods.simplify.equality import Does, count, network_of

aten = torch.ops.aten


def test_scale_and_shift_by_hand() -> None:
    """gamma 3, beta 1, mean 5, variance 4 - eps: g = 1.5, shift = 1 - 1.5 * 5."""
    one = torch.ones(1)
    scale, shift = scale_and_shift(3 * one, one, 5 * one, 3.5 * one, eps=0.5)
    assert scale.tolist() == [1.5] and shift.tolist() == [-6.5]
    scale, shift = scale_and_shift(None, None, 5 * one, 3.5 * one, eps=0.5)
    assert scale.tolist() == [0.5] and shift.tolist() == [-2.5]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("places", [(), (5,), (4, 4)])
def test_it_is_the_batch_norm_of_torch(affine: bool, places: tuple[int, ...]) -> None:
    norm = (nn.BatchNorm2d if len(places) == 2 else nn.BatchNorm1d)(3, affine=affine, eps=0.01)
    network = network_of(Does(lambda x, n: n(x), norm), 3, *places)
    (node,) = network.module.graph.find_nodes(op="call_function", target=aten.batch_norm.default)
    found = batch_norm_affine(network, node, free_shapes(network))
    assert isinstance(found, Affine)
    x = network.examples["x"]
    torch.testing.assert_close(found.scale * x + found.shift, network.run({"x": x})[0])


def test_why_it_is_not_known() -> None:
    for eps, training, why in (
        (1e-5, True, "uses the statistics of the batch"),
        (0.0, False, "its scales are not finite"),
    ):
        network = network_of(Does(lambda x, n: n(x), nn.BatchNorm1d(3, eps=eps)), 3).set_training_(training)
        for name, tensor in network.weights().items():
            if name.endswith("var"):
                tensor.zero_()
        (node,) = network.module.graph.find_nodes(op="call_function", target=aten.batch_norm.default)
        assert batch_norm_affine(network, node, free_shapes(network)) == why


def test_each_plan_takes_its_side() -> None:
    for plan, title in ((plan_before, "parts.0"), (plan_behind, "parts.2")):
        parts = (nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        network = network_of(Does(lambda x, a, n, b: b(n(a(x))), *parts), 3)
        x = network.examples["x"]
        before = network.run({"x": x})[0]
        assert fold_batch_norms_(network, free_shapes(network), plan) == ([title], {})
        assert count(network) == count(network, "linear") == 2
        torch.testing.assert_close(network.verify().run({"x": x})[0], before)
