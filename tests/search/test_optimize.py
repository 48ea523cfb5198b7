"""The whole search: on real files once, and with planted latencies where the question is what it decides."""

import hashlib
import itertools
import re
import time as clock
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from slimline.errors import SlimlineError
from slimline.measure.statistics import Verdict
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.network import container
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.report.certificate import Certificate
from slimline.runtimes.runtime import Artifact
from slimline.search import bench as bench_module
from slimline.search import certify as certify_module
from slimline.search import optimize as optimize_module
from slimline.search import strength as strength_module
from slimline.search.bench import Bench
from slimline.search.budget import Budget
from slimline.search.evidence import Result
from slimline.search.listener import Silent
from slimline.search.optimize import Search, Settings, optimize
from slimline.search.storage import CLUSTERS
from slimline.search.strength import StrengthSearch
from slimline.search.study import Study, Trial
from slimline.sources.source import Job
from slimline.task import Samples, Task
from slimline.training import private as private_module
from tests.search.stand_ins import from_macs, outputs_here, pretending
from tests.toys import SHORT_RACE, Toy, finished_run, patterns, toy, toy_task, write_job

ONLY = ("onnxruntime",)


def search(folder: Path, task: Task | None = None, listener: Any = None, **values: Any) -> Result:
    """A pretended search over the toy, which begins every stage however busy the machine; ``resume`` continues it."""
    budget = {"max_drop": 0.08, "time_s": 5.0} | {k: v for k, v in values.items() if k not in ("resume", "seed")}
    settings = Settings(folder / "run", ONLY, values.get("seed", 0), values.get("resume", False))
    with patch.object(Search, "_time_for", return_value=True):
        return optimize(toy(), task or toy_task(), Budget(**budget), settings=settings, listener=listener)


def trials_of(folder: Path) -> list[Trial]:
    study = Study(folder / "study.sqlite", Study.stored_fact(folder / "study.sqlite", "identity"), resume=True)
    try:
        return study.trials()
    finally:
        study.close()


