"""Zeros that are drawn: as many as asked for, evenly spread, the same for the same seed."""

import numpy as np
import pytest
import torch
from torch import nn

from slimline.methods.sparsify.random_mask import SparsifyRandom, random_scores
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.methods.sparsify.checks import follows, zero_masks
from tests.toys import toy


def alike(count: int) -> Network:
    """Layers of one shape."""
    torch.manual_seed(0)
    return trace(nn.Sequential(*(nn.Linear(8, 8) for _ in range(count))), [torch.randn(2, 8)])


@pytest.mark.parametrize("sparsity", [0.0, 0.13, 0.5, 0.95])
def test_every_layer_has_the_share_that_was_asked_for(sparsity: float) -> None:
    outcome = SparsifyRandom(sparsity=sparsity).apply(toy())
    for mask in zero_masks(outcome.network.verify()).values():
        assert mask.sum() == round(sparsity * mask.size)


@pytest.mark.parametrize("pattern", ["2:4", "1x4", "4x4"])
def test_patterns_hold(pattern: str) -> None:
    network = SparsifyRandom(pattern=pattern, sparsity=0.5).apply(toy()).network
    assert all(follows(network.weights()[f"{name}.weight"], pattern) for name in ("inner", "outer", "head"))


def test_every_weight_is_drawn_equally_often() -> None:
    """Of 400 seeds each of 64 weights loses about 120: within five standard deviations of a binomial."""
    network = alike(1)
    counts = sum(
        zero_masks(SparsifyRandom(sparsity=0.3, seed=s).apply(network).network)["0.weight"] for s in range(400)
    )
    share = round(0.3 * 64) / 64
    assert np.abs(np.asarray(counts) - 400 * share).max() < 5 * np.sqrt(400 * share * (1 - share))


def test_layers_of_one_shape_differ_and_do_not_depend_on_each_other() -> None:
    two, three = (zero_masks(SparsifyRandom().apply(alike(n)).network) for n in (2, 3))
    assert (two["0.weight"] != two["1.weight"]).any()
    assert all((two[name] == three[name]).all() for name in two)


def test_the_seed_decides() -> None:
    one, same, other = (random_scores((4, 5), seed, "layer") for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert not torch.equal(one, random_scores((4, 5), 3, "other"))
