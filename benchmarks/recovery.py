"""Recovery of the demo network at half of every width (a quarter of the MACs): how much, how fast, in how much memory.

* Points lost with labels, without labels and without data, each from pruning with what it has; the curves of all three
  are drawn in runs/recovery.html.
* The time of a training step against a plain PyTorch loop of the same work, whose steps take turns with ours.
* What bf16 and compiling change.
* Peak memory of distillation against that of running the original and of training the student alone.
* Steps per second of 1, 2 and 4 processes.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import recovery_worker as worker
import slimline as sl
from record import RESULTS, write
from slimline.demo.job import HERE, task
from slimline.measure.machine import usable_cores
from slimline.measure.statistics import paired_drop, ratio_interval
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.report.certificate import TrainingCurve
from slimline.report.training import write_training_page
from slimline.search.training_curves import trained_by
from slimline.task import Samples
from slimline.training.hook import Hook
from slimline.training.layout import channels_last_
from slimline.training.plan import Plan
from slimline.training.private import SYNTHETIC_SAMPLES
from slimline.training.recover import recover

STEPS, VIEWS, LABEL_WEIGHT = 1000, 2, 0.3
PRUNE = sl.PruneChannels(keep=worker.KEEP, importance="obs", reconstruct=512)
WITHOUT_DATA = sl.Recipe(
    [
        PRUNE,
        sl.FoldBatchNorm(),  # what batch norm would learn of synthetic images does not hold for real ones
        sl.Distill(epochs=40, batch=64, optimizer="adamw", learning_rate=0.001, views=8, judgements=15),
    ]
)
PAGE = RESULTS.parents[1] / "runs" / "recovery.html"
ROUNDS, ROUND_STEPS, WARMUP = 5, 24, 6
TURN_ROUNDS, PAIRS_PER_ROUND = 10, 30
PROCESSES, SCALE_STEPS = (1, 2, 4), 40
SEED = 0


def main() -> None:
    """Everything in turn; nothing else may run on the machine."""
    started = time.monotonic()
    torch.set_num_threads(usable_cores())
    summary: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for part in (against_plain, speeds, memory, scaling, points_lost):
        found, measured = part()
        summary |= found
        rows += measured
        print(json.dumps(found), flush=True)
    write("recovery", summary, rows, [SEED], time.monotonic() - started)


def points_lost() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Recover in three ways and draw the curves; scores of the delivered networks come from the certify split."""
    original = sl.load(HERE / "network.slim")
    given = task().read(original.input_names)
    splits = given.splits(SEED)
    unlabelled = Samples(splits.train.inputs)
    ways = {
        "with labels": (splits.train, with_data(LABEL_WEIGHT)),
        "without labels": (unlabelled, with_data(0.0)),
        "without data": ("synthetic", WITHOUT_DATA),
    }
    whole = accuracies(original, splits.certify)
    rows: list[dict[str, Any]] = []
    curves, summary = [], dict[str, Any]()
    for name, (train, recipe) in ways.items():
        begun = time.monotonic()
        outcome = recipe.apply(original, replace(given, train=train, validate=splits.search))
        ((line, curve),) = outcome.curves
        lost = paired_drop(whole, accuracies(outcome.network, splits.certify))
        key = name.replace(" ", "_")
        summary |= {f"points_lost_{key}": 100 * lost.drop, f"points_lost_{key}_upper": 100 * lost.upper}
        summary["macs_left"] = macs(outcome.network) / macs(original)
        rows.append({
            "way": name, "recipe": recipe.lines(), "steps": curve.planned, "points_lost": 100 * lost.drop,
            "upper": 100 * lost.upper, "n": lost.n, "macs": macs(outcome.network),
            "seconds": time.monotonic() - begun, "seconds_training": curve.seconds,
        })  # fmt: skip
        samples = len(splits.train) if name != "without data" else 2 * SYNTHETIC_SAMPLES
        curves.append(TrainingCurve(name=name, trial=None, **trained_by(line, curve, samples)))
        rows[-1] |= {"curve": curve.as_json()}
    score = float(np.mean(accuracies(original, splits.search)))
    title = "Recovery of the demo network at a quarter of its MACs"
    PAGE.parent.mkdir(exist_ok=True)
    write_training_page(curves, PAGE, title, score, 0.01, "accuracy")
    return summary, rows


def with_data(label_weight: float) -> sl.Recipe:
    """Prune, then learn from the 20,000 training images."""
    epochs = STEPS * worker.BATCH / len(worker.samples())
    return sl.Recipe(
        [
            PRUNE,
            sl.Distill(
                epochs=epochs, batch=worker.BATCH, learning_rate=0.02, views=VIEWS, label_weight=label_weight,
                precision="bf16", judgements=15,
            ),
        ]
    )  # fmt: skip


def accuracies(network: Network, samples: Samples) -> np.ndarray[Any, Any]:
    """1 for every sample whose class is right."""
    assert samples.labels is not None
    images = torch.from_numpy(samples.inputs["image"])
    answers = torch.cat([network.run({"image": part})[0].argmax(1) for part in images.split(256)])
    return (answers.numpy() == samples.labels).astype(np.float64)


