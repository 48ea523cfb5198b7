"""The error is that of the singular values left out; the chain computes what the product of its weights does."""

import numpy as np
import pytest
import torch

from slimline.methods.factorize.svd import FactorizeSVD, decompose, parts, sizes, split
from slimline.network.cost import macs
from tests.methods.factorize.chains import (
    POINTWISE,
    answer,
    one_layer,
    random_weight,
    rewritten,
    the_layer,
    with_weight,
)
from tests.toys import toy


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_error_is_the_tail_of_the_singular_values(rank: int) -> None:
    matrix = random_weight(9, 6)
    first, last = split(matrix, rank)
    assert first.shape == (rank, 6) and last.shape == (9, rank)
    tail = np.linalg.svd(matrix.double().numpy(), compute_uv=False)[rank:]
    error = float((last @ first - matrix.double()).square().sum())
    assert error == pytest.approx(float((tail**2).sum()), rel=1e-9, abs=1e-20)


def test_both_factors_have_the_same_size_and_settled_signs() -> None:
    first, last = split(random_weight(9, 6), 4)
    torch.testing.assert_close(first.norm(dim=1), last.norm(dim=0))
    torch.testing.assert_close(split(-random_weight(9, 6), 4)[0], first)


@pytest.mark.parametrize("kind", POINTWISE)
def test_of_full_rank_the_chain_is_the_layer(kind: str) -> None:
    network, x = one_layer(POINTWISE[kind])
    chain = rewritten(network, sizes(the_layer(network)), parts, decompose)
    torch.testing.assert_close(answer(chain, x), answer(network, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", POINTWISE)
def test_of_low_rank_the_chain_is_a_layer_with_the_product_as_weight(kind: str) -> None:
    network, x = one_layer(POINTWISE[kind])
    weight = the_layer(network).weight
    u, s, v = np.linalg.svd(weight.flatten(1).numpy(), full_matrices=False)
    closest = torch.from_numpy((u[:, :2] * s[:2]) @ v[:2]).reshape(weight.shape)
    expected = answer(with_weight(network, closest), x)
    torch.testing.assert_close(answer(rewritten(network, (2,), parts, decompose), x), expected, rtol=1e-4, atol=1e-5)


def test_on_the_toy() -> None:
    outcome = FactorizeSVD(layers=("outer",)).apply(toy())
    assert outcome.changed == ["outer"] and outcome.skipped == {}
    assert {n: tuple(t.shape) for n, t in outcome.network.weights().items() if n.startswith("outer")} == {
        "outer.first.weight": (4, 24, 1, 1),
        "outer.last.weight": (16, 4, 1, 1),
        "outer.last.bias": (16,),
    }
    assert macs(toy()) - macs(outcome.network) == 16 * (16 * 24 - 4 * (16 + 24))
    skipped = FactorizeSVD().apply(toy()).skipped
    assert skipped == {"stem": "has a kernel of 3 x 3", "inner": "has a kernel of 3 x 3"}
