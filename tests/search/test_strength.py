"""The strength is bisected against the budget, the best candidate goes on, and the clock is obeyed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.adjust.logits import AdjustLogits
from slimline.methods.distill.distill import Distill
from slimline.methods.distill.own_student import OwnStudent
from slimline.methods.factorize.tucker import FactorizeTucker
from slimline.methods.factorize.whitened import FactorizeWhitened
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.runtime import Artifact
from slimline.search import bench as bench_module
from slimline.search import strength as strength_module
from slimline.search.bench import Bench
from slimline.search.budget import Budget
from slimline.search.layer_race import LayerRace
from slimline.search.listener import Silent
from slimline.search.strength import (
    MANY_CLASSES,
    MOST_CANDIDATES,
    MOST_UNTRAINED,
    SIZE_SHARE,
    WEAKEST,
    StrengthSearch,
)
from slimline.search.students import FACTORIZATIONS
from slimline.search.study import Trial
from slimline.search.table import SensitivityTable
from slimline.task import Task
from slimline.training.teacher import Teacher
from tests.search.stand_ins import from_macs, planted_race, toy_bench
from tests.toys import patterns, toy, toy_task

QUANTIZE = QuantizeStatic(ops=("aten.conv2d", "aten.linear"))
ENOUGH, SECONDS_PER_CANDIDATE = 1000.0, 20.0
ONE_POINT = Budget(max_drop=0.01)
LAYER_RACE = partial(LayerRace, run=planted_race(from_macs))


@contextmanager
def planted_scores(bench: Bench, drop: Callable[[Trial], float]) -> Iterator[list[float]]:
    """A file loses what is said; a candidate takes 20 seconds."""
    clock = [0.0]

    def score(self: Bench, trial: Trial) -> None:
        trial.drop = drop(trial)
        trial.score = 1 - trial.drop
        clock[0] += SECONDS_PER_CANDIDATE

    with (
        patch.object(bench_module, "race", planted_race(from_macs)),
        patch.object(Bench, "_score", score),
        patch.object(bench.study, "elapsed", lambda: clock[0]),
        patch.object(strength_module, "LONGEST_SHORT", 0.5),
        patch.object(strength_module, "LONGEST_FULL", 1.0),
    ):
        yield clock


def searched(
    folder: Path,
    fewest_macs: float,
    deadline: float = ENOUGH,
    resume: bool = False,
    task: Task | None = None,
    budget: Budget = ONE_POINT,
    layer_race: Callable[..., Any] = LAYER_RACE,
    drop: Callable[[Trial], float] | None = None,
) -> StrengthSearch:
    """A search in which a file loses nothing while it has so many MACs, else half of its score, or what `drop` says."""
    drop = drop or (lambda trial: 0.0 if trial.macs >= fewest_macs else 0.5)
    bench = toy_bench(folder, task, resume)
    table = SensitivityTable(bench, toy(), bench.training_task, bench.task.splits(0).calibrate, multiple=2)
    with planted_scores(bench, drop) as clock, patch.object(strength_module, "LayerRace", layer_race):
        int8 = bench.trial("int8", Recipe([FoldBatchNorm(), QUANTIZE]), ("torch", ""), scored=False)
        bench.time([int8])
        table.measure_damage()
        table.time_groups(int8)
        clock[0] = 0.0
        search = StrengthSearch(bench, table, int8, budget)
        search.run(deadline)
    return search


def stored(search: StrengthSearch) -> dict[str, Trial]:
    return {t.id: t for t in search.bench.study.trials()}


def test_what_passes_is_followed_by_something_stronger(tmp_path: Path) -> None:
    search = searched(tmp_path, fewest_macs=0)
    short = search.made[:MOST_CANDIDATES]
    strengths = [c.strength for c in short]
    assert strengths == sorted(strengths, reverse=True) and max(strengths) < WEAKEST
    assert [c.trial.macs for c in short] == sorted((c.trial.macs for c in short), reverse=True)
    assert search.made[-1].strength == min(strengths)


def test_what_fails_is_followed_by_something_weaker(tmp_path: Path) -> None:
    search = searched(tmp_path, fewest_macs=1e9)
    strengths = [c.strength for c in search.made[:MOST_CANDIDATES]]
    assert strengths == sorted(strengths) and max(strengths) < WEAKEST
    trials = stored(search)
    assert all(trials[c.trial.id].status == "dropped" for c in search.made[:MOST_CANDIDATES])
    assert "lost 50.00 points after a short recovery" in [t.why for t in trials.values()]


@pytest.mark.parametrize(("minimize", "size_share"), [("latency", SIZE_SHARE), ("size", 1.0)])
def test_widths_cost_at_most_the_share_asked_for(tmp_path: Path, minimize: str, size_share: float) -> None:
    """The share is one of milliseconds and a little of size, or of size alone."""
    task = replace(toy_task(), student=None)
    search = searched(tmp_path, 0, task=task, budget=Budget(max_drop=0.01, minimize=minimize))
    table = search.table
    for candidate in search.made:
        prune = candidate.methods[0]
        assert isinstance(prune, PruneChannels) and prune.keep == 1.0
        widths = table.whole | dict(prune.widths)
        ms = table.predict_ms(widths) / table.predict_ms(table.whole)
        size = table.costs.bytes(widths) / table.costs.bytes(table.whole)
        assert (1 - size_share) * ms + size_share * size <= candidate.strength


@pytest.mark.parametrize("better", ["with", "without"])
def test_the_first_candidate_decides_whether_layers_are_refitted(tmp_path: Path, better: str) -> None:
    def drop(trial: Trial) -> float:
        refitted = any("reconstruct" in line for line in trial.recipe)
        return 0.002 if refitted == (better == "with") else 0.004

    search = searched(tmp_path, fewest_macs=0, drop=drop)
    prunes = [c.methods[0] for c in search.made]
    assert all(isinstance(p, PruneChannels) and (p.reconstruct > 0) == (better == "with") for p in prunes)
    first, *others = [t for t in stored(search).values() if "least squares" in t.why]
    assert not others and first.status == "dropped" and first.macs == search.made[0].trial.macs
    worse = "without" if better == "with" else "with"
    assert first.why == (
        f"lost 0.40 points after a short recovery {worse} least squares; {search.made[0].trial.id} {better} them 0.20"
    )


def test_the_best_candidate_is_recovered_once_more_from_where_it_was(tmp_path: Path) -> None:
    search = searched(tmp_path, fewest_macs=0)
    full, short = search.made[-1], search.made[MOST_CANDIDATES - 1]
    assert [type(m) for m in full.methods] == [PruneChannels, Distill, Distill]
    assert full.methods[:2] == short.methods and full.trial.macs == short.trial.macs
    assert len([line for line in full.network.history if line.startswith("Distill")]) == 2
    trials = stored(search)
    assert trials[short.trial.id].why == f"carried on as {full.trial.id} with a longer recovery"
    assert trials[full.trial.id].status == "kept" and trials[full.trial.id].stage == "pruned"


def test_the_stored_recipe_makes_the_stored_trial(tmp_path: Path) -> None:
    """Prune, recover, fold, quantise: a trial's recipe can be applied again, from the original alone."""
    search = searched(tmp_path, fewest_macs=0)
    trial = search.made[0].trial
    recipe = Recipe.from_yaml(trial.recipe_yaml)
    assert recipe.lines() == trial.recipe
    assert [type(m) for m in recipe.methods] == [PruneChannels, Distill, FoldBatchNorm, QuantizeStatic]
    again = recipe.apply(toy(), search.bench.training_task).network
    stored_weights = search.bench.load(trial.network).weights()
    assert {n: t.shape for n, t in again.weights().items()} == {n: t.shape for n, t in stored_weights.items()}
    assert all((again.weights()[n] == t).all() for n, t in stored_weights.items())


