"""Intervals, verdicts and how many samples would decide. Arrays in, numbers out; nothing here measures."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, exp, inf, isfinite, log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from slimline.errors import SlimlineError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
"""Of every bound and every interval, where nothing else is asked for."""
RESAMPLES = 1999
"""Bootstrap resamples. (RESAMPLES + 1) * 5 % is a whole number, so the 5 % point is an order statistic."""
SPARSE = 20
"""With fewer differing samples than this a resample is too often without any, and the bootstrap cannot be trusted."""
BETS = (0.3, 0.6, 0.9)
"""Shares of the largest bet that cannot ruin."""
SEED = 20_250_101


class Verdict(StrEnum):
    """The answer to "did it lose at most this much?"."""

    PASS = "PASS"
    FAIL = "FAIL"
    CANT_TELL = "CAN'T TELL"


@dataclass(frozen=True)
class Drop:
    """How much of the score was lost, in score units (0.01 = 1 point); positive is worse."""

    drop: float
    lower: float
    upper: float
    """One-sided bounds, each at ``confidence``."""
    n: int
    """Pairs of samples."""
    confidence: float = CONFIDENCE
    lost: int | None = None
    gained: int | None = None
    """Samples that only the original, and only the candidate, got right. None where scores are not 0 or 1."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two latencies and its two-sided interval; ``n`` is the number of launches."""

    value: float
    low: float
    high: float
    n: int


def paired_drop(original: ArrayLike, candidate: ArrayLike, confidence: float = CONFIDENCE) -> Drop:
    """Mean loss of score over the same samples, with one-sided bounds, each at ``confidence``.

    0/1 scores get Tango's score interval (`tango_bounds`). Other scores get the studentised bootstrap with a fixed seed
    (Efron & Tibshirani 1993, section 12.5), except where fewer than `SPARSE` samples differ at all: those
    get a bound by betting (`betting_upper`), which needs no resamples and only the range of the scores, and where
    none differs that of 0/1 scores times the range.

    Both arguments have shape (n,). Raises SlimlineError for other shapes, no samples, or a score that is not finite.
    """
    a, b = _scores(original, "original"), _scores(candidate, "candidate")
    if a.shape != b.shape:
        raise SlimlineError(
            f"the original has {a.size} scores and the candidate {b.size}: score both on the same samples"
        )
    if not 0.5 < confidence < 1:
        raise SlimlineError(f"confidence {confidence} is not between 0.5 and 1: use for example 0.95")
    differences = a - b
    drop, n = float(differences.mean()), a.size
    if np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all():
        lost, gained = int((differences > 0).sum()), int((differences < 0).sum())
        lower, upper = tango_bounds(lost, gained, n, confidence)
        return Drop(drop, lower, upper, n, confidence, lost, gained)
    differing = int(np.count_nonzero(differences))
    if differing < min(SPARSE, n):
        spread = float(max(a.max(), b.max()) - min(a.min(), b.min()))
        lower, upper = _sparse_bounds(differences, spread, confidence)
    else:
        lower, upper = bootstrap_bounds(differences, confidence)
    return Drop(drop, lower, upper, n, confidence)


def _scores(values: ArrayLike, whose: str) -> Floats:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise SlimlineError(f"the {whose} scores have shape {scores.shape}: one score per sample is needed")
    broken = np.flatnonzero(~np.isfinite(scores))
    if broken.size:
        raise SlimlineError(
            f"{broken.size} of {scores.size} {whose} scores are NaN or infinite (the first is sample {broken[0]}): "
            "look for overflow in the outputs or a division by zero in the score"
        )
    return scores


