"""The error is that of the singular values left out; the chain computes what the product of its weights does."""

import numpy as np
import pytest
import torch

from slimline.methods.factorize.svd import FactorizeSVD, decompose, parts, sizes
from slimline.network.cost import macs
from tests.methods.factorize.chains import (
    POINTWISE,
    answer,
    one_layer,
    rewritten,
    the_layer,
    with_weight,
)
from tests.toys import toy


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
