"""Known components are found, two axes give singular values, and every round is exact least squares."""

import numpy as np
import pytest
import torch
from torch import Tensor

from slimline.methods.factorize.cp import FactorizeCP, balanced, cp, nested_components, parts, sizes
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


def composition(factors: list[Tensor]) -> Tensor:
    letters = "oiabc"[: len(factors)]
    return torch.einsum(f"{','.join(f'{x}r' for x in letters)}->{letters}", *factors)


def error(tensor: Tensor, factors: list[Tensor]) -> float:
    return float((composition(factors) - tensor).square().sum() / tensor.double().square().sum())


def random_components(shape: tuple[int, ...], rank: int) -> list[Tensor]:
    return [random_weight(size, rank, seed=axis).double() for axis, size in enumerate(shape)]


@pytest.mark.parametrize("shape", [(9, 7, 3, 3), (8, 6, 5), (5, 4, 2, 3, 2)])
def test_components_that_are_there_are_found(shape: tuple[int, ...]) -> None:
    tensor = composition(random_components(shape, 3))
    assert error(tensor, cp(tensor, 3, 3000, 0.0)) < 1e-8


def test_two_axes_give_the_singular_value_decomposition() -> None:
    matrix = random_weight(9, 6).double()
    s = np.linalg.svd(matrix.numpy(), compute_uv=False)
    for rank in (1, 3):
        assert error(matrix, cp(matrix, rank, 3, 0.0)) == pytest.approx((s[rank:] ** 2).sum() / (s**2).sum(), rel=1e-9)


def test_a_round_solves_one_least_squares_problem_after_the_other() -> None:
    """The same with numpy's solver on written-out design matrices."""
    tensor, rank = random_weight(7, 5, 3, 2).double(), 4
    slow = [f.numpy() for f in nested_components(tensor, rank)]
    for _ in range(3):
        for axis in range(4):
            others = [f for a, f in enumerate(slow) if a != axis]
            design = np.stack([np.einsum("x,y,z->xyz", *(f[:, r] for f in others)).ravel() for r in range(rank)], 1)
            unfolded = np.moveaxis(tensor.numpy(), axis, 0).reshape(tensor.shape[axis], -1)
            slow[axis] = np.linalg.lstsq(design, unfolded.T, rcond=None)[0].T
    expected = composition([torch.from_numpy(f) for f in slow])
    torch.testing.assert_close(composition(cp(tensor, rank, 3, 0.0)), expected, rtol=1e-6, atol=1e-8)


def test_more_rounds_and_more_components_never_fit_worse() -> None:
    tensor = random_weight(8, 6, 3, 3).double()
    errors = [error(tensor, cp(tensor, 5, rounds, 0.0)) for rounds in (1, 2, 4, 8, 16, 32)]
    assert all(b <= a * (1 + 1e-12) for a, b in zip(errors, errors[1:], strict=False))
    by_rank = [error(tensor, cp(tensor, rank, 100, 0.0)) for rank in (1, 4, 16, 48)]
    assert all(b < a for a, b in zip(by_rank, by_rank[1:], strict=False))
    assert error(tensor, cp(tensor, 72, 100, 0.0)) < 1e-3  # as many as always suffice


def test_it_ends_when_a_round_brings_little() -> None:
    tensor = random_weight(8, 6, 3, 3).double()
    early, late = (error(tensor, cp(tensor, 5, 1000, tolerance)) for tolerance in (1e-2, 1e-9))
    assert late < early < late + 0.2


def test_every_vector_of_a_component_has_the_same_norm() -> None:
    factors = cp(random_weight(8, 6, 3, 3), 5, 10, 0.0)
    norms = torch.stack([f.norm(dim=0) for f in factors])
    torch.testing.assert_close(norms, norms[:1].expand_as(norms))
    zero = balanced([torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 12.0]])])
    torch.testing.assert_close(torch.cat(zero), torch.tensor([[0.0, 6.0], [0.0, 6.0]]))


def test_a_weight_of_zeros_is_a_chain_of_zeros() -> None:
    assert all(not f.any() for f in cp(torch.zeros(4, 3, 3, 3), 2, 5, 1e-5))


@pytest.mark.parametrize("kind", FLAT | WIDE)
def test_the_chain_computes_what_its_composition_computes(kind: str) -> None:
    network, x = one_layer((FLAT | WIDE)[kind])
    layer, method = the_layer(network), FactorizeCP(iterations=5)
    composed = composition(cp(layer.weight, 4, 5, method.tolerance))
    chain = rewritten(network, (4, 4), parts, method.decompose)
    expected = answer(with_weight(network, composed), x)
    torch.testing.assert_close(answer(chain, x), expected, rtol=1e-4, atol=1e-5)


def test_an_axis_of_one_position_has_no_layer_but_keeps_its_stride() -> None:
    network, x = one_layer((lambda: torch.nn.Conv2d(5, 7, (1, 3), stride=(2, 1)), (4, 5, 9, 8)))
    layer, method = the_layer(network), FactorizeCP()
    assert [p.name for p in parts(layer, (3, 3))] == ["first", "horizontal", "last"]
    composed = composition(cp(layer.weight, 3, method.iterations, method.tolerance))
    chain = rewritten(network, (3, 3), parts, method.decompose)
    expected = answer(with_weight(network, composed), x)
    torch.testing.assert_close(answer(chain, x), expected, rtol=1e-4, atol=1e-5)


def test_on_the_toy() -> None:
    outcome = FactorizeCP(rank=8, layers=("inner",)).apply(toy())
    shapes = {n: tuple(t.shape) for n, t in outcome.network.weights().items() if n.startswith("inner.")}
    assert shapes == {
        "inner.first.weight": (8, 16, 1, 1),
        "inner.vertical.weight": (8, 1, 3, 1),
        "inner.horizontal.weight": (8, 1, 1, 3),
        "inner.last.weight": (24, 8, 1, 1),
    }
    assert max(sizes(the_layer(one_layer(WIDE["conv2d"])[0]))) == 5 * 3 * 2
