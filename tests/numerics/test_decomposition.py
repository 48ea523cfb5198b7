"""The two are the best there are, and which of all the best is settled."""

import numpy as np
import pytest
import torch

from slimline.numerics.decomposition import depthwise_and_pointwise, split
from tests.methods.factorize.chains import random_weight
from tests.numerics.compositions import composition


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


def test_a_separable_weight_is_found_exactly() -> None:
    depthwise, pointwise = random_weight(6, 1, 3, 3), random_weight(10, 6, 1, 1, seed=1)
    weight = pointwise * depthwise.transpose(0, 1)
    found = depthwise_and_pointwise(weight, 1)
    assert [tuple(t.shape) for t in found] == [(6, 1, 3, 3), (10, 6, 1, 1)]
    torch.testing.assert_close(composition(*found), weight.double())


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_error_is_that_of_the_singular_values_left_out(rank: int) -> None:
    """Eckart & Young, per input channel, with numpy's decomposition."""
    weight = random_weight(12, 7, 3, 3)
    error = float((composition(*depthwise_and_pointwise(weight, rank), rank) - weight).square().sum())
    tails = [np.linalg.svd(weight[:, i].flatten(1).numpy(), compute_uv=False)[rank:] for i in range(7)]
    assert error == pytest.approx(sum(float((t**2).sum()) for t in tails), rel=1e-5)


def test_nothing_of_rank_one_comes_closer() -> None:
    """Alternating least squares from random starts finds the same error, and never a smaller one."""
    weight = random_weight(9, 4, 3, 3)
    ours = (composition(*depthwise_and_pointwise(weight, 1)) - weight).square().sum((0, 2, 3)).numpy()
    for channel in range(4):
        matrix = weight[:, channel].flatten(1).double().numpy()
        found = []
        for seed in range(5):
            d = np.random.default_rng(seed).standard_normal(9)
            for _ in range(500):
                p = matrix @ d / (d @ d)
                d = matrix.T @ p / (p @ p)
            found.append(((matrix - np.outer(p, d)) ** 2).sum())
        assert min(found) == pytest.approx(ours[channel], rel=1e-4)


@pytest.mark.parametrize("kernel", [(3,), (3, 3), (2, 1, 3)])
def test_as_many_filters_as_the_kernel_has_positions_are_exact(kernel: tuple[int, ...]) -> None:
    weight = random_weight(20, 3, *kernel)
    rank = int(np.prod(kernel))
    depthwise, pointwise = depthwise_and_pointwise(weight, rank)
    assert depthwise.shape == (3 * rank, 1, *kernel) and pointwise.shape == (20, 3 * rank, *[1] * len(kernel))
    torch.testing.assert_close(composition(depthwise, pointwise, rank), weight.double())


def test_both_halves_are_of_one_size_and_the_signs_are_settled() -> None:
    weight = random_weight(9, 4, 3, 3)
    depthwise, pointwise = depthwise_and_pointwise(weight, 1)
    torch.testing.assert_close(depthwise.flatten(1).norm(dim=1), pointwise.flatten(1).norm(dim=0))
    assert all(float(d.flatten()[d.abs().argmax()]) > 0 for d in depthwise)
    again = depthwise_and_pointwise(-weight, 1)
    torch.testing.assert_close(again[0], depthwise)
    torch.testing.assert_close(again[1], -pointwise)
