"""Structured pruning beside torch-pruning 1.6.1: the same networks, the same recovery, the same MACs, three seeds.

    pip install --no-deps torch-pruning==1.6.1
    python benchmarks/structure_vs_torch_pruning.py [MINILM_FOLDER]            all networks, about two hours
    python benchmarks/structure_vs_torch_pruning.py [MINILM_FOLDER] cifar      only this network

Every network has its own file in benchmarks/results. What each side does is in `structure_cases`.

Both sides start from the same weights. torch-pruning ranks with each importance in THEIRS and prunes to our MACs; both
are then traced, distilled from the original with the same samples, steps, batches and rate, exported to ONNX, and
scored on the exported file. Files race in turns, each in its own process. torch-pruning runs as its README shows, and
once with widths rounded to 8 as ours are, where it may miss our MACs: every row says what is left of them.
"""

import copy
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import slimline as sl
from record import write
from slimline.measure.latency import Race, RacePlan, race
from slimline.measure.machine import usable_cores
from slimline.measure.statistics import paired_drop
from slimline.methods.recipe import Recipe
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Artifact
from structure_cases import OURS, RANKING, Arrays, Case, cases

SEEDS = (0, 1, 2)
CLOSE = 0.005
"""How far torch-pruning's MACs may lie from ours, as a share of ours."""
PLAN = RacePlan(launches=(5, 5), rounds=10, target_width=0.0)
RUNTIME = "onnxruntime"


@dataclass
class Pruned:
    """One pruned and recovered network."""

    who: str
    network: Network
    scores: np.ndarray
    artifact: Artifact


def main(folder: Path | None, wanted: list[str]) -> None:
    """Every network with every seed, then the races."""
    if importlib.util.find_spec("torch_pruning") is None:
        sys.exit("The other side is missing: pip install --no-deps torch-pruning==1.6.1")
    if folder is None:
        print("Without MiniLM: give the folder of all-minilm-l6-v2 for it.")
    torch.set_num_threads(usable_cores())
    for case in cases(folder):
        if wanted and case.name not in wanted:
            continue
        started = time.monotonic()
        with TemporaryDirectory() as scratch:
            rows = compare(case, Path(scratch))
        summary = summarise(case, rows)
        print(summary)
        print(write(f"structure_{case.name}", summary, rows, SEEDS, time.monotonic() - started))


def compare(case: Case, folder: Path) -> list[dict[str, Any]]:
    """All sides of one network."""
    module = case.build()
    train, test = case.data()
    inputs = {name: torch.from_numpy(array[:2]) for name, array in test.items() if name != "labels"}
    original = trace(module, inputs)
    whole = exported(original, test, folder / "original")
    rows = []
    for seed in SEEDS:
        task = sl.Task(validate=test, train=shuffled(train, seed), score="accuracy", augment=case.augment)
        task = task.with_original(original)
        made = {
            who: recovered(case, Recipe(methods).apply(original, task).network, task, seed)
            for who, methods in case.ours().items()
            if who == OURS or seed == SEEDS[0]
        }
        wanted = macs(made[OURS])
        for name, importance in THEIRS.items():
            theirs = pruned_by_them(case, module, importance, task, wanted)
            made[name] = recovered(case, trace(theirs, inputs), task, seed)
        found = [
            Pruned(who, network, *exported(network, test, folder / f"{who}-{seed}")) for who, network in made.items()
        ]
        rows += table(case, seed, original, whole, found, test)
        for row in rows[-len(found) :]:
            print({k: v for k, v in row.items() if k not in ("low", "high")}, flush=True)
    return rows


def shuffled(train: Arrays, seed: int) -> Arrays:
    """The training samples in another order, so that every seed ranks with others."""
    order = np.random.default_rng(seed).permutation(len(train["labels"]))
    return {name: array[order] for name, array in train.items()}


def pruned_by_them(
    case: Case, module: nn.Module, importance: Callable[[Any], Any], task: sl.Task, wanted: int
) -> nn.Module:
    """torch-pruning at the ratio whose MACs are nearest to ``wanted``, found by bisection."""
    low, high = 0.0, 0.95
    best: tuple[float, nn.Module] | None = None
    for _ in range(14):
        ratio = (low + high) / 2
        smaller = with_torch_pruning(case, module, importance, task, ratio)
        count = macs(trace(smaller, {n: t[:2] for n, t in given(task, 2).items()}))
        off = abs(count / wanted - 1)
        best = (off, smaller) if best is None or off < best[0] else best
        if off < CLOSE:
            break
        low, high = (ratio, high) if count > wanted else (low, ratio)
    assert best is not None
    return best[1]


def given(task: sl.Task, count: int) -> dict[str, torch.Tensor]:
    """The first training inputs."""
    return {name: torch.from_numpy(array[:count]) for name, array in task.train.items() if name != "labels"}


