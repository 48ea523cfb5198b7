"""The error lies between bounds known for every Tucker decomposition, and refinement never makes it larger."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from slimline.methods.factorize.tucker import FactorizeTucker, parts, sizes, tucker2
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


def composition(v: Tensor, core: Tensor, u: Tensor) -> Tensor:
    return torch.einsum("op,pq...,iq->oi...", u, core, v)


def tails(weight: Tensor, ranks: tuple[int, int]) -> tuple[float, float]:
    """Squares of the singular values that each side leaves out when it alone is cut."""
    by_inputs = np.linalg.svd(weight.transpose(0, 1).flatten(1).numpy(), compute_uv=False)
    by_outputs = np.linalg.svd(weight.flatten(1).numpy(), compute_uv=False)
    return float((by_inputs[ranks[0] :] ** 2).sum()), float((by_outputs[ranks[1] :] ** 2).sum())


@pytest.mark.parametrize("ranks", [(3, 4), (1, 1), (8, 2), (3, 12)])
def test_the_error_is_at_least_either_tail_and_at_most_their_sum(ranks: tuple[int, int]) -> None:
    weight = random_weight(12, 8, 3, 3).double()
    errors = [
        float((composition(*tucker2(weight, ranks, iterations)) - weight).square().sum())
        for iterations in (0, 1, 5, 50)
    ]
    low, high = max(tails(weight, ranks)), sum(tails(weight, ranks))
    assert low * (1 - 1e-9) <= errors[-1] and errors[0] <= high * (1 + 1e-9)
    assert all(after <= before * (1 + 1e-12) for before, after in zip(errors, errors[1:], strict=False))
    if ranks == (3, 4):
        assert errors[-1] < errors[0]  # refinement finds something
    if 8 in ranks or 12 in ranks:
        assert errors[0] == pytest.approx(
            low, rel=1e-9
        )  # one side whole: the other's decomposition is the best there is


def test_a_weight_of_low_ranks_is_found_exactly() -> None:
    u, v = random_weight(12, 4).double(), random_weight(8, 3, seed=1).double()
    weight = composition(v, random_weight(4, 3, 3, 3, seed=2).double(), u)
    found = tucker2(weight, (3, 4), 0)
    assert [tuple(t.shape) for t in found] == [(8, 3), (4, 3, 3, 3), (12, 4)]
    torch.testing.assert_close(composition(*found), weight)
    torch.testing.assert_close(found[0].T @ found[0], torch.eye(3).double())


def test_more_outputs_than_a_kernel_of_one_channel_has_positions() -> None:
    weight = random_weight(20, 1, 3, 3).double()
    torch.testing.assert_close(composition(*tucker2(weight, (1, 9), 2)), weight)


@pytest.mark.parametrize("kind", FLAT | WIDE)
def test_the_chain_computes_what_its_composition_computes(kind: str) -> None:
    network, x = one_layer((FLAT | WIDE)[kind])
    layer, method = the_layer(network), FactorizeTucker()
    inputs, outputs = sizes(layer)
    for ranks in ((2, 3), (inputs, 3), (2, outputs), (inputs, outputs)):
        composed = composition(*tucker2(layer.weight, ranks, method.iterations))
        chain = rewritten(network, ranks, parts, method.decompose)
        expected = answer(with_weight(network, composed), x)
        torch.testing.assert_close(answer(chain, x), expected, rtol=1e-4, atol=1e-5)


def test_a_side_that_keeps_all_channels_has_no_layer() -> None:
    layer = the_layer(one_layer(WIDE["conv2d same"])[0])
    assert [p.name for p in parts(layer, (2, 3))] == ["first", "core", "last"]
    assert [p.name for p in parts(layer, (5, 3))] == ["core", "last"]
    assert [p.name for p in parts(layer, (2, 7))] == ["first", "core"]


def test_on_the_toy() -> None:
    method = FactorizeTucker(rank=8, layers=("inner",))
    outcome = method.apply(toy())
    shapes = {n: tuple(t.shape) for n, t in outcome.network.weights().items() if n.startswith("inner.")}
    assert shapes == {
        "inner.first.weight": (8, 16, 1, 1),
        "inner.core.weight": (8, 8, 3, 3),
        "inner.last.weight": (24, 8, 1, 1),
    }
    again = replace(method, layers=("inner.core",), rank=4).apply(outcome.network)
    assert again.changed == ["inner.core"] and "inner.core.first.weight" in again.network.weights()
