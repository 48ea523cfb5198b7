"""The verdict: finalists against the original on data the search never read, each measured from its file."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimline.measure.latency import Race, RacePlan, race
from slimline.measure.score import artifact_outputs
from slimline.measure.statistics import Drop, Verdict, judge, paired_drop, samples_to_decide
from slimline.search.bench import SCORE_BATCH, Bench
from slimline.search.study import Trial
from slimline.task import Array, Samples

FINAL_RACE = RacePlan(launches=(5, 5), rounds=12, target_width=0.0, burst_seconds=0.04)
SURELY_SAFE_SHARE = 0.5
"""A finalist before the last enters the sequence only if its drop on the search split is at most this share of the
budget."""


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

        Each is tested at the full 5 %, yet the chance that any PASS is false stays at 5 %, because the order was
        fixed on
        the search split: Westfall & Krishen (2001), Journal of Statistical Planning and Inference 99.
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


def sequence(trials: list[Trial], max_drop: float, minimize: str) -> list[Trial]:
    """Finalists, safest first: from the original in its fastest runtime to the best candidate the search split
    allows."""
    usable = [t for t in trials if t.drop is not None and t.latency_ms is not None and t.stage != "probe"]
    inside = [t for t in usable if t.status != "dropped" or t.stage == "int8"]
    inside = [t for t in inside if t.drop is not None and t.drop <= max_drop]

    def gain(trial: Trial) -> float:
        return float((trial.latency_ms if minimize == "latency" else trial.size_bytes) or 0.0)

    chain: list[Trial] = []
    for stage in ("original", "free", "int8", "storage", "pruned"):
        of_stage = sorted((t for t in inside if t.stage == stage), key=gain)
        safer = [t for t in of_stage if t.drop == min(u.drop or 0.0 for u in of_stage)][:1] if stage == "pruned" else []
        for trial in [*safer, *of_stage[:1]]:
            if not chain or gain(trial) < gain(chain[-1]):
                chain.append(trial)
    safe = [t for t in chain[:-1] if t.stage == "original" or (t.drop or 0.0) <= SURELY_SAFE_SHARE * max_drop]
    return [*safe, chain[-1]] if chain else []


def final_race(bench: Bench, contestants: dict[str, Trial], best: Trial) -> Race:
    """One race of the best file (twice: the A/A pair), the originals and the best int8-only file."""
    artifacts = {"best": bench.artifact(best), "best again": bench.artifact(best)}
    artifacts |= {label: bench.artifact(trial) for label, trial in contestants.items()}
    return race(artifacts, bench.search.inputs, FINAL_RACE, bench.threads, bench.listener.note)