class Clock(Hook):
    """When every step began."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def before_step(self, network: Network, step: int) -> None:
        self.began.append(time.perf_counter())


def ours(student: Network, plan: Plan, data: Any) -> float:
    """Median seconds of a step of the loop."""
    clock = Clock()
    recover(student, data, worker.cross_entropy, plan, hooks=[clock])
    return float(np.median(np.diff(clock.began)[WARMUP:]))


class PlainLoop:
    """A loop as one would write it by hand, with the same work in it as ours has; one step per call."""

    def __init__(self, student: Network, plan: Plan, data: Any) -> None:
        self.network = channels_last_(student.copy().set_training_(True))
        self.parameters = list(self.network.module.parameters())
        self.optimizer = torch.optim.SGD(
            self.parameters, plan.learning_rate, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, plan.steps)
        self.images, self.labels, self.norm = data.views.inputs["image"], data.labels, plan.gradient_norm

    def step(self) -> None:
        index = torch.randint(len(self.images), (worker.BATCH,))
        batch = self.images[index].contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(self.network.module(batch)[0], self.labels[index])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        float(loss.detach())


class TakingTurns(Hook):
    """Lets a plain loop make a step after each of ours. Ours lasts from the end of one of theirs to the next."""

    def __init__(self, other: PlainLoop) -> None:
        self.other, self.ours, self.plain = other, list[float](), list[float]()
        self.ended: float | None = None

    def after_step(self, network: Network, step: int) -> None:
        begun = time.perf_counter()
        if self.ended is not None:
            self.ours.append(begun - self.ended)
        self.other.step()
        self.ended = time.perf_counter()
        if self.ours:
            self.plain.append(self.ended - begun)


def against_plain() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ratios of the median step times of rounds, in each of which the two loops take turns step by step."""
    student, data = worker.student_network(), worker.labelled(worker.samples())
    plan = Plan(PAIRS_PER_ROUND + WARMUP + 1, worker.RATE)
    rows: list[dict[str, Any]] = []
    for number in range(TURN_ROUNDS):
        turns = TakingTurns(PlainLoop(student, plan, data))
        recover(student, data, worker.cross_entropy, plan, hooks=[turns])
        for step, seconds in (("fp32, in turns", turns.ours), ("plain, in turns", turns.plain)):
            rows.append({"round": number, "step": step, "seconds": float(np.median(seconds[WARMUP:]))})
    ours, plain = (np.array([r["seconds"] for r in rows if r["step"] == f"{n}, in turns"]) for n in ("fp32", "plain"))
    ratio = ratio_interval(np.log(ours / plain))
    key = "step_time_against_plain"
    return {key: ratio.value, f"{key}_low": ratio.low, f"{key}_high": ratio.high}, rows


def speeds() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ratios from rounds in which the contestants take turns."""
    student, data = worker.student_network(), worker.labelled(worker.samples())
    plan = Plan(ROUND_STEPS + WARMUP, worker.RATE)
    contestants = {
        "fp32": lambda: ours(student, plan, data),
        "bf16": lambda: ours(student, replace(plan, precision="bf16"), data),
        "fp32 compiled": lambda: ours(student, replace(plan, compiled=True), data),
        "bf16 compiled": lambda: ours(student, replace(plan, precision="bf16", compiled=True), data),
    }
    rows: list[dict[str, Any]] = []
    for number in range(ROUNDS):
        order = np.random.default_rng((SEED, number)).permutation(list(contestants))
        found = {name: contestants[name]() for name in order}
        rows += [{"round": number, "step": name, "seconds": found[name]} for name in contestants]
    seconds = {name: np.array([r["seconds"] for r in rows if r["step"] == name]) for name in contestants}
    summary: dict[str, Any] = {
        f"seconds_per_step_{n.replace(' ', '_')}": float(np.median(s)) for n, s in seconds.items()
    }
    for key, (above, below) in {
        "bf16_speedup": ("fp32", "bf16"),
        "compiled_speedup": ("fp32", "fp32 compiled"),
        "bf16_compiled_speedup": ("fp32", "bf16 compiled"),
    }.items():
        ratio = ratio_interval(np.log(seconds[above] / seconds[below]))
        summary |= {key: ratio.value, f"{key}_low": ratio.low, f"{key}_high": ratio.high}
    return summary, rows


def memory() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Peak resident memory in processes of their own, beyond what the imports and the data take."""
    rows = [
        _run([sys.executable, worker.__file__, "memory", what]) for what in ("base", "original", "student", "distill")
    ]
    peak = {row["what"]: row["peak_bytes"] for row in rows}
    more = {what: peak[what] - peak["base"] for what in ("original", "student", "distill")}
    ratio = more["distill"] / (more["original"] + more["student"])
    return {"peak_memory_ratio": ratio, "peak_memory_bytes": peak["distill"]}, rows


def scaling() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Steps per second of several processes with one thread each."""
    rows = []
    for count in PROCESSES:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        rows.append(_run([*launcher, worker.__file__, "scale", str(SCALE_STEPS)]))
    speed = {row["processes"]: row["steps"] / row["seconds"] for row in rows}
    return {f"steps_per_second_{count}_processes": speed[count] for count in PROCESSES}, rows


def _run(command: list[str]) -> dict[str, Any]:
    """What a program prints last, as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
