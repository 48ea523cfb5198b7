"""The average of the weights is the recursion in the file, for statistics of batch norms too."""

import numpy as np
import pytest
import torch

from slimline.training.average import Average
from tests.toys import toy
from tests.training.small import state


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_every_floating_point_weight_follows_the_recursion(decay: float) -> None:
    network = toy()
    average, expected = Average(network, decay), {n: w.double().numpy() for n, w in state(network).items()}
    rng = np.random.default_rng(0)
    for step in range(12):
        d = min(decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, weight in network.weights().items():
                weight.copy_(torch.from_numpy(rng.normal(size=weight.shape)))
                expected[name] = d * expected[name] + (1 - d) * weight.double().numpy()
        average.update(step)
    averaged = average.network.weights()
    assert averaged.keys() == expected.keys() and "stem_norm.running_var" in averaged
    for name, weight in averaged.items():
        np.testing.assert_allclose(weight.detach(), expected[name], atol=1e-5)


def test_of_weights_that_do_not_move_it_is_those() -> None:
    network = toy()
    average, before = Average(network, 0.9), state(network)
    for step in range(5):
        average.update(step)
    for name, weight in average.network.weights().items():
        torch.testing.assert_close(weight.detach(), before[name], rtol=1e-6, atol=1e-7)


def test_it_shares_nothing_with_the_network_and_takes_no_gradient() -> None:
    network = toy()
    average, before = Average(network, 0.9), state(network)
    with torch.no_grad():
        for weight in network.module.parameters():
            weight.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in average.network.weights().items())
    assert not any(weight.requires_grad for weight in average.network.module.parameters())
    assert all(weight.requires_grad for weight in network.module.parameters())


def test_whole_numbers_are_those_of_the_network() -> None:
    network = toy()
    network.module.get_submodule("stem_norm").register_buffer("count", torch.tensor([3, 4]))
    with network.module.graph.inserting_before(next(iter(network.module.graph.nodes))):
        network.module.graph.get_attr("stem_norm.count")
    average = Average(network, 0.5)
    network.weights()["stem_norm.count"].copy_(torch.tensor([7, 9]))
    average.update(0)
    assert average.network.weights()["stem_norm.count"].tolist() == [7, 9]