class Noted(Silent):
    """Keeps the notes of a search."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


# --- on real files ----------------------------------------------------------------------------------------------------


def test_a_short_run_delivers_a_file_and_a_complete_certificate() -> None:
    folder, result = finished_run()
    certificate = Certificate.model_validate(result.certificate)
    assert result.verdict is Verdict.PASS and certificate.verdict is Verdict.PASS and result.met
    best = certificate.best
    assert (folder / best.artifact).is_file() and result.path.is_file()
    for path in (folder / best.artifact, result.path):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == best.sha256
    assert best.size_bytes == result.path.stat().st_size
    assert best.drop_lower <= best.drop <= best.drop_upper <= certificate.budget.max_drop
    assert best.score == pytest.approx(certificate.original.score - best.drop)
    assert certificate.trials == len(certificate.study) == len(trials_of(folder))
    assert certificate.hashes.network == hashlib.sha256((folder / "original.slim").read_bytes()).hexdigest()


def test_every_field_of_the_design_is_there() -> None:
    """Section 8 of DESIGN.md names them; the page is read, so that page and file cannot drift apart."""
    text = (Path(__file__).parents[2] / "DESIGN.md").read_text().split("`certificate.json` (ratios")[1]
    block = text.split("```")[1]
    heads = [re.split("  +", line)[0] for line in block.splitlines() if line and not line.startswith(" ")]
    names = [name for head in heads for name in head.split(", ")]
    certificate = finished_run()[1].certificate
    assert len(names) > 15 and set(names) == set(certificate)
    inside = block.split("best         {")[1].split("}")[0].replace("\n", " ").split(",")
    assert {name.strip() for name in inside} == set(certificate["best"]) == set(certificate["front"][0])


def test_no_regret_on_real_files() -> None:
    best = finished_run()[1].certificate["best"]
    assert best["speedup_vs_best_original"] >= 1
    assert best["speedup_low"] <= best["speedup"] <= best["speedup_high"]


def test_the_certify_split_was_read_by_nobody_else() -> None:
    """Splits are disjoint and their sizes are those in the certificate."""
    task = toy_task().read(("image",))
    splits = task.splits(0)
    assert finished_run()[1].certificate["splits"] == {"calibrate": 256, "search": 90, "certify": 210}
    rows = [{x.tobytes() for x in part.inputs["image"]} for part in (splits.train, splits.search, splits.certify)]
    assert not rows[0] & rows[2] and not rows[1] & rows[2] and not rows[0] & rows[1]


# --- what it decides --------------------------------------------------------------------------------------------------


def slower(**factors: float) -> Callable[[Artifact], float]:
    """Milliseconds from MACs, multiplied for files of integers, and for float files without batch norm."""

    def milliseconds(artifact: Artifact) -> float:
        network = container.load(artifact.path)
        integers = any(t.dtype is torch.int8 for t in network.weights().values())
        folded = not any("norm" in name for name in network.weights())
        kind = "int8" if integers else "folded" if folded else "original"
        return from_macs(artifact) * factors.get(kind, 1.0)

    return milliseconds


def test_the_fastest_that_passes_is_returned(tmp_path: Path) -> None:
    with pretending(slower(folded=0.9)):
        result = search(tmp_path)
    best = result.certificate["best"]
    assert result.best.stage == "int8" and best["speedup_vs_best_original"] == pytest.approx(1.7, abs=0.15)
    assert best["speedup"] == pytest.approx(4 * best["speedup_vs_best_original"], rel=0.01)
    assert best["speedup_vs_int8_only"] == pytest.approx(1, abs=0.01)
    assert result.speedup == best["speedup"]


def test_no_regret_when_nothing_helps(tmp_path: Path) -> None:
    with pretending(slower(int8=5, folded=1.2)):
        result = search(tmp_path)
    assert result.best.stage == "original" and result.best.runtime == "onnxruntime"
    assert result.certificate["best"]["speedup_vs_best_original"] == pytest.approx(1, abs=0.005)


def test_no_regret_when_the_last_race_shows_that_the_search_was_lucky(tmp_path: Path) -> None:
    with pretending(slower(folded=0.98, int8=5), final=slower(folded=1.1, int8=5)):
        result = search(tmp_path)
    best = result.certificate["best"]
    assert result.best.stage == "original" and result.best.status == "best"
    assert best["trial"] == 2 and best["speedup_vs_best_original"] == 1.0
    assert best["sha256"] == hashlib.sha256(result.path.read_bytes()).hexdigest()
    assert "took 1.10 times as long as the original in onnxruntime: the original is returned." in "".join(
        result.certificate["limits"]
    )
    Certificate.model_validate(result.certificate)


def test_a_candidate_that_loses_too_much_is_never_returned(tmp_path: Path) -> None:
    """Quantised networks answer at random here; they are the fastest, and not even looked at by the certifier."""

    def wrong(self: Bench, trial: Trial) -> None:
        trial.score, trial.drop = (0.3, 0.7) if trial.precision == "int8" else (1.0, 0.0)

    with pretending(slower(folded=0.9)), patch.object(Bench, "_score", wrong):
        result = search(tmp_path)
    assert result.best.stage == "free"
    dropped = [row for row in result.certificate["study"] if row["precision"] == "int8" and row["stage"] == "int8"]
    assert {row["why"] for row in dropped} == {"lost 70.00 points on the search split"}


def test_where_integers_everywhere_lose_too_much_some_layers_stay_in_floating_point(tmp_path: Path) -> None:
    """Answers are wrong here unless a layer is skipped. Of four layers a sixth and a third are one, a half is two."""

    def wrong(self: Bench, trial: Trial) -> None:
        everywhere = trial.precision == "int8" and not any("skip=" in line for line in trial.recipe)
        trial.score, trial.drop = (0.3, 0.7) if everywhere else (1.0, 0.0)

    with pretending(slower(folded=0.9)), patch.object(Bench, "_score", wrong):
        result = search(tmp_path)
    assert result.best.precision == "int8" and any("skip=" in line for line in result.best.recipe)
    tried = [row for row in result.certificate["study"] if row["stage"] == "int8" and row["status"] != "dropped"]
    assert len(tried) == 2


class Numbered(nn.Module):
    """The toy, which says nothing but the number of the class."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = toy().module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.toy(image)[0].argmax(1)
        return result


