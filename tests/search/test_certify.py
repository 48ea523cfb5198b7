"""Which finalists are tested in which order, and how often a bad one passes."""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.measure.statistics import Verdict, tango_bounds
from slimline.methods.recipe import Recipe
from slimline.search import certify as certify_module
from slimline.search.bench import Bench
from slimline.search.certify import Certifier, chance, final_race, sequence
from slimline.search.listener import Silent
from slimline.search.study import Trial
from slimline.task import Samples, Task
from tests.search.stand_ins import from_macs, planted_race, pretending, toy_bench
from tests.search.test_bench import HALF

Floats = NDArray[np.float64]
MAX_DROP = 0.01


def trial(name: str, stage: str, ms: float | None, drop: float | None, **values: object) -> Trial:
    known: dict[str, Any] = {
        "id": name, "stage": stage, "runtime": "openvino", "variant": "", "precision": "int8", "recipe": [],
        "network": "", "artifact": name, "size_bytes": 100, "macs": 1, "parameters": 1, "latency_ms": ms, "drop": drop,
        "drop_sd": 0.0,
    }  # fmt: skip
    return Trial(**(known | values))


ORIGINALS = [trial("torch", "original", 9.0, 0.0), trial("openvino", "original", 4.0, 0.0)]


SPLITS = (2500, 2500)
"""Samples of the search split and of the certify split."""


def ids(trials: list[Trial], minimize: str = "latency") -> list[str]:
    return [t.id for t in sequence(trials, MAX_DROP, minimize, *SPLITS)]


# --- the order --------------------------------------------------------------------------------------------------------


def test_from_the_original_in_its_fastest_runtime_to_the_fastest_candidate() -> None:
    trials = [
        *ORIGINALS,
        trial("folded", "free", 3.9, 0.0),
        trial("int8", "int8", 2.0, 0.002, drop_sd=0.1),
        trial("small", "pruned", 1.0, 0.008, drop_sd=0.1),
    ]
    assert ids(trials) == ["openvino", "folded", "int8", "small"]


def test_what_is_slower_than_something_safer_is_left_out() -> None:
    trials = [*ORIGINALS, trial("folded", "free", 4.1, 0.0), trial("int8", "int8", 5.0, 0.0)]
    assert ids(trials) == ["openvino"]


def test_what_would_pass_for_sure_need_not_be_looked_at_where_something_faster_would_too() -> None:
    trials = [*ORIGINALS, trial("folded", "free", 3.9, 0.0), trial("int8", "int8", 2.0, 0.0)]
    assert ids(trials) == ["openvino", "int8"]


def test_what_lost_too_much_on_the_search_split_is_left_out() -> None:
    trials = [*ORIGINALS, trial("int8", "int8", 2.0, 0.002), trial("small", "pruned", 1.0, 0.011)]
    assert ids(trials) == ["openvino", "int8"]


def test_what_would_probably_end_the_sequence_before_the_faster_one_is_left_out() -> None:
    risky = trial("int8", "int8", 2.0, 0.009, drop_sd=0.1)
    assert ids([*ORIGINALS, risky, trial("small", "pruned", 1.0, 0.006, drop_sd=0.1)]) == ["openvino", "small"]
    assert ids([*ORIGINALS, risky]) == ["openvino", "int8"]


def test_what_would_probably_pass_is_looked_at_before_what_hardly_will() -> None:
    trials = [
        *ORIGINALS,
        trial("int8", "int8", 2.0, 0.001, drop_sd=0.1),
        trial("pruned", "pruned", 1.0, 0.0063, drop_sd=0.1),
        trial("pruned more", "pruned", 0.6, 0.0085, drop_sd=0.12),
    ]
    assert ids(trials) == ["openvino", "int8", "pruned", "pruned more"]


def test_few_samples_of_which_none_differs_promise_little_but_to_what_was_only_simplified() -> None:
    free, int8 = trial("free", "free", 3.0, 0.0, precision="fp32"), trial("int8", "int8", 2.0, 0.0)
    assert chance(free, MAX_DROP, 200, 470) == 1
    assert chance(trial("free", "free", 3.0, 0.0, precision="bf16"), MAX_DROP, 200, 470) < 0.9
    assert chance(int8, MAX_DROP, 200, 470) < 0.9 < chance(int8, MAX_DROP, 2500, 2500)
    chosen = sequence([*ORIGINALS, free, int8], MAX_DROP, "latency", 200, 470)
    assert [t.id for t in chosen] == ["openvino", "free", "int8"]


