"""What patience and mixtures give where samples are few: CIFAR ResNet-20 that lost half of its parameters.

    python benchmarks/patience.py            all runs, about three hours on two cores
    python benchmarks/patience.py 2 5        only these runs, by their place in RUNS; writes no results

The network is pruned as in `structure_cases` and learns from the original's answers to 5,085 unlabelled images, on all
of which that was trained, and from where its features are large: moved, turned and erased, or mixed with each other and
moved (Beyer et al. 2022, A good teacher is patient and consistent), for a few steps and for many. Scored on the
exported file with the 1,017 test images. A finished run is kept in runs/patience and not made again by the same commit.
"""

import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import slimline as sl
from record import ROOT, commit, kept, write
from slimline.measure.machine import usable_cores
from slimline.measure.statistics import paired_drop
from slimline.methods.recipe import Recipe
from slimline.network.cost import macs
from slimline.network.trace import trace
from structure_cases import Case, cases
from structure_vs_torch_pruning import exported, shuffled, spread

KEPT = ROOT / "runs" / "patience"
VIEWS = {"moved": "image,rotate,scale,erase", "mixed": "mix,image"}
FEW, MANY = 400, 4000
RATE = 0.1


@dataclass(frozen=True)
class Run:
    """One training."""

    views: str
    steps: int
    seed: int


RUNS = (
    Run("moved", FEW, 0), Run("mixed", FEW, 0), Run("moved", MANY, 0),
    Run("mixed", MANY, 0), Run("mixed", MANY, 1), Run("mixed", MANY, 2),
)  # fmt: skip


def main(wanted: list[int]) -> None:
    """The wanted runs; all of them make the results file."""
    torch.set_num_threads(usable_cores())
    (case,) = (case for case in cases(None) if case.name == "cifar")
    code = commit(ROOT)
    rows = [
        kept(KEPT / f"{number}.json", asdict(RUNS[number]), code, partial(trained, case, RUNS[number]))[0]
        for number in wanted or range(len(RUNS))
    ]
    for row in rows:
        print(row)
    if not wanted:
        print(
            write("patience", summary(rows), rows, sorted({run.seed for run in RUNS}), sum(r["seconds"] for r in rows))
        )


def trained(case: Case, run: Run) -> dict[str, Any]:
    """Prune, recover, export and score."""
    started = time.monotonic()
    train, test = case.data()
    original = trace(case.build(), {name: torch.from_numpy(a[:2]) for name, a in test.items() if name != "labels"})
    task = sl.Task(validate=test, train=shuffled(train, run.seed), score="accuracy", augment=VIEWS[run.views])
    task = task.with_original(original)
    smaller = Recipe(case.halving).apply(original, task).network
    epochs = run.steps * case.recovery.batch / len(train["labels"])
    recovery = replace(case.recovery, epochs=epochs, learning_rate=RATE, seed=run.seed)
    network = recovery.apply(smaller, task).network
    with TemporaryDirectory() as scratch:
        whole, _ = exported(original, test, Path(scratch) / "original")
        right, _ = exported(network, test, Path(scratch) / "smaller")
    return {
        **asdict(run),
        "score": float(right.mean()),
        "original_score": float(whole.mean()),
        "drop_points": 100 * paired_drop(whole, right).drop,
        "n": len(right),
        "macs_left": macs(network) / macs(original),
        "parameters_left": network.parameter_count() / original.parameter_count(),
        "recipe": [method.line() for method in (*case.halving, recovery)],
        "threads": torch.get_num_threads(),
        "seconds": time.monotonic() - started,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and, of several seeds, standard deviation of the points lost, by views and steps."""
    found: dict[str, Any] = {}
    for views, steps in dict.fromkeys((row["views"], row["steps"]) for row in rows):
        own = [row for row in rows if (row["views"], row["steps"]) == (views, steps)]
        found[f"{views}, {steps} steps"] = {
            "score": float(np.mean([row["score"] for row in own])),
            "drop_points": spread([row["drop_points"] for row in own]),
            **{key: float(np.mean([row[key] for row in own])) for key in ("macs_left", "parameters_left")},
        }
    return {"sides": found, "original_score": rows[0]["original_score"], "n": rows[0]["n"], "learning_rate": RATE}


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]])