def test_answers_that_are_whole_numbers_leave_out_what_has_to_compare_them(tmp_path: Path) -> None:
    """Integers everywhere lose too much, but which layer loses most cannot be said; a file is delivered anyway."""

    def wrong(self: Bench, trial: Trial) -> None:
        trial.score, trial.drop = (0.3, 0.7) if trial.precision == "int8" else (1.0, 0.0)

    network = trace(Numbered().eval(), {"image": torch.zeros(2, 1, 8, 8)})
    task, listener = replace(toy_task(labels=False), student=None), Noted()
    settings = Settings(tmp_path / "run", ONLY)
    begun = patch.object(Search, "_time_for", return_value=True)
    with pretending(slower(folded=0.9)), patch.object(Bench, "_score", wrong), begun:
        result = optimize(network, task, Budget(max_drop=0.08, time_s=5.0), settings=settings, listener=listener)
    assert result.best.stage == "free" and result.path.is_file()
    assert not any("skip=" in line for row in result.certificate["study"] for line in row["recipe"])
    assert [note for note in listener.notes if note.startswith("No output holds floating-point numbers")] == [
        "No output holds floating-point numbers, so no layer can be said to lose most.",
        "No output holds floating-point numbers, so nothing can be pruned and recovered.",
    ]


def refusing(kind: str) -> Any:
    """A runtime that cannot run files of integers, or nothing at all; torch can."""

    def outputs(artifact: Artifact, inputs: Any, threads: int, batch: int = 64) -> Any:
        integers = any(t.dtype is torch.int8 for t in container.load(artifact.path).weights().values())
        if artifact.runtime != "torch" and (integers or kind == "everything"):
            raise SlimlineError(f"{artifact.label} could not run {artifact.path.name}: index 0 out of range")
        return outputs_here(artifact, inputs, threads, batch)

    return patch.object(bench_module, "artifact_outputs", outputs)


def test_candidates_that_a_runtime_refuses_do_not_end_the_search(tmp_path: Path) -> None:
    with pretending(slower(folded=0.9)), refusing("integers"):
        result = search(tmp_path)
    certificate = Certificate.model_validate(result.certificate)
    assert result.verdict is Verdict.PASS and result.best.precision == "fp32"
    refused = [row for row in certificate.study if row.stage == "int8"]
    assert refused and all(row.status == "dropped" and row.latency_ms is None for row in refused)
    assert all("index 0 out of range" in (row.why or "") for row in refused)
    assert certificate.best.speedup_vs_int8_only is None
    assert {row.stage for row in certificate.study} >= {"original", "free", "probe"}  # it went on to pruning


def test_a_network_that_no_runtime_runs_is_one_sentence(tmp_path: Path) -> None:
    sentence = "No runtime can run the network as it is: onnxruntime could not run"
    with pretending(), refusing("everything"), pytest.raises(SlimlineError, match=sentence):
        search(tmp_path)


def test_stages_for_which_no_time_is_left_are_named_and_left_out(tmp_path: Path) -> None:
    listener = Noted()
    with pretending(slower(folded=0.9)):
        result = optimize(
            toy(), toy_task(), Budget(max_drop=0.08, time_s=1e-3),
            settings=Settings(tmp_path / "run", ONLY), listener=listener,
        )  # fmt: skip
    assert {row["stage"] for row in result.certificate["study"]} == {"original", "free"}
    assert result.verdict is Verdict.PASS and result.best.stage == "free"
    left_out = [n for n in listener.notes if n.startswith("The time is over, so this was not tried")]
    assert len(left_out) == 3 and any("pruning" in n for n in left_out)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_latency_ms": 1e-6}, "The best latency is .* ms, above the 1e-06 ms asked for"),
        ({"max_size_bytes": 10}, "The smallest file is .* bytes, above the 10 asked for"),
        ({"min_speedup": 50.0}, "not surely the 50 asked for"),
    ],
)
def test_a_missed_limit_is_a_fail_that_still_delivers(tmp_path: Path, limits: dict[str, Any], sentence: str) -> None:
    with pretending():
        result = search(tmp_path, **limits)
    certificate = Certificate.model_validate(result.certificate)
    assert result.verdict is Verdict.FAIL and certificate.verdict is Verdict.FAIL and not result.met
    assert result.path.exists() and certificate.sentence.startswith("FAIL: a limit of the budget was not met")
    assert any(re.search(sentence, limit) for limit in certificate.limits)


