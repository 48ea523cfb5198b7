"""Bounds against published values, a slow twin and coverage; verdicts; numbers of samples."""

from math import inf, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from slimline.errors import SlimlineError
from slimline.measure.statistics import (
    BETS,
    Drop,
    Verdict,
    betting_upper,
    bootstrap_bounds,
    judge,
    median_interval,
    paired_drop,
    ratio_interval,
    samples_to_decide,
    tango_bounds,
    tango_variance,
)

Z95 = 1.6448536269514722


def zero_one(lost: int, gained: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the original and the candidate with these numbers of discordant pairs; the rest both right."""
    original, candidate = np.ones(n), np.ones(n)
    candidate[:lost] = 0
    original[lost : lost + gained] = 0
    return original, candidate


def grid_search_share(lost: int, gained: int, n: int, d: float) -> float:
    """The most likely share of gained samples under difference ``d``, by trying many (the slow twin)."""
    low, high = max(0.0, -d), (1 - d) / 2
    for _ in range(6):
        q = np.linspace(low, high, 401)
        with np.errstate(divide="ignore", invalid="ignore"):
            same = n - lost - gained
            terms = [np.where(k > 0, k * np.log(p), 0) for k, p in ((lost, q + d), (gained, q), (same, 1 - 2 * q - d))]
        best = int(np.nanargmax(sum(terms)))
        low, high = q[max(best - 1, 0)], q[min(best + 1, 400)]
    return float((low + high) / 2)


def test_tango_equals_the_published_interval() -> None:
    # Airway hyper-responsiveness before and after transplantation (Bentur et al. 2009): 1 and 7 discordant of 21 pairs.
    # Fagerland, Lydersen & Laake (2014), Statistics in Medicine 33:2850-2875, print -0.517 to -0.026 for Tango.
    lower, upper = tango_bounds(1, 7, 21, confidence=0.975)
    assert (round(lower, 3), round(upper, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("lost", "gained", "n"), [(1, 7, 21), (12, 2, 50), (3, 0, 40), (0, 4, 200), (30, 28, 300)])
def test_tango_solves_the_score_equation_of_a_grid_search(lost: int, gained: int, n: int) -> None:
    for bound, z in zip(tango_bounds(lost, gained, n), (Z95, -Z95), strict=True):
        q = grid_search_share(lost, gained, n, bound)
        assert tango_variance(lost / n, gained / n, bound) == pytest.approx(2 * q + bound * (1 - bound), abs=2e-6)
        score = (lost - gained - n * bound) / sqrt(n * (2 * q + bound * (1 - bound)))
        assert score == pytest.approx(z, abs=1e-3)


@pytest.mark.parametrize("n", [1, 20, 1000])
def test_without_discordant_pairs_the_bound_has_a_closed_form(n: int) -> None:
    drop = paired_drop(*zero_one(0, 0, n))
    assert drop.upper == pytest.approx(Z95**2 / (n + Z95**2), rel=1e-9)
    assert drop.lower == pytest.approx(-drop.upper, rel=1e-9)
    assert drop.drop == 0


def test_with_one_kind_of_discordant_pair_the_bound_is_wilsons() -> None:
    # Without gained samples the difference is one proportion, whose score bound is Wilson's.
    _, upper = tango_bounds(3, 0, 80)
    wilson = stats.binomtest(3, 80).proportion_ci(0.9, method="wilson").high
    assert upper == pytest.approx(wilson, rel=1e-9)


def test_tango_at_the_ends_of_the_scale() -> None:
    assert tango_bounds(10, 0, 10)[1] == 1
    assert tango_bounds(0, 10, 10)[0] == -1
    lower, upper = tango_bounds(5, 2, 30)
    assert tango_bounds(2, 5, 30) == pytest.approx((-upper, -lower))


@pytest.mark.parametrize(
    ("n", "lost", "gained"),
    [(60, 0.10, 0.10), (60, 0.30, 0.10), (100, 0.05, 0.02), (500, 0.02, 0.01), (500, 0.01, 0.0)],
)
def test_tango_coverage_is_nominal(n: int, lost: float, gained: float) -> None:
    # Not simulated but summed over all outcomes of the multinomial that matter.
    upper_misses = lower_misses = seen = 0.0
    for b in range(60):
        some = stats.binom.pmf(b, n, lost)
        if some < 1e-7:
            continue
        shares = some * stats.binom.pmf(np.arange(min(60, n - b + 1)), n - b, gained / (1 - lost))
        for c in np.flatnonzero(shares > 1e-7):
            low, high = tango_bounds(b, int(c), n)
            seen += shares[c]
            upper_misses += shares[c] * (high < lost - gained)
            lower_misses += shares[c] * (low > lost - gained)
    assert seen > 0.999
    # A false PASS needs the upper bound to miss. The lower one, of a false FAIL, pays for the skewness of small counts.
    assert 0.03 < upper_misses < 0.055
    assert 0.03 < lower_misses < 0.08


def miss_rates(differences: NDArray[np.float64], mean: float) -> tuple[float, float]:
    """Shares of rows whose upper bound is below ``mean`` and whose lower bound is above it."""
    original = np.random.default_rng(99).random(differences.shape[1])
    drops = [paired_drop(original, original - row) for row in differences]
    return float(np.mean([d.upper < mean for d in drops])), float(np.mean([d.lower > mean for d in drops]))


def test_bootstrap_coverage_for_symmetric_and_for_skewed_scores() -> None:
    rng = np.random.default_rng(0)
    for differences, mean in (
        (rng.normal(0.1, 1.0, size=(400, 50)), 0.1),
        (rng.exponential(1.0, size=(400, 80)), 1.0),
        (-rng.exponential(1.0, size=(400, 80)), -1.0),
    ):
        upper, lower = miss_rates(differences, mean)
        # 20 misses expected of 400, standard deviation 4.4.
        assert 0.02 < upper < 0.085
        assert 0.02 < lower < 0.085


def test_bootstrap_coverage_when_most_samples_do_not_differ() -> None:
    rng = np.random.default_rng(1)
    # A twentieth of the samples lose up to one point: about 30 of 600 differ, so both branches are met.
    differences = (rng.random((400, 600)) < 0.05) * rng.random((400, 600))
    upper, lower = miss_rates(differences, 0.025)
    assert 0.015 < upper < 0.085
    assert lower < 0.085


def test_a_handful_of_differing_samples_gives_a_safe_bound() -> None:
    rng = np.random.default_rng(2)
    differences = (rng.random((500, 300)) < 0.01) * rng.choice([0.5, 1.0], size=(500, 300))
    upper, _ = miss_rates(differences, 0.0075)
    assert upper < 0.07
    # Nothing differs at all: the same bound as for 0/1 scores, times the range of the scores.
    scores = np.linspace(0.0, 4.0, 200)
    drop = paired_drop(scores, scores)
    assert drop.upper == pytest.approx(4 * Z95**2 / (200 + Z95**2))
    assert drop.lower == pytest.approx(-drop.upper)


def test_resamples_with_exactly_the_mean_are_no_numbers_out_of_nothing() -> None:
    """Half of the samples gain what the others lose: many resamples have the mean of all, exactly."""
    losses = np.tile([0.25, -0.25], 30)
    drop = paired_drop(np.full(60, 0.5), 0.5 - losses)
    half = 1.671 * losses.std(ddof=1) / np.sqrt(60)
    assert drop.drop == 0 and drop.upper == pytest.approx(half, rel=0.15) == pytest.approx(-drop.lower, rel=0.15)


def test_bootstrap_equals_student_for_many_normal_scores_and_is_repeatable() -> None:
    differences = np.random.default_rng(3).normal(0.02, 0.3, size=4000)
    lower, upper = bootstrap_bounds(differences)
    half = stats.t.ppf(0.95, 3999) * differences.std(ddof=1) / sqrt(4000)
    assert upper == pytest.approx(differences.mean() + half, abs=0.08 * half)
    assert lower == pytest.approx(differences.mean() - half, abs=0.08 * half)
    assert bootstrap_bounds(differences) == (lower, upper)


def test_degenerate_real_scores() -> None:
    constant = paired_drop(np.arange(30.0) + 0.5, np.arange(30.0))
    assert (constant.lower, constant.drop, constant.upper) == (0.5, 0.5, 0.5)
    single = paired_drop([0.3], [0.2])
    assert (single.lower, single.upper) == (-inf, inf)
    assert judge(single, 0.5) is Verdict.CANT_TELL
    assert samples_to_decide(single, 0.5) is None
    same = paired_drop([0.3, 0.3], [0.3, 0.3])
    assert (same.lower, same.upper) == (0, 0)


def test_bad_scores_are_refused() -> None:
    with pytest.raises(SlimlineError, match=r"1 of 3 candidate scores are NaN or infinite \(the first is sample 1\)"):
        paired_drop([1.0, 0.0, 1.0], [1.0, np.nan, 1.0])
    with pytest.raises(SlimlineError, match="3 scores and the candidate 2"):
        paired_drop([1, 0, 1], [1, 0])
    with pytest.raises(SlimlineError, match="one score per sample"):
        paired_drop([], [])
    with pytest.raises(SlimlineError, match="is not between"):
        paired_drop([1, 0], [1, 0], confidence=95)


def test_verdicts() -> None:
    drop = Drop(0.01, lower=0.005, upper=0.02, n=100)
    assert judge(drop, 0.02) is Verdict.PASS
    assert judge(drop, 0.019) is Verdict.CANT_TELL
    assert judge(drop, 0.005) is Verdict.CANT_TELL
    assert judge(drop, 0.004) is Verdict.FAIL
    assert [str(v) for v in Verdict] == ["PASS", "FAIL", "CAN'T TELL"]


def test_false_passes_stay_within_five_percent() -> None:
    # The candidate loses exactly as much as one point more than allowed: every PASS is false.
    rng = np.random.default_rng(4)
    n, passes = 1000, 0
    for _ in range(600):
        lost, gained, _ = rng.multinomial(n, [0.035, 0.015, 0.95])
        lower, upper = tango_bounds(lost, gained, n)
        passes += judge(Drop((lost - gained) / n, lower, upper, n), 0.02) is Verdict.PASS
    assert 0.025 < passes / 600 < 0.08


@pytest.mark.parametrize(("lost", "gained", "max_drop"), [(2, 0, 0.01), (8, 6, 0.01), (9, 2, 0.005), (0, 0, 0.001)])
def test_samples_to_decide_puts_the_bound_on_the_limit(lost: int, gained: int, max_drop: float) -> None:
    n = 500
    needed = samples_to_decide(paired_drop(*zero_one(lost, gained, n)), max_drop)
    assert needed is not None
    # The same shares at this many samples put the limit exactly on the bound: its score is z.
    q = grid_search_share(lost, gained, n, max_drop)
    score = ((lost - gained) / n - max_drop) / sqrt((2 * q + max_drop * (1 - max_drop)) / needed)
    assert abs(score) == pytest.approx(Z95, rel=5e-3)


def test_samples_to_decide_is_where_half_of_the_repetitions_are_decided() -> None:
    rng = np.random.default_rng(5)
    shares = [0.02, 0.015, 0.965]
    needed = samples_to_decide(paired_drop(*zero_one(20, 15, 1000)), 0.01)
    assert needed is not None and needed > 1000
    decided = []
    for _ in range(400):
        lost, gained, _ = rng.multinomial(needed, shares)
        lower, upper = tango_bounds(lost, gained, needed)
        decided.append(judge(Drop(0.0, lower, upper, needed), 0.01) is Verdict.PASS)
    assert 0.4 < np.mean(decided) < 0.6

    differences = rng.normal(0.0, 1.0, size=400)
    differences += 0.05 - differences.mean()
    needed = samples_to_decide(paired_drop(differences, np.zeros(400)), 0.1)
    spread = differences.std(ddof=1)
    assert needed == pytest.approx((Z95 * spread / 0.05) ** 2, rel=0.15)


def test_samples_to_decide_for_a_failure_and_at_the_limit() -> None:
    drop = Drop(0.03, lower=0.01, upper=0.05, n=100)
    assert samples_to_decide(drop, 0.02) == 400  # the gap is half the width: four times the samples
    assert samples_to_decide(drop, 0.03) is None


def test_ratio_interval_coverage_and_closed_form() -> None:
    rng = np.random.default_rng(6)
    for n in (2, 5, 10):
        misses = 0
        for _ in range(2000):
            ratio = ratio_interval(rng.normal(np.log(1.7), 0.05, size=n))
            misses += not ratio.low <= 1.7 <= ratio.high
        assert 0.037 < misses / 2000 < 0.065
    logs = np.log([2.0, 2.1, 1.9, 2.05])
    ratio = ratio_interval(logs)
    low, high = stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs))
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == pytest.approx(
        (np.exp(logs.mean()), np.exp(low), np.exp(high), 4)
    )


def test_ratio_of_one_launch_or_of_none() -> None:
    ratio = ratio_interval([np.log(3.0)])
    assert (ratio.low, ratio.high, ratio.n) == (0.0, inf, 1) and ratio.value == pytest.approx(3.0)
    for bad in ([], [0.1, np.nan]):
        with pytest.raises(SlimlineError, match="empty or not finite"):
            ratio_interval(bad)


@pytest.mark.parametrize(("n", "smallest"), [(1, 1), (5, 1), (6, 1), (9, 2), (10, 2), (20, 6)])
def test_median_interval_takes_the_tabulated_order_statistics(n: int, smallest: int) -> None:
    # The ranks of the sign test's tables at 5 %: for 9 values the 2nd to the 8th, for 20 the 6th to the 15th.
    values = np.random.default_rng(7).permutation(np.arange(1.0, n + 1))
    assert median_interval(values) == ((n + 1) / 2, smallest, n + 1 - smallest)


def test_the_bound_of_no_difference_solves_its_equation() -> None:
    """With all differences zero every stake is (1 + b m / (1 - m))^n, and their mean is 20."""
    m = betting_upper(np.zeros(1400), 1.0)
    assert np.mean([(1 + b * m / (1 - m)) ** 1400 for b in BETS]) == pytest.approx(20, rel=1e-3)
    assert 0.001 < m < 0.004


@pytest.mark.parametrize("share", [0.002, 0.01])
@pytest.mark.parametrize("loss", [0.05, 1.0])
def test_few_and_skewed_differences_are_bounded_as_often_as_promised(share: float, loss: float) -> None:
    """Most samples are alike and some lose much: the true mean is below the bound in at least 95 % of 2,000 draws."""
    rng = np.random.default_rng(0)
    draws = loss * (rng.random((2000, 300)) < share)
    assert np.mean([betting_upper(d, 1.0) >= share * loss for d in draws]) >= 0.94


def test_small_differences_of_few_samples_do_not_count_as_whole_ones() -> None:
    differences = np.zeros(1400)
    differences[:6], differences[6:9] = 0.05, -0.1
    assert betting_upper(differences, 1.0) < 0.004
    differences[:6] = 1.0
    assert betting_upper(differences, 1.0) > 6 / 1400
