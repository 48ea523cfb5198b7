"""The error is that of the singular values left out, channel by channel; T filters per channel stand side by side."""

import numpy as np
import pytest
import torch
from torch import Tensor

from slimline.methods.factorize.separable import (
    FactorizeSeparable,
    decompose,
    depthwise_and_pointwise,
    parts,
    sizes,
)
from tests.methods.factorize.chains import (
    FLAT,
    WIDE,
    answer,
    one_layer,
    random_weight,
    rewritten,
    the_layer,
    with_weight,
)
from tests.toys import toy


def composition(depthwise: Tensor, pointwise: Tensor, rank: int) -> Tensor:
    """W[o, i, k] = sum over r of pointwise[o, (i, r)] depthwise[(i, r), k]."""
    d = depthwise.reshape(-1, rank, depthwise[0].numel())
    dense = torch.einsum("oir,irk->oik", pointwise.reshape(len(pointwise), -1, rank), d)
    return dense.reshape(len(pointwise), -1, *depthwise.shape[2:])


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_error_is_that_of_the_singular_values_left_out(rank: int) -> None:
    weight = random_weight(12, 7, 3, 3)
    error = float((composition(*depthwise_and_pointwise(weight, rank), rank) - weight).square().sum())
    tails = [np.linalg.svd(weight[:, i].flatten(1).numpy(), compute_uv=False)[rank:] for i in range(7)]
    assert error == pytest.approx(sum(float((t**2).sum()) for t in tails), rel=1e-5)


def test_a_separable_weight_is_found_exactly() -> None:
    weight = random_weight(10, 6, 1, 1, seed=1) * random_weight(6, 1, 3, 3).transpose(0, 1)
    found = depthwise_and_pointwise(weight, 1)
    assert [tuple(t.shape) for t in found] == [(6, 1, 3, 3), (10, 6, 1, 1)]
    torch.testing.assert_close(composition(*found, 1), weight.double())


@pytest.mark.parametrize("kind", FLAT | WIDE)
def test_the_chain_computes_what_its_composition_computes(kind: str) -> None:
    network, x = one_layer((FLAT | WIDE)[kind])
    layer = the_layer(network)
    for rank in (1, *sizes(layer)):
        dense = composition(*depthwise_and_pointwise(layer.weight, rank), rank)
        expected = answer(with_weight(network, dense), x)
        chain = rewritten(network, (rank,), parts, decompose)
        torch.testing.assert_close(answer(chain, x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(expected, answer(network, x), rtol=1e-4, atol=1e-5)  # the last rank was the full one


def test_on_the_toy() -> None:
    outcome = FactorizeSeparable(rank=1, layers=("inner",)).apply(toy())
    shapes = {n: tuple(t.shape) for n, t in outcome.network.weights().items() if n.startswith("inner.")}
    assert shapes == {"inner.depthwise.weight": (16, 1, 3, 3), "inner.pointwise.weight": (24, 16, 1, 1)}