def test_a_study_that_does_not_say_how_losses_spread_promises_little() -> None:
    assert chance(trial("old", "pruned", 1.0, 0.0099, drop_sd=None), MAX_DROP, *SPLITS) < 0.2


@pytest.mark.parametrize("seed", range(20))
def test_no_other_way_through_the_candidates_is_expected_to_save_more(seed: int) -> None:
    """All subsets in the order of their cost, each with the sum over where the sequence may end."""
    rng = np.random.default_rng(seed)
    trials = [
        trial(str(i), "pruned", float(rng.uniform(0.2, 5.0)), float(rng.uniform(0, MAX_DROP)), drop_sd=0.12)
        for i in range(8)
    ]

    def expected(way: Sequence[Trial]) -> float:
        chances = [chance(t, MAX_DROP, *SPLITS) for t in way]
        total = 0.0
        for passed in range(1, len(way) + 1):
            ends_here = math.prod(chances[:passed]) * (1 - chances[passed] if passed < len(way) else 1)
            total += ends_here * math.log(4.0 / (way[passed - 1].latency_ms or 0.0))
        return total

    ordered = sorted((t for t in trials if (t.latency_ms or 0.0) < 4.0), key=lambda t: -(t.latency_ms or 0.0))
    most = max(expected(way) for size in range(len(ordered) + 1) for way in combinations(ordered, size))
    chosen = sequence([*ORIGINALS, *trials], MAX_DROP, "latency", *SPLITS)
    assert chosen[0].id == "openvino"
    assert expected(chosen[1:]) == pytest.approx(most)


@pytest.mark.parametrize(
    ("drop", "searched", "certified"), [(0.002, 2500, 2500), (0.006, 4000, 1000), (0.009, 1500, 5000)]
)
def test_the_chance_to_pass_is_how_often_planted_answers_do(drop: float, searched: int, certified: int) -> None:
    """True drops around the observed one are as probable as the observation makes them; 3 % of the answers differ."""
    rng, sd, repetitions = np.random.default_rng(0), 0.03**0.5, 1500
    passed = 0
    for _ in range(repetitions):
        true = drop + sd / searched**0.5 * rng.standard_normal()
        lost = rng.binomial(certified, (0.03 + true) / 2)
        gained = rng.binomial(certified, (0.03 - true) / 2)
        passed += tango_bounds(lost, gained, certified)[1] <= MAX_DROP
    found = chance(trial("small", "pruned", 1.0, drop, drop_sd=sd), MAX_DROP, searched, certified)
    assert found == pytest.approx(passed / repetitions, abs=0.04)


def test_probes_what_was_dropped_and_what_was_not_measured_are_no_finalists() -> None:
    trials = [
        *ORIGINALS,
        trial("probe", "probe", 0.1, 0.0),
        trial("dropped", "pruned", 0.2, 0.0, status="dropped"),
        trial("untimed", "pruned", None, 0.0),
        trial("unscored", "pruned", 0.3, None),
    ]
    assert ids(trials) == ["openvino"]


def test_for_size_the_smallest_file_is_the_goal() -> None:
    trials = [
        *ORIGINALS,
        trial("fast", "int8", 1.0, 0.0, size_bytes=90),
        trial("tight", "int8", 3.0, 0.0, size_bytes=30),
        trial("small", "pruned", 2.0, 0.0, size_bytes=40),
    ]
    assert ids(trials, "size")[-1] == "tight"


def test_what_stores_its_weights_in_fewer_bytes_comes_before_what_is_pruned() -> None:
    trials = [
        *ORIGINALS,
        trial("codebooks", "storage", 4.0, 0.001, size_bytes=30, drop_sd=0.1),
        trial("int8", "int8", 1.0, 0.0, size_bytes=60),
        trial("small", "pruned", 2.0, 0.008, size_bytes=20, drop_sd=0.1),
    ]
    assert ids(trials, "size")[-3:] == ["int8", "codebooks", "small"]


def test_nothing_measured_gives_nothing() -> None:
    assert sequence([], MAX_DROP, "latency", *SPLITS) == []


# --- the verdicts -----------------------------------------------------------------------------------------------------