def test_too_few_samples_for_the_verdict_is_cant_tell(tmp_path: Path) -> None:
    with pretending():
        result = search(tmp_path, max_drop=0.001)
    certificate = Certificate.model_validate(result.certificate)
    assert result.verdict is Verdict.CANT_TELL and certificate.sentence.startswith("CAN'T TELL: ")
    assert "samples would decide" in certificate.sentence and result.path.exists()
    faster = [t for t in result.certificate["study"] if t["status"] == "kept" and t["latency_ms"] is not None]
    told = [limit for limit in certificate.limits if "was not certified: the sequence ends at the first" in limit]
    assert told and {int(limit.split()[1]) for limit in told} <= {t["trial"] for t in faster}


def test_size_is_minimised_when_that_is_asked_for(tmp_path: Path) -> None:
    with pretending(slower(int8=3)):
        result = search(tmp_path, minimize="size")
    rows = result.certificate["study"]
    sizes = [row["size_bytes"] for row in rows if row["stage"] in ("original", "free", "int8", "storage")]
    assert result.best.size_bytes == min(sizes) < min(r["size_bytes"] for r in rows if r["stage"] == "free")
    storage = [row for row in rows if row["stage"] == "storage"]
    assert [row["recipe"][-1].partition("(")[0] for row in storage] == ["ShareWeights"] * len(CLUSTERS)
    assert max(row["size_bytes"] for row in storage) < min(r["size_bytes"] for r in rows if r["stage"] == "original")


def test_where_latency_counts_nothing_is_stored_as_a_codebook(tmp_path: Path) -> None:
    with pretending():
        result = search(tmp_path)
    assert not [row for row in result.certificate["study"] if row["stage"] == "storage"]


def test_the_same_seed_gives_the_same_result(tmp_path: Path) -> None:
    certificates = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with pretending():
            certificates.append(search(tmp_path / name, seed=3).certificate)
    for varying in ("seconds", "machine"):
        for certificate in certificates:
            certificate.pop(varying)
    for row in itertools.chain(*(c["study"] for c in certificates)):
        row["seconds"] = 0
    assert certificates[0] == certificates[1]


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_resuming_a_finished_search_repeats_no_trial(tmp_path: Path) -> None:
    with pretending():
        first = search(tmp_path)
        before = trials_of(tmp_path / "run")
        with (
            patch.object(Recipe, "apply", side_effect=AssertionError("applied before")),
            patch.object(bench_module, "race", side_effect=AssertionError("raced before")),
        ):
            again = search(tmp_path, resume=True)
    assert trials_of(tmp_path / "run") == before
    for key in ("best", "front", "sensitivity", "layers", "limits", "study"):
        assert again.certificate[key] == first.certificate[key]


