"""The verdict: finalists against the original on data the search never read, each measured from its file."""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from slimline.measure.latency import Race, RacePlan, race
from slimline.measure.score import artifact_outputs
from slimline.measure.statistics import CONFIDENCE, Drop, Verdict, judge, paired_drop, samples_to_decide
from slimline.search.bench import SCORE_BATCH, Bench
from slimline.search.study import Trial
from slimline.task import Array, Samples

FINAL_RACE = RacePlan(launches=(5, 5), rounds=12, target_width=0.0, burst_seconds=0.04)
UNKNOWN_SD = 1.0
"""Of the losses of single samples where a study of an older version does not say: about the most that scores allow."""


@dataclass(frozen=True)
class Certified:
    """A finalist and what the certify split said about it."""

    trial: Trial
    score: float
    drop: Drop
    verdict: Verdict
    needed: int | None
    """Samples that would decide, at what was observed."""


class Certifier:
    """Holds the original's outputs on the certify split; every finalist reads the split once."""

    def __init__(self, bench: Bench, original: Trial, samples: Samples) -> None:
        self.bench, self.samples = bench, samples
        self.outputs: list[Array] = artifact_outputs(
            bench.artifact(original), samples.inputs, bench.threads, SCORE_BATCH
        )
        self.scores: NDArray[np.float64] = bench.task.per_sample(self.outputs, samples, self.outputs)

    def certify(self, trial: Trial, max_drop: float) -> Certified:
        """Score a finalist's file in a fresh process and compare it pair by pair with the original."""
        outputs = artifact_outputs(self.bench.artifact(trial), self.samples.inputs, self.bench.threads, SCORE_BATCH)
        scores = self.bench.task.per_sample(outputs, self.samples, self.outputs)
        drop = paired_drop(self.scores, scores)
        return Certified(trial, float(scores.mean()), drop, judge(drop, max_drop), samples_to_decide(drop, max_drop))

    def in_sequence(self, finalists: list[Trial], max_drop: float) -> list[Certified]:
        """Certify safest first and stop at the first that does not pass (fixed-sequence testing).

        Each is tested at the full 5 %, yet the chance that any PASS is false stays at 5 %, because the order was fixed
        on the search split: Westfall & Krishen (2001), Journal of Statistical Planning and Inference 99.
        """
        done: list[Certified] = []
        for place, trial in enumerate(finalists):
            self.bench.listener.step(
                place, len(finalists), f"certifying {trial.id} ({trial.precision} in {trial.label})"
            )
            done.append(self.certify(trial, max_drop))
            if done[-1].verdict is not Verdict.PASS:
                break
        return done


def sequence(trials: list[Trial], max_drop: float, minimize: str, searched: int, certified: int) -> list[Trial]:
    """Finalists, safest first: the original in its best runtime, then those from which most is expected.

    The sequence ends at the first that does not pass, so that a risky finalist can keep a better one behind it from
    being looked at, and one that is left out is missing where the better one fails. Of all ways through candidates
    that cost less and less this is the one with the largest expected logarithm of what is saved, as if verdicts were
    independent; they share their samples, so the chance of a whole way is rather larger than that. Everything it reads
    was measured on the search split, so the order is fixed before the other is read.

    Args:
        searched: samples of the search split.
        certified: samples of the certify split.
    """
    inside = [
        t
        for t in trials
        if t.drop is not None and t.drop <= max_drop and t.latency_ms is not None and t.stage != "probe"
        if t.status != "dropped" or t.stage == "int8"
    ]

    def cost(trial: Trial) -> float:
        return log((trial.latency_ms if minimize == "latency" else trial.size_bytes) or 1.0)

    first = min((t for t in inside if t.stage == "original"), key=cost, default=None)
    if first is None:
        return []
    ways: list[tuple[float, float, float, list[Trial]]] = []  # log cost, chance, expected beyond it, the way

    def most(before: float) -> tuple[float, list[Trial]]:
        """What is expected from those that cost less, and the way through them."""
        expected = [(p * (before - own + beyond), way) for own, p, beyond, way in ways if own < before]
        return max([(0.0, []), *expected], key=lambda pair: pair[0])

    for trial in sorted((t for t in inside if t.stage != "original"), key=cost):  # all that may follow come first
        beyond, rest = most(cost(trial))
        ways.append((cost(trial), chance(trial, max_drop, searched, certified), beyond, [trial, *rest]))
    return [first, *most(cost(first))[1]]


def chance(trial: Trial, max_drop: float, searched: int, certified: int) -> float:
    """How probably a trial passes on the certify split, from its drop and the spread of it on the search split.

    Both splits' means are normal about the same unknown one, with the same standard deviation s of a sample:

        PASS  <=>  mean_c + z s / sqrt(n_c) <= max_drop,     mean_c - mean_s ~ N(0, s^2 (1 / n_s + 1 / n_c))

    A few samples of which none differs do not say that none ever will: s is at least that of one in n_s which does,
    but for one that was only simplified and still computes in fp32. Chosen as the best of several, a candidate promises
    a little too much.
    """
    assert trial.drop is not None
    room = max_drop - trial.drop
    sd = UNKNOWN_SD if trial.drop_sd is None else trial.drop_sd
    if (trial.stage, trial.precision) != ("free", "fp32"):
        sd = max(sd, 1 / sqrt(searched))
    if sd == 0:
        return float(room >= 0)
    standard = (room * sqrt(certified) / sd - float(stats.norm.ppf(CONFIDENCE))) / sqrt(1 + certified / searched)
    return float(stats.norm.cdf(standard))


def final_race(bench: Bench, contestants: dict[str, Trial], best: Trial) -> Race:
    """One race of the best file (twice: the A/A pair), the originals and the best int8-only file."""
    artifacts = {"best": bench.artifact(best), "best again": bench.artifact(best)}
    artifacts |= {label: bench.artifact(trial) for label, trial in contestants.items()}
    return race(artifacts, bench.search.inputs, FINAL_RACE, bench.threads, bench.listener.note)