def with_torch_pruning(
    case: Case, module: nn.Module, importance: Callable[[Any], Any], task: sl.Task, ratio: float
) -> nn.Module:
    """One call as its README shows it."""
    import torch_pruning as tp

    smaller = copy.deepcopy(module).eval()
    for parameter in smaller.parameters():
        parameter.requires_grad_(True)
    heads = case.heads(smaller)
    rank, settings = importance(tp)
    pruner = tp.pruner.BasePruner(
        smaller, given(task, 2), importance=rank, pruning_ratio=ratio, ignored_layers=case.last(smaller),
        num_heads=heads, forward_fn=lambda m, inputs: m(**inputs), **settings,
    )  # fmt: skip
    if "Taylor" in type(rank).__name__:
        smaller.zero_grad()
        labels = torch.from_numpy(task.train["labels"][:RANKING])
        for start in range(0, RANKING, 64):
            batch = {n: t[start : start + 64] for n, t in given(task, RANKING).items()}
            F.cross_entropy(smaller(**batch), labels[start : start + 64]).backward()
    pruner.step()
    case.after(smaller, pruner.num_heads)
    smaller.zero_grad()
    return smaller


THEIRS: dict[str, Callable[[Any], Any]] = {
    "torch-pruning magnitude": lambda tp: (tp.importance.GroupMagnitudeImportance(p=2), {"global_pruning": False}),
    "torch-pruning magnitude, multiples of 8": lambda tp: (
        tp.importance.GroupMagnitudeImportance(p=2),
        {"global_pruning": False, "round_to": 8},
    ),
    "torch-pruning taylor": lambda tp: (
        tp.importance.GroupTaylorImportance(),
        {"global_pruning": True, "isomorphic": True, "max_pruning_ratio": 0.9},
    ),
}


def recovered(case: Case, network: Network, task: sl.Task, seed: int) -> Network:
    """The same steps for everybody."""
    epochs = case.steps * case.recovery.batch / len(task.train["labels"])
    return replace(case.recovery, epochs=epochs, seed=seed).apply(network, task).network


def exported(network: Network, test: Arrays, folder: Path) -> tuple[np.ndarray, Artifact]:
    """Whether the exported file is right, for every test sample, and the file."""
    folder.mkdir(parents=True)
    runtime = get_runtime(RUNTIME)
    artifact = Artifact(runtime.export(network, folder), RUNTIME)
    runner = runtime.open(artifact, usable_cores())
    right = []
    for start in range(0, len(test["labels"]), 64):
        batch = {name: array[start : start + 64] for name, array in test.items() if name != "labels"}
        right.append(runner.run(batch)[0].argmax(1) == test["labels"][start : start + 64])
    return np.concatenate(right).astype(np.float64), artifact


def table(
    case: Case, seed: int, original: Network, whole: tuple[np.ndarray, Artifact], found: list[Pruned], test: Arrays
) -> list[dict[str, Any]]:
    """Scores and a race of one seed."""
    inputs = {name: array for name, array in test.items() if name != "labels"}
    artifacts = {"original": whole[1], **{p.who: p.artifact for p in found}}
    raced: Race = race(artifacts, inputs, PLAN, usable_cores())
    rows = []
    for pruned in found:
        drop = paired_drop(whole[0], pruned.scores)
        ratio = raced.ratio("original", pruned.who)
        rows.append(
            {
                "network": case.name,
                "seed": seed,
                "who": pruned.who,
                "score": float(pruned.scores.mean()),
                "original_score": float(whole[0].mean()),
                "drop_points": 100 * drop.drop,
                "n": len(whole[0]),
                "macs_left": macs(pruned.network) / macs(original),
                "parameters_left": pruned.network.parameter_count() / original.parameter_count(),
                "not_zero_left": not_zero(pruned.network) / not_zero(original),
                "latency_ms": raced.latency(pruned.who).value,
                "original_ms": raced.latency("original").value,
                "speedup": ratio.value,
                "low": ratio.low,
                "high": ratio.high,
            }
        )
    return rows


def spread(values: list[float]) -> dict[str, float]:
    """Mean and, of several, standard deviation."""
    several = {"sd": float(np.std(values, ddof=1))} if len(values) > 1 else {}
    return {"mean": float(np.mean(values)), **several, "seeds": len(values)}


def not_zero(network: Network) -> int:
    """Parameters that are not zeros."""
    return sum(int(weight.count_nonzero()) for weight in network.weights().values())


def summarise(case: Case, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, by side, and what each side of ours did."""
    sides: dict[str, Any] = {}
    for who in dict.fromkeys(r["who"] for r in rows):
        own = [r for r in rows if r["who"] == who]
        sides[who] = {
            key: spread([r[key] for r in own])
            for key in (
                "score", "drop_points", "latency_ms", "speedup", "macs_left", "parameters_left", "not_zero_left"
            )
        }  # fmt: skip
    recipes = {who: Recipe(methods).lines() for who, methods in case.ours().items()}
    return {"sides": sides, "recipes": recipes, "recovery": case.recovery.line(), "steps": case.steps}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    given_folder = next((Path(a) for a in sys.argv[1:] if Path(a).is_dir()), None)
    main(given_folder, [a for a in sys.argv[1:] if not Path(a).is_dir()])