@pytest.mark.parametrize(("deadline", "made"), [(-50.0, 0), (10.0, 0), (25.0, 1)])
def test_no_candidate_is_begun_that_would_end_after_the_deadline(tmp_path: Path, deadline: float, made: int) -> None:
    """15 seconds are set aside for the export of each, and a candidate takes 20 seconds here."""
    search = searched(tmp_path, fewest_macs=0, deadline=deadline)
    assert len(search.made) == made


def test_a_resumed_search_decides_the_same_although_the_clock_has_moved(tmp_path: Path) -> None:
    first = searched(tmp_path, fewest_macs=0)
    with patch.object(StrengthSearch, "_train", side_effect=AssertionError("recovered before")):
        again = searched(tmp_path, fewest_macs=0, deadline=1.0, resume=True)
    assert [c.trial.id for c in again.made] == [c.trial.id for c in first.made]
    assert stored(again) == stored(first)


def test_a_search_resumed_with_more_time_recovers_longer(tmp_path: Path) -> None:
    short = searched(tmp_path, fewest_macs=0, deadline=25.0, budget=replace(ONE_POINT, time_s=25.0))
    longer = searched(tmp_path, fewest_macs=0, resume=True, budget=replace(ONE_POINT, time_s=ENOUGH))
    assert len(short.made) == 1 < len(longer.made)