class Planted:
    """A certifier whose candidates' scores are planted; counts how often each candidate is looked at."""

    def __init__(self, original: Floats, candidates: dict[str, Floats]) -> None:
        self.scores = {"original": original, **candidates}
        self.read: list[str] = []
        task = Task(validate={"x": original}, score=lambda outputs, labels: outputs[0])
        stub = SimpleNamespace(artifact=lambda t: t.artifact, threads=1, listener=Silent(), task=task)
        with patch.object(certify_module, "artifact_outputs", self.outputs):
            self.certifier = Certifier(
                cast(Bench, stub), trial("original", "original", 1.0, 0.0), Samples({"x": original})
            )
        self.finalists = [trial(name, "pruned", 1.0, 0.0) for name in candidates]

    def outputs(self, artifact: str, *_: object) -> list[Floats]:
        self.read.append(artifact)
        return [self.scores[artifact]]

    def verdicts(self, stop: bool = True) -> list[Verdict]:
        with patch.object(certify_module, "artifact_outputs", self.outputs):
            if stop:
                return [c.verdict for c in self.certifier.in_sequence(self.finalists, MAX_DROP)]
            return [self.certifier.certify(t, MAX_DROP).verdict for t in self.finalists]


def zeros_and_ones(rng: np.random.Generator, n: int, drops: list[float], wrong: float = 0.1) -> Planted:
    """0/1 scores; each candidate loses what is right and gains what is wrong so that its true drop is as given."""
    original = (rng.random(n) >= wrong).astype(float)
    candidates = {}
    for i, drop in enumerate(drops):
        gain = 0.2  # share of the wrong ones that the candidate gets right
        loss = (drop + gain * wrong) / (1 - wrong)
        flip = np.where(original == 1, rng.random(n) < loss, rng.random(n) < gain)
        candidates[f"c{i}"] = np.where(flip, 1 - original, original)
    return Planted(original, candidates)


def test_the_sequence_stops_at_the_first_that_does_not_pass_and_reads_no_further() -> None:
    n = 4000
    right = np.ones(n)
    bad = np.where(np.arange(n) % 10 == 0, 0.0, 1.0)
    planted = Planted(right, {"good": right.copy(), "bad": bad, "never": right.copy()})
    assert planted.verdicts() == [Verdict.PASS, Verdict.FAIL]
    assert planted.read == ["original", "good", "bad"]


def test_what_cannot_be_told_stops_it_too_and_says_how_many_samples_would_decide() -> None:
    n = 400
    right = np.ones(n)
    close = np.where(np.arange(n) < 3, 0.0, 1.0)
    planted = Planted(right, {"close": close, "never": right.copy()})
    with patch.object(certify_module, "artifact_outputs", planted.outputs):
        (only,) = planted.certifier.in_sequence(planted.finalists, MAX_DROP)
    assert only.verdict is Verdict.CANT_TELL and only.drop.drop == pytest.approx(3 / 400)
    assert only.score == pytest.approx(397 / 400) and only.needed is not None and only.needed > n


@pytest.mark.parametrize(("good", "n"), [(0, 600), (2, 3000)])
def test_the_chance_of_any_false_pass_stays_at_five_percent(good: int, n: int) -> None:
    """Four candidates lose a little more than allowed (after some that lose nothing): how often does one of them pass?

    Testing all of them at the same level without stopping would pass one of them two to three times as often.
    """
    rng, repetitions = np.random.default_rng(0), 1000
    wrongly, without_stopping = 0, 0
    for _ in range(repetitions):
        planted = zeros_and_ones(rng, n, [-0.02] * good + [MAX_DROP + 1e-4] * 4)
        wrongly += Verdict.PASS in planted.verdicts()[good:]
        without_stopping += Verdict.PASS in planted.verdicts(stop=False)[good:]
    slack = 3 * (0.05 * 0.95 / repetitions) ** 0.5
    assert 0 < wrongly / repetitions <= 0.05 + slack
    assert without_stopping / repetitions > 0.09


def test_a_certificate_comes_from_the_exported_file(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        original, half = bench.trial("original", Recipe(), ("torch", "")), bench.trial("free", HALF, ("torch", ""))
        samples = bench.task.splits(0).certify
        certifier = Certifier(bench, original, samples)
        certified = certifier.certify(half, 0.05)
    answers = bench.load(half.network).run(samples.tensors())[0].argmax(1).numpy()
    assert certified.score == pytest.approx((answers == samples.labels).mean())
    assert certified.drop.n == len(samples)
    assert certified.drop.drop == pytest.approx(certifier.scores.mean() - certified.score)


def test_the_final_race_holds_the_best_file_twice(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        original, half = bench.trial("original", Recipe(), ("torch", "")), bench.trial("free", HALF, ("torch", ""))
        with patch.object(certify_module, "race", planted_race(from_macs)):
            race = final_race(bench, {"original torch": original}, half)
        expected = from_macs(bench.artifact(original)) / from_macs(bench.artifact(half))
    assert race.ratio("original torch", "best").value == pytest.approx(expected, rel=0.01)
    assert race.ratio("best again", "best").value == pytest.approx(1, rel=0.01)