class StopAt(Noted):
    """Presses Ctrl-C when a stage begins."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def stage(self, title: str) -> None:
        if self.title in title:
            raise KeyboardInterrupt


def test_ctrl_c_certifies_the_best_so_far(tmp_path: Path) -> None:
    listener = StopAt("How sensitive")
    with pretending():
        result = search(tmp_path, listener=listener)
    assert result.verdict is Verdict.PASS and result.best.stage == "int8"
    assert {t.stage for t in trials_of(tmp_path / "run")} == {"original", "free", "int8"}
    assert any("Stopped by Ctrl-C" in line for line in listener.notes)


def test_ctrl_c_before_anything_was_timed_stops(tmp_path: Path) -> None:
    with pretending(), pytest.raises(KeyboardInterrupt):
        search(tmp_path, listener=StopAt("The original"))


def test_a_search_that_broke_off_is_continued_where_it_was(tmp_path: Path) -> None:
    class Crash(Exception):
        pass

    real = Bench.trial
    begun: list[str] = []

    def crashing(self: Bench, stage: str, recipe: Recipe, place: tuple[str, str], *rest: Any, **named: Any) -> Trial:
        begun.append(f"{place} {recipe.to_yaml()}")
        if len(begun) == 5:
            raise Crash
        return real(self, stage, recipe, place, *rest, **named)

    with pretending():
        with patch.object(Bench, "trial", crashing), pytest.raises(Crash):
            search(tmp_path)
        kept = trials_of(tmp_path / "run")
        result = search(tmp_path, resume=True)
    assert len(kept) == 4
    assert [t.id for t in trials_of(tmp_path / "run")][:4] == [t.id for t in kept]
    (tmp_path / "fresh").mkdir()
    with pretending():
        fresh = search(tmp_path / "fresh")
    assert result.certificate["best"] == fresh.certificate["best"]


@pytest.mark.parametrize("values", [{"max_drop": 0.05}, {"minimize": "size"}, {"seed": 1}])
def test_another_budget_or_seed_is_another_study(tmp_path: Path, values: dict[str, Any]) -> None:
    with pretending():
        search(tmp_path)
        with pytest.raises(SlimlineError, match="holds a study of something else .different " + next(iter(values))):
            search(tmp_path, resume=True, **values)
        with pytest.raises(SlimlineError, match="already holds a study: pass --resume"):
            search(tmp_path, **values)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_is_refused_leaves_the_one_before_as_it_was(tmp_path: Path, resume: bool) -> None:
    other = trace(Toy().eval(), [torch.randn(2, 1, 8, 8)])
    settings = Settings(tmp_path / "run", ONLY, resume=resume)

    def files() -> dict[str, bytes]:
        left = (p for p in (tmp_path / "run").rglob("*") if p.is_file() and not p.name.startswith("study.sqlite"))
        return {str(p): p.read_bytes() for p in left}

    with pretending():
        search(tmp_path)
        before = files()
        task = replace(toy_task(labels=False), train="synthetic")
        with (
            patch.object(private_module, "synthesize", side_effect=AssertionError("too late to refuse")),
            pytest.raises(SlimlineError, match="different network" if resume else "already holds a study"),
        ):
            optimize(other, task, settings=settings)
    assert files() == before


def test_a_later_session_decides_anew_what_is_best(tmp_path: Path) -> None:
    """What an earlier one called so is an ordinary trial again, unless it is certified once more."""
    with pretending():
        first = search(tmp_path, listener=StopAt("8-bit"))
        second = search(tmp_path, resume=True)
    assert first.best.stage == "original" and second.best.stage == "int8"
    status = {t.id: t.status for t in trials_of(tmp_path / "run")}
    assert status[first.best.id] == "original"
    assert [t for t in status if status[t] == "best"] == [second.best.id]


def test_more_time_continues_the_same_study(tmp_path: Path) -> None:
    with pretending():
        search(tmp_path)
        assert search(tmp_path, resume=True, time_s=6.0).verdict is Verdict.PASS


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtimes", "sentence"),
    [
        (("onnxruntme",), "did you mean 'onnxruntime'"),
        (("tensorrt",), "No runtime is called 'tensorrt'"),
        (("torch",), "no runtime to search in: torch is what the others are compared with. Choose onnxruntime"),
    ],
)
def test_an_unknown_runtime_is_one_sentence(tmp_path: Path, runtimes: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        optimize(toy(), toy_task(), settings=Settings(tmp_path, runtimes))


def test_a_negative_seed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match="seed -1 cannot be used: give a whole number, 0 or more"):
        optimize(toy(), toy_task(), settings=Settings(tmp_path, ONLY, seed=-1))


def test_no_task_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match="comes without a task: pass task=, or give a JOB.py"):
        optimize(toy(), out=tmp_path)


def test_outputs_that_do_not_match_the_labels_are_found_before_anything_is_measured(tmp_path: Path) -> None:
    images, labels = patterns(100, seed=1)
    task = Task(validate={"image": images, "labels": labels + 2})
    with (
        patch.object(Bench, "trial", side_effect=AssertionError("too late")),
        pytest.raises(SlimlineError, match="4 classes but the labels run from 2 to 5"),
    ):
        optimize(toy(), task, settings=Settings(tmp_path, ONLY))


def test_scores_that_are_not_finite_are_one_sentence(tmp_path: Path) -> None:
    def broken(outputs: list[Any], labels: Any) -> Any:
        return np.full(len(labels), np.nan)

    with pytest.raises(SlimlineError, match="The score of sample 0 is nan: scores have to be finite"):
        optimize(toy(), Task(validate=toy_task().validate, score=broken), settings=Settings(tmp_path, ONLY))


def test_a_quantised_network_is_refused(tmp_path: Path) -> None:
    quantised = Recipe([QuantizeStatic()]).apply(toy(), toy_task()).network
    with pretending(), pytest.raises(SlimlineError, match="the network is quantised already"):
        optimize(quantised, toy_task(), settings=Settings(tmp_path, ONLY))


def test_a_module_is_traced_with_the_samples_of_the_task(tmp_path: Path) -> None:
    class Seen(Exception):
        pass

    def peek(self: Any) -> None:
        raise Seen(type(self.network).__name__, list(self.network.examples), isinstance(self.splits.search, Samples))

    module: nn.Module = Toy().eval()
    with patch.object(optimize_module.Search, "run", peek), pytest.raises(Seen) as seen:
        optimize(module, toy_task(), time="90s", settings=Settings(tmp_path, ONLY))
    assert seen.value.args == ("Network", ["image"], True)


# --- with pruning, on real files --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_with_pruning_on_real_files(tmp_path: Path) -> None:
    """Originals, int8, sensitivity, candidates, a full recovery, in every runtime; then resumed.

    There is more time than is needed, so that a slow machine does not end it early; numbers bound it.
    """
    job = write_job(tmp_path, validate=1200)
    budget, settings = Budget(max_drop=0.03, time_s=600.0), Settings(tmp_path / "run")
    with (
        patch.object(bench_module, "QUICK", SHORT_RACE),
        patch.object(certify_module, "FINAL_RACE", SHORT_RACE),
        patch.multiple(strength_module, MOST_CANDIDATES=1, LONGEST_SHORT=1.0, LONGEST_FULL=2.0),
    ):
        result = optimize(job, budget=budget, settings=settings)
        with patch.object(StrengthSearch, "_train", side_effect=AssertionError("recovered before")):
            again = optimize(job, budget=budget, settings=Settings(tmp_path / "run", resume=True))
    certificate = Certificate.model_validate(result.certificate)
    assert {row.stage for row in certificate.study} == {"original", "free", "int8", "probe", "pruned"}
    assert certificate.sensitivity and certificate.best.speedup_vs_best_original >= 1
    assert {row.runtime for row in certificate.study} >= {"torch", "onnxruntime", "openvino"}
    assert len(again.certificate["study"]) == len(certificate.study)


class Locked(nn.Module):
    """A wide layer whose channels are summed up in turn, so that none of them can go; for images (N, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(64, 512), nn.Linear(512, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.wide(image.flatten(1)).cumsum(1))
        return result


def test_where_nothing_can_be_pruned_the_users_own_student_is_tried(tmp_path: Path) -> None:
    network = trace(Locked().eval(), {"image": torch.zeros(2, 1, 8, 8)})
    task = replace(toy_task(labels=False), student=nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    with (
        pretending(),
        patch.multiple(strength_module, EXPORT_SECONDS=0.0, LONGEST_SHORT=1.0, LONGEST_FULL=1.0, FACTORIZATIONS=()),
    ):
        budget = Budget(max_drop=0.99, time_s=600.0)
        result = optimize(network, task, budget, settings=Settings(tmp_path / "run", ONLY))
    tried = [row for row in result.certificate["study"] if row["recipe"] and row["recipe"][0].startswith("OwnStudent")]
    assert "pruned" in {row["stage"] for row in tried}
    assert result.best.macs == 64 * 4


def test_making_synthetic_samples_counts_as_time_of_the_search(tmp_path: Path) -> None:
    def slow(network: Network, count: int, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        clock.sleep(0.3)
        return {"image": torch.randn(count, 1, 8, 8)}

    task = replace(toy_task(labels=False), train="synthetic")
    job = Job(toy(), task)
    with patch.object(private_module, "synthesize", slow):
        found = Search(job, Budget(), Settings(tmp_path / "run", ONLY), Silent())
    assert found.study.elapsed() >= 0.3
    with patch.object(private_module, "synthesize", side_effect=AssertionError("made before")):
        found.study.close()
        again = Search(job, Budget(), Settings(tmp_path / "run", ONLY, resume=True), Silent())
    assert again.splits.train.digest() == found.splits.train.digest()


def test_what_ends_the_last_stage_does_not_cost_what_was_found_before(tmp_path: Path) -> None:
    broken = SlimlineError("Training step 1 failed on a batch of image (2, 1, 8, 8): no.")
    with pretending(slower(folded=0.9)), patch.object(StrengthSearch, "run", side_effect=broken):
        result = search(tmp_path)
    assert result.verdict is Verdict.PASS and result.best.stage == "int8"
    (told,) = [limit for limit in result.certificate["limits"] if "ended early" in limit]
    assert told.endswith("Training step 1 failed on a batch of image (2, 1, 8, 8): no.")
