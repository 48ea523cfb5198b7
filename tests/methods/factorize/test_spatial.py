"""The error is that of the singular values left out; stride, padding and dilation go where they belong."""

import numpy as np
import pytest
import torch

from slimline.methods.factorize.spatial import (
    FactorizeSpatial,
    decompose,
    parts,
    rows_and_columns,
    sizes,
    vertical_and_horizontal,
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


@pytest.mark.parametrize("kernel", [(3, 3), (5, 2), (2, 3, 4)])
@pytest.mark.parametrize("rank", [1, 4])
def test_the_composition_misses_the_weight_by_the_tail_of_the_singular_values(
    kernel: tuple[int, ...], rank: int
) -> None:
    weight = random_weight(6, 4, *kernel).double()
    vertical, horizontal = vertical_and_horizontal(weight, rank)
    assert vertical.shape == (rank, 4, kernel[0], *[1] * (len(kernel) - 1))
    assert horizontal.shape == (6, rank, 1, *kernel[1:])
    composed = torch.einsum("ria,orb->oiab", vertical.flatten(2), horizontal.flatten(2)).reshape(weight.shape)
    matrix = np.stack([[weight[:, i, a].flatten(1).T.flatten().numpy() for a in range(kernel[0])] for i in range(4)])
    tail = np.linalg.svd(matrix.reshape(4 * kernel[0], -1), compute_uv=False)[rank:]
    assert float((composed - weight).square().sum()) == pytest.approx(float((tail**2).sum()), rel=1e-9)


def test_a_separable_filter_needs_rank_one() -> None:
    """Sobel's filter of one channel is smoothing times a difference."""
    sobel = torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 0.0, -1.0])
    vertical, horizontal = vertical_and_horizontal(sobel[None, None], 1)
    torch.testing.assert_close(vertical[0, 0] @ horizontal[0, 0], sobel.double())
    np.testing.assert_allclose((vertical.flatten() / vertical.flatten()[0]).numpy(), [1, 2, 1], rtol=1e-12)


@pytest.mark.parametrize("kind", WIDE)
def test_of_full_rank_the_chain_is_the_layer(kind: str) -> None:
    network, x = one_layer(WIDE[kind])
    chain = rewritten(network, sizes(the_layer(network)), parts, decompose)
    torch.testing.assert_close(answer(chain, x), answer(network, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", WIDE)
def test_of_low_rank_the_chain_is_a_layer_with_the_composition_as_weight(kind: str) -> None:
    network, x = one_layer(WIDE[kind])
    weight = the_layer(network).weight
    vertical, horizontal = vertical_and_horizontal(weight, 3)
    composed = torch.einsum("ria,orb->oiab", vertical.flatten(2), horizontal.flatten(2)).reshape(weight.shape)
    expected = answer(with_weight(network, composed), x)
    torch.testing.assert_close(answer(rewritten(network, (3,), parts, decompose), x), expected, rtol=1e-4, atol=1e-5)


def test_what_has_one_axis_or_none_is_left_alone() -> None:
    method = FactorizeSpatial()
    assert method.unsupported(the_layer(one_layer(FLAT["conv1d"])[0])) == ["has a kernel of 3"]
    outcome = method.apply(toy())
    assert outcome.skipped == {"outer": "has a kernel of 1 x 1", "head": "is a linear layer"}
    assert outcome.changed == ["stem", "inner"]
    assert rows_and_columns(toy().weights()["inner.weight"]).shape == (16 * 3, 3 * 24)
