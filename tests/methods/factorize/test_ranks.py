"""Ranks by energy on spectra known by hand, by VBMF on matrices made of signal and noise, by budget against a scan."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.methods.factorize.cp import FactorizeCP
from slimline.methods.factorize.ranks import RankRule, budget_rank, energy_rank, noise, vbmf_rank
from slimline.methods.factorize.svd import FactorizeSVD
from slimline.methods.factorize.tucker import FactorizeTucker
from slimline.methods.method import Method
from tests.methods.factorize.chains import random_weight


def signal_and_noise(rows: int, columns: int, strengths: list[float], deviation: float, seed: int) -> Tensor:
    """Components of these singular values, in units of those of the noise, plus noise of this standard deviation."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((rows, max(1, len(strengths)))))
    right, _ = np.linalg.qr(rng.standard_normal((columns, max(1, len(strengths)))))
    values = np.array(strengths or [0.0]) * deviation * np.sqrt(max(rows, columns))
    return torch.from_numpy((left * values) @ right.T + deviation * rng.standard_normal((rows, columns)))


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (9 / 14, 1), (0.65, 2), (13 / 14, 2), (0.93, 3), (1.0, 3)])
def test_energy_of_singular_values_3_2_1(energy: float, rank: int) -> None:
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    assert energy_rank(rotation @ torch.diag(torch.tensor([1.0, 3.0, 2.0]).double()), energy) == rank


def test_several_matrices_share_the_energy() -> None:
    """Squares 4 and 1 in one, 1 and 0 in the other: 5 of 6 lie in the first components."""
    two = torch.stack([torch.diag(torch.tensor([2.0, 1.0])), torch.diag(torch.tensor([1.0, 0.0]))])
    assert [energy_rank(two, e) for e in (0.8, 5 / 6, 0.84)] == [1, 1, 2]


@pytest.mark.parametrize("shape", [(60, 60), (40, 120), (120, 40), (30, 300)])
@pytest.mark.parametrize("rank", [0, 1, 5])
def test_vbmf_counts_the_components_above_the_noise(shape: tuple[int, int], rank: int) -> None:
    strengths = list(np.linspace(3.0, 6.0, rank))
    for seed, deviation in enumerate((1e-3, 1.0, 50.0)):
        assert vbmf_rank(signal_and_noise(*shape, strengths, deviation, seed)) == rank


@pytest.mark.parametrize(("shape", "most"), [((40, 400), 13), ((60, 120), 10), ((80, 80), 10)])
def test_vbmf_knows_the_noise_however_many_components_stand_out_of_it(shape: tuple[int, int], most: int) -> None:
    for count in (0, most // 2, most):
        matrix = signal_and_noise(*shape, list(np.linspace(4.0, 8.0, count)), 0.3, seed=count)
        squares = np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2
        assert noise(squares, shape[1]) == pytest.approx(0.3**2, rel=0.08)


def test_vbmf_leaves_out_what_drowns() -> None:
    """By random matrix theory a component below 1 in these units is invisible even when the noise is known."""
    assert vbmf_rank(signal_and_noise(100, 100, [6.0, 5.0, 0.7, 0.5], 1.0, seed=0)) == 2


def test_vbmf_without_noise_counts_all_and_of_nothing_none() -> None:
    assert (
        vbmf_rank(random_weight(30, 4).double() @ random_weight(4, 80, seed=1).double()) == 4
        and vbmf_rank(torch.zeros(5, 9)) == 0
    )


def test_vbmf_of_several_matrices_is_that_of_the_one_with_most() -> None:
    batch = [signal_and_noise(40, 60, [5.0] * n, 1.0, seed=n) for n in (1, 3, 0)]
    assert vbmf_rank(torch.stack(batch)) == 3


def test_the_budget_is_spent_as_far_as_it_goes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        costs = np.cumsum(rng.integers(0, 9, 17))
        limit = float(rng.integers(0, 90))
        expected = max([r for r in range(1, 18) if costs[r - 1] <= limit], default=0)
        assert budget_rank(lambda r, costs=costs: int(costs[r - 1]), 17, limit) == expected  # type: ignore[misc]


def ranks_of(rule: RankRule, sizes: tuple[int, ...], matrices: Callable[[], list[Tensor]] = list) -> tuple[int, ...]:
    return rule.ranks(sizes, matrices, lambda ranks: 10 * sum(ranks), 10 * sum(sizes))


def test_ranks_of_several_axes_grow_in_proportion_and_stay_within_the_budget() -> None:
    assert ranks_of(RankRule(budget=0.5), (20, 40)) == (10, 20)
    assert ranks_of(RankRule(budget=0.5, multiple=8), (20, 40)) == (8, 16)
    assert ranks_of(RankRule(budget=0.1, multiple=8), (20, 40)) == (2, 4)  # no multiple of 8 fits
    assert ranks_of(RankRule(budget=0.01), (20, 40)) == ()


def test_chosen_ranks_are_rounded_up_where_that_is_still_cheaper() -> None:
    matrix = torch.diag(torch.tensor([5.0, 4.0, 3.0, *[0.1] * 17]))
    rule = RankRule(choose="energy", energy=0.9, multiple=8)
    assert ranks_of(rule, (20,), lambda: [matrix]) == (8,)
    assert rule.ranks((20,), lambda: [matrix], lambda ranks: ranks[0], whole=8) == (3,)


def test_a_rank_that_is_given_is_taken() -> None:
    assert ranks_of(RankRule(rank=30, multiple=8), (20, 40)) == (20, 30)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FactorizeSVD(budget=0.0), r"FactorizeSVD\(budget=0.0\) is out of range"),
        (lambda: FactorizeSVD(rank=-1), r"FactorizeSVD\(rank=-1\) is out of range: it lies in \[0, 65536\]"),
        (lambda: FactorizeCP(rank=2.5), r"FactorizeCP\(rank=2.5\) is not a whole number"),  # type: ignore[arg-type]
        (lambda: FactorizeTucker(choose="best"), r"choose='best'\): use one of 'budget', 'energy', 'vbmf'"),
        (lambda: FactorizeTucker(energy=1.5), r"FactorizeTucker\(energy=1.5\) is out of range"),
        (lambda: FactorizeTucker(layers="head"), r"FactorizeTucker\(layers='head'\) is not a list"),  # type: ignore[arg-type]
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(make: Callable[[], Method], sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        make()