def test_labels_and_views_are_used_where_there_are_any(tmp_path: Path) -> None:
    def methods(name: str, task: Task) -> Distill:
        (tmp_path / name).mkdir()
        method = searched(tmp_path / name, 0, deadline=25.0, task=task).made[0].methods[1]
        assert isinstance(method, Distill)
        return method

    plain = toy_task(labels=False)
    labelled = methods("labelled", toy_task())
    without = methods("without", Task(validate=plain.validate, train=plain.train, augment="image"))
    assert labelled.label_weight > 0 == without.label_weight
    assert without.views > 1 == labelled.views
    mixed = methods("mixed", replace(toy_task(), augment="mix"))
    assert mixed.views > 1 and mixed.label_weight == 0


def test_without_batch_norm_a_candidate_is_judged_before_recovery(tmp_path: Path) -> None:
    with patch.object(strength_module, "NORMED_SHARE", 2.0):
        search = searched(tmp_path, fewest_macs=0)
    assert [[type(m) for m in c.methods] for c in search.made] == [
        *[[FoldBatchNorm, PruneChannels]] * MOST_UNTRAINED,
        [FoldBatchNorm, PruneChannels, Distill],
    ]
    prune, distill = search.made[-1].methods[1:]
    assert isinstance(prune, PruneChannels) and prune.importance == "obs" and prune.reconstruct > 0
    assert isinstance(distill, Distill) and distill.optimizer == "adamw" and distill.epochs > 0
    assert not any("batch_norm" in str(n.target) for n in search.made[-1].network.module.graph.nodes)


def test_a_recovery_that_loses_is_dropped_and_what_it_started_from_is_kept(tmp_path: Path) -> None:
    def score(self: Bench, trial: Trial) -> None:
        trial.drop = 0.004 if any(line.startswith("Distill") for line in trial.recipe) else 0.002
        trial.score = 1 - trial.drop

    with patch.object(strength_module, "NORMED_SHARE", 2.0), patch.object(Bench, "_score", score):
        bench = toy_bench(tmp_path)
        table = SensitivityTable(bench, toy(), bench.training_task, bench.task.splits(0).calibrate, multiple=2)
        with (
            patch.object(bench_module, "race", planted_race(from_macs)),
            patch.object(strength_module, "LONGEST_FULL", 1.0),
        ):
            base = bench.trial("free", Recipe([FoldBatchNorm()]), ("torch", ""), scored=False)
            bench.time([base])
            table.measure_damage()
            table.time_groups(base)
            search = StrengthSearch(bench, table, base, ONE_POINT)
            search.run(ENOUGH)
    trials = stored(search)
    full, short = search.made[-1].trial, search.made[-2].trial
    assert trials[full.id].status == "dropped" and short.id in trials[full.id].why
    assert trials[short.id].status == "kept"


def recovery(network: Network, x: NDArray[np.float32], folder: Path, score: str = "agreement") -> Distill:
    """How the search would recover a network of these samples."""
    task = Task(validate={network.input_names[0]: x}, score=score).decided(network)
    bench = SimpleNamespace(identity="", study=None)
    table = SimpleNamespace(task=task, original=network)
    search = StrengthSearch(bench, table, SimpleNamespace(recipe_yaml="[]"), ONE_POINT)  # type: ignore[arg-type]
    return search._distillation(2.0)


@pytest.mark.parametrize(("seconds", "views"), [(90.0, 1), (100.0, 1), (199.0, 1), (201.0, 2), (301.0, 3), (1e6, 3)])
def test_a_slow_teacher_is_asked_for_fewer_views(seconds: float, views: int) -> None:
    """512 samples, of which it answers 256 in 10 s: one view of all takes 20, a fifth of 100 s of training."""
    images, clock = patterns(640, seed=4)[0], [0.0]
    task = Task(validate={"image": images[:128]}, train={"image": images[128:]}, score="agreement", augment="image")
    bench, table = SimpleNamespace(identity="", study=None), SimpleNamespace(task=task.decided(toy()), original=toy())
    search = StrengthSearch(bench, table, SimpleNamespace(recipe_yaml="[]"), ONE_POINT)  # type: ignore[arg-type]

    def answer(_: Teacher, inputs: dict[str, Tensor]) -> None:
        clock[0] += 10.0 * len(inputs["image"]) / 256

    with (
        patch.object(Teacher, "answer", answer),
        patch.object(strength_module, "time", SimpleNamespace(monotonic=lambda: clock[0])),
    ):
        assert search._views(seconds) == views
        search.augment = []
        assert search._views(seconds) == 1