def tango_bounds(lost: int, gained: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """One-sided bounds, each at ``confidence``, of the difference of two paired proportions.

    Tango (1998), Statistics in Medicine 17:891-908. With b lost, c gained, the bounds solve
    (b - c - n d) / sqrt(n (2 q + d (1 - d))) = -z for the upper and +z for the lower one, where q is the most likely
    share of gained samples given the difference d. Without any discordant pair the upper bound is z^2 / (n + z^2).
    """
    z = float(stats.norm.ppf(confidence))
    # Swapping the roles of the two turns the lower bound into minus an upper one.
    return -_tango_upper(gained, lost, n, z), _tango_upper(lost, gained, n, z)


def _tango_upper(lost: int, gained: int, n: int, z: float) -> float:
    observed = (lost - gained) / n

    def excess(d: float) -> float:
        return (d - observed) - z * sqrt(tango_variance(lost / n, gained / n, d) / n)

    # With no discordant pair the variance at the observed difference is zero and so is the excess: step off that root.
    start = observed + 1e-12
    if start >= 1 or excess(start) >= 0:
        return min(observed, 1.0)
    return float(optimize.brentq(excess, start, 1.0, xtol=1e-12))


def tango_variance(lost: float, gained: float, d: float) -> float:
    """Variance of one sample's difference when the true difference is ``d``; ``lost`` and ``gained`` are shares.

    2 q + d (1 - d) with q the maximum-likelihood share of gained samples under d: the positive root of
    2 q^2 + B q + C with B = (2 - lost + gained) d - lost - gained and C = -gained d (1 - d) (Tango 1998).
    """
    b = (2 - lost + gained) * d - lost - gained
    c = -gained * d * (1 - d)
    root = sqrt(max(b * b - 8 * c, 0.0))
    # The two forms are equal; each avoids subtracting nearly equal numbers on its side.
    q = (root - b) / 4 if b < 0 else (-2 * c / (root + b) if root + b > 0 else 0.0)
    return max(2 * q + d * (1 - d), 0.0)


def bootstrap_bounds(differences: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """One-sided studentised bootstrap bounds of the mean of ``differences``, shape (n,); a fixed seed.

    Differences that are all equal give that number twice; a single one gives infinite bounds.
    """
    n, mean = differences.size, float(differences.mean())
    if n == 1:
        return -inf, inf
    error = float(differences.std(ddof=1)) / sqrt(n)
    if np.ptp(differences) == 0:
        return mean, mean
    rng = np.random.default_rng(SEED)
    rows = max(1, 2_000_000 // n)  # bounds the memory of one block of resamples
    studentised = []
    for start in range(0, RESAMPLES, rows):
        sample = differences[rng.integers(0, n, size=(min(rows, RESAMPLES - start), n))]
        shift = sample.mean(axis=1) - mean
        spread = sample.std(axis=1, ddof=1) / sqrt(n)
        # A resample of one value repeated says nothing about the spread: it counts as infinitely far out.
        blind = np.where(shift == 0, 0.0, np.copysign(inf, shift))
        studentised.append(np.where(spread > 0, shift / np.where(spread > 0, spread, 1.0), blind))
    t = np.sort(np.concatenate(studentised))
    k = max(1, round((1 - confidence) * (RESAMPLES + 1)))
    return mean - float(t[RESAMPLES - k]) * error, mean - float(t[k - 1]) * error


def betting_upper(differences: Floats, largest: float, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the mean of differences of at most ``largest``, whatever their distribution and number.

    Waudby-Smith, Ramdas (2023), Estimating means of bounded random variables by betting, arXiv:2010.09686, section 4.
    Who bets that the mean is below m multiplies the stake by 1 + b (m - d) / (largest - m) with every difference d. If
    the mean is m or more the stake is not expected to grow, so it reaches 1 / (1 - confidence) with a probability of at
    most 1 - confidence (Ville). The bound is the smallest m at which it does; the stake is spread over a few b.
    """
    goal = -log(1 - confidence)

    def short_of_goal(m: float) -> float:
        stakes = np.log1p(np.outer(BETS, (m - differences) / (largest - m))).sum(axis=1)
        return goal - float(special.logsumexp(stakes) - log(len(BETS)))

    low, high = float(differences.mean()), largest * (1 - 1e-9)
    return float(optimize.brentq(short_of_goal, low, high)) if low < high and short_of_goal(high) < 0 else largest


def _sparse_bounds(differences: Floats, spread: float, confidence: float) -> tuple[float, float]:
    if not differences.any():  # Tango's bound without gained samples is Wilson's bound of one proportion
        bound = spread * _tango_upper(0, 0, differences.size, float(stats.norm.ppf(confidence)))
        return -bound, bound
    upper = betting_upper(differences, spread, confidence)
    return -betting_upper(-differences, spread, confidence), upper


def judge(drop: Drop, max_drop: float) -> Verdict:
    """PASS if the upper bound is at most ``max_drop``, FAIL if the lower bound is above it, else CAN'T TELL."""
    if drop.upper <= max_drop:
        return Verdict.PASS
    return Verdict.FAIL if drop.lower > max_drop else Verdict.CANT_TELL


def samples_to_decide(drop: Drop, max_drop: float) -> int | None:
    """How many samples would decide if the drop and the spread stay as observed.

    At this number the bound is expected to meet ``max_drop``: about one repetition in two would be decided with it.
    None when the observed drop is ``max_drop`` itself, or when there is no estimate of the spread.
    """
    gap = max_drop - drop.drop
    if gap == 0:
        return None
    if drop.lost is not None and drop.gained is not None:
        z = float(stats.norm.ppf(drop.confidence))
        if not -1 <= max_drop <= 1:
            return 1
        needed = z * z * tango_variance(drop.lost / drop.n, drop.gained / drop.n, max_drop) / gap**2
    else:
        half_width = drop.upper - drop.drop if gap > 0 else drop.drop - drop.lower
        if not isfinite(half_width):
            return None
        needed = drop.n * (half_width / gap) ** 2
    return max(1, ceil(needed))


def ratio_interval(log_ratios: ArrayLike, confidence: float = CONFIDENCE) -> Ratio:
    """Geometric mean of ratios with a two-sided Student t interval on their logarithms.

    ``log_ratios`` has shape (launches,): one number per launch, because bursts within a launch are not independent.
    One launch gives (value, 0, inf). Raises SlimlineError for none, or for one that is not finite.
    """
    logs = np.asarray(log_ratios, dtype=np.float64).reshape(-1)
    if logs.size == 0 or not np.isfinite(logs).all():
        raise SlimlineError(f"the log ratios {logs.tolist()} are empty or not finite: measure the latencies again")
    mean = float(logs.mean())
    if logs.size == 1:
        return Ratio(exp(mean), 0.0, inf, 1)
    half = float(stats.t.ppf((1 + confidence) / 2, logs.size - 1)) * float(logs.std(ddof=1)) / sqrt(logs.size)
    return Ratio(exp(mean), exp(mean - half), exp(mean + half), logs.size)


def median_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Median with its distribution-free interval (the sign test, inverted): ``(median, low, high)``.

    ``values`` has shape (n,). The narrowest symmetric pair of order statistics that covers the median at
    ``confidence``; the smallest and the largest value where n is too small for any pair to do so (n < 6 at 95 %).
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = ordered.size
    if n == 0:
        raise SlimlineError("the median of no values was asked for: measure at least once")
    skip = max(0, int(stats.binom.ppf((1 - confidence) / 2, n, 0.5)) - 1)
    # binom.ppf gives the first count with at least alpha / 2 below or at it; one less is what may be left out.
    return float(np.median(ordered)), float(ordered[skip]), float(ordered[n - 1 - skip])
