"""The error is that of the singular values left out, channel by channel; T filters per channel stand side by side."""

import pytest
import torch

from slimline.methods.factorize.separable import (
    FactorizeSeparable,
    decompose,
    parts,
    sizes,
)
from slimline.numerics.decomposition import depthwise_and_pointwise
from tests.methods.factorize.chains import (
    FLAT,
    WIDE,
    answer,
    one_layer,
    rewritten,
    the_layer,
    with_weight,
)
from tests.numerics.compositions import composition
from tests.toys import toy


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