def test_without_batch_norm_the_steps_are_small_and_many_and_many_classes_are_not_softened(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    plain = recovery(trace(nn.Sequential(nn.Linear(4, MANY_CLASSES)), [torch.from_numpy(x[:2])]), x, tmp_path)
    many = recovery(trace(nn.Sequential(nn.Linear(4, MANY_CLASSES + 1)), [torch.from_numpy(x[:2])]), x, tmp_path)
    normed = recovery(toy(), patterns(300, seed=4)[0], tmp_path)
    assert (plain.optimizer, many.optimizer, normed.optimizer) == ("adamw", "adamw", "sgd")
    assert plain.learning_rate < normed.learning_rate and plain.batch < normed.batch
    assert plain.temperature == normed.temperature == Distill().temperature > many.temperature == 1


class Tagger(nn.Module):
    """(N, 6, 4) -> three classes for each of six positions, the first answered nearly always."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(4, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.last.weight *= 3
            self.last.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(F.relu(self.hidden(x)))
        return result


def test_the_logits_are_adjusted_where_one_class_is_common_by_what_scores_best() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(300, 6, 4)).astype(np.float32)
    network = trace(Tagger(), [torch.from_numpy(x[:2])])
    task = Task(validate={network.input_names[0]: x}, score="agreement").with_original(network).decided(network)
    study = SimpleNamespace(once=lambda name, key, compute: compute())
    bench, table = SimpleNamespace(identity="", study=study), SimpleNamespace(task=task, original=network)
    with patch.object(strength_module, "SKEWED", 1.2):
        search = StrengthSearch(bench, table, SimpleNamespace(recipe_yaml="[]"), ONE_POINT)  # type: ignore[arg-type]
    damaged = network.copy()
    with torch.no_grad():
        damaged.weights()["last.bias"][0] += 2.0
    assert search.skewed and search._adjustment(network, []) == []
    (adjustment,) = search._adjustment(damaged, [])
    assert isinstance(adjustment, AdjustLogits) and adjustment.strength > 0
    with patch.object(strength_module, "SKEWED", 50.0):
        even = StrengthSearch(bench, table, SimpleNamespace(recipe_yaml="[]"), ONE_POINT)  # type: ignore[arg-type]
    assert not even.skewed and even._adjustment(damaged, []) == []


class Tiny(nn.Module):
    """One layer, for images (N, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(image.flatten(1))
        return result


class Huge(nn.Module):
    """A layer that costs more than the whole toy."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(64, 4096), nn.Linear(4096, 4)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(self.wide(image.flatten(1)))
        return result


def test_the_users_own_student_is_taken_where_its_file_is_faster(tmp_path: Path) -> None:
    search = searched(tmp_path, fewest_macs=0, task=replace(toy_task(), student=Tiny()))
    full = search.made[-1]
    assert [type(m) for m in full.methods] == [OwnStudent, Distill, Distill]
    assert full.trial.macs == 64 * 4 < min(c.trial.macs for c in search.made[:MOST_CANDIDATES])
    assert full.trial.recipe[-1].startswith("QuantizeStatic") and full.trial.status == "kept"
    (probe,) = [t for t in stored(search).values() if t.stage == "probe" and t.recipe[0].startswith("OwnStudent")]
    assert probe.status == "dropped" and probe.score is None


def test_a_student_that_costs_more_than_pruning_is_never_trained(tmp_path: Path) -> None:
    search = searched(tmp_path, fewest_macs=0, task=replace(toy_task(), student=Huge()))
    assert all(isinstance(c.methods[0], PruneChannels) for c in search.made)
    (probe,) = [t for t in stored(search).values() if t.stage == "probe" and t.recipe[0].startswith("OwnStudent")]
    best = min(search.made[:MOST_CANDIDATES], key=lambda c: c.trial.macs)
    assert probe.why == f"a probe of an untrained student; costs more than {best.trial.id}"


def test_where_pruning_fails_a_student_has_only_to_be_faster_than_the_whole_network(tmp_path: Path) -> None:
    search = searched(tmp_path, fewest_macs=1e9, task=replace(toy_task(), student=Tiny()))
    kinds = [type(c.methods[0]) for c in search.made]
    assert OwnStudent in kinds
    lost = search.made[kinds.index(OwnStudent)].trial
    assert stored(search)[lost.id].why == "lost 50.00 points after a short recovery"


def test_a_student_whose_file_cannot_be_made_does_not_end_the_search(tmp_path: Path) -> None:
    real = Bench.trial

    def refuses(self: Bench, stage: str, recipe: Recipe, *arguments: Any, **named: Any) -> Trial:
        if isinstance(recipe.methods[0], OwnStudent):
            raise SlimlineError("There is no operator for special.i1 in ONNX: use another one.")
        return real(self, stage, recipe, *arguments, **named)

    notes: list[str] = []
    with patch.object(Bench, "trial", refuses), patch.object(Silent, "note", lambda _, text: notes.append(text)):
        search = searched(tmp_path, fewest_macs=0, task=replace(toy_task(), student=Tiny()))
    assert all(isinstance(c.methods[0], PruneChannels) for c in search.made) and len(search.made) > MOST_CANDIDATES
    assert "OwnStudent(): There is no operator for special.i1 in ONNX: use another one." in notes


def test_a_student_for_which_there_is_no_time_is_not_trained(tmp_path: Path) -> None:
    with patch.object(StrengthSearch, "_training_speed", lambda _: ("fp32", 1e7)):
        search = searched(tmp_path, fewest_macs=0, task=replace(toy_task(), student=Tiny()))
    assert search.made and all(isinstance(c.methods[0], PruneChannels) for c in search.made)
    assert all(m.epochs >= 0.01 for c in search.made for m in c.methods if isinstance(m, Distill))


def test_layers_that_are_measured_faster_are_factorized_and_recovered_like_a_student(tmp_path: Path) -> None:
    search = searched(tmp_path, fewest_macs=1e9)
    kinds = [type(c.methods[0]) for c in search.made]
    candidate = search.made[kinds.index(FactorizeTucker)]
    method, recovery = candidate.methods
    assert isinstance(method, FactorizeTucker) and set(method.layers) == set(
        FactorizeTucker(budget=0.5).apply(toy()).changed
    )
    assert isinstance(recovery, Distill) and candidate.trial.macs < macs(toy())
    assert stored(search)[candidate.trial.id].why == "lost 50.00 points after a short recovery"


def test_layers_that_are_not_measured_faster_stay(tmp_path: Path) -> None:
    def the_same(artifact: Artifact) -> float:
        return 1.0

    notes: list[str] = []
    with patch.object(Silent, "note", lambda _, text: notes.append(text)):
        search = searched(tmp_path, fewest_macs=1e9, layer_race=partial(LayerRace, run=planted_race(the_same)))
    assert not [c for c in search.made if isinstance(c.methods[0], FactorizeTucker | FactorizeWhitened)]
    told = [note for note in notes if "inner is not measured to be faster: 1.00 times the speed" in note]
    assert len(told) == len(FACTORIZATIONS)


def never_raced(*_: object) -> None:
    raise AssertionError("raced")


def test_what_would_compute_more_than_pruning_left_is_not_raced(tmp_path: Path) -> None:
    notes: list[str] = []
    with patch.object(Silent, "note", lambda _, text: notes.append(text)):
        search = searched(tmp_path, fewest_macs=0, layer_race=never_raced)
    assert not [c for c in search.made if isinstance(c.methods[0], FactorizeTucker | FactorizeWhitened)]
    for method in FACTORIZATIONS:
        assert f"{method.line()}: computes more than the best candidate" in notes


def test_a_layer_that_cannot_run_alone_does_not_end_the_search(tmp_path: Path) -> None:
    def refuses(*_: object) -> None:
        raise SlimlineError("This layer cannot run alone.")

    notes: list[str] = []
    with patch.object(Silent, "note", lambda _, text: notes.append(text)):
        search = searched(tmp_path, fewest_macs=1e9, layer_race=refuses)
    assert len(search.made) > MOST_CANDIDATES and f"{FACTORIZATIONS[0].line()}: This layer cannot run alone." in notes


def test_where_bytes_count_every_layer_is_factorized_without_a_race(tmp_path: Path) -> None:
    budget = Budget(max_drop=0.01, minimize="size")
    search = searched(tmp_path, fewest_macs=1e9, budget=budget, layer_race=never_raced)
    assert [c.methods[0] for c in search.made if isinstance(c.methods[0], FactorizeTucker)] == [
        FactorizeTucker(budget=0.5)
    ]
