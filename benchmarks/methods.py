"""Every method alone on the demo network, and what makes tables smaller on MiniLM: score, bytes and time.

    python benchmarks/methods.py [MINILM_FOLDER]                   all; writes one results file for each network
    python benchmarks/methods.py [MINILM_FOLDER] minilm            only this network
    python benchmarks/methods.py fashion FactorizeTucker           only this row; writes nothing

On the demo network (`fashion`) what a method breaks is recovered by one short distillation at the end; methods that
train by themselves, exact ones and int8 are not. DepthStudent is left out: that network has one block to take out, and
PruneBlocks takes it too. On MiniLM, fine-tuned on reviews (`structure_cases`), nothing is recovered. Scores come from
the exported file on all test samples, sizes from the disk (plain, and packed by gzip), times from races against the
original. docs/methods.md is made from the results. A run that was interrupted goes on behind its last finished row
(runs/methods_NETWORK), if the commit is the same.
"""

import gzip
import shutil
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import slimline as sl
from record import ROOT, commit, kept, write
from slimline.demo.job import HERE, task
from slimline.measure.latency import RacePlan, race
from slimline.measure.machine import usable_cores
from slimline.measure.statistics import judge, paired_drop
from slimline.methods.method import Method
from slimline.methods.recipe import Recipe
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Artifact
from structure_cases import WHOLE_HEADS, WORDS_TABLE, cases

SEED, RUNTIME = 0, "onnxruntime"
CODE = commit(ROOT)
"""What made the rows of this run; those of another are made again."""
BLOCKS = tuple(f"blocks.{block}.conv{conv}" for block in range(3) for conv in (1, 2))
"""The 3 x 3 convolutions between the stem and the head."""
RECOVERY = sl.Distill(epochs=1.0, judgements=0, precision="bf16", views=2)
BATCH = 64
TOGETHER = 6
"""Files in one race, the original besides."""
PLAN = RacePlan(launches=(5, 5), rounds=10, target_width=0.0)


def methods() -> dict[str, tuple[list[Method], bool]]:
    """By a short name: the methods, and whether what they break is recovered."""
    share = dict(budget=0.5, layers=BLOCKS)
    return {
        "Simplify": ([sl.Simplify()], False),
        "FoldBatchNorm": ([sl.FoldBatchNorm()], False),
        "PruneChannels": ([sl.PruneChannels(keep=0.5, of="macs", importance="obs", reconstruct=512)], True),
        "PruneChannels, l1": ([sl.PruneChannels(keep=0.5, of="macs", importance="l1")], True),
        "PruneChannels, random": ([sl.PruneChannels(keep=0.5, of="macs", importance="random")], True),
        "PruneBlocks": ([sl.PruneBlocks(keep=0.0)], True),
        "TrainSelectively": (
            [sl.TrainSelectively(epochs=1.0),
             sl.PruneChannels(keep=0.5, of="macs", importance="batch_norm_scale")], True
        ),
        "SparsifyMagnitude": ([sl.SparsifyMagnitude(sparsity=0.8)], True),
        "SparsifyMagnitude, network": ([sl.SparsifyMagnitude(sparsity=0.8, scope="network")], True),
        "SparsifyRandom": ([sl.SparsifyRandom(sparsity=0.8)], True),
        "Wanda": ([sl.Wanda(sparsity=0.8, skip=("stem",))], True),
        "SparseGPT": ([sl.SparseGPT(sparsity=0.8)], True),
        "SparseGPT, 2:4": ([sl.SparseGPT(sparsity=0.5, pattern="2:4")], True),
        "SparsifyGradually": ([sl.SparsifyGradually(sparsity=0.8, epochs=2.0)], False),
        "FactorizeTucker": ([sl.FactorizeTucker(**share)], True),
        "FactorizeCP": ([sl.FactorizeCP(**share)], True),
        "FactorizeSpatial": ([sl.FactorizeSpatial(**share)], True),
        "FactorizeSeparable": ([sl.FactorizeSeparable(**share)], True),
        "FactorizeWhitened": ([sl.FactorizeWhitened(**share)], True),
        "ShareWeights": ([sl.ShareWeights(clusters=16)], True),
        "ShareWeights, 4 clusters": ([sl.ShareWeights(clusters=4)], True),
        "QuantizeStatic": ([sl.FoldBatchNorm(), sl.QuantizeStatic()], False),
        "WidthStudent": ([sl.WidthStudent(keep=0.5)], True),
        "SeparableStudent": ([sl.SeparableStudent()], True),
        "PruneChannels, QuantizeStatic": (
            [sl.PruneChannels(keep=0.5, of="macs", importance="obs", reconstruct=512), RECOVERY,
             sl.FoldBatchNorm(), sl.QuantizeStatic()], False
        ),
        "PruneChannels, ShareWeights": (
            [sl.PruneChannels(keep=0.5, of="macs", importance="obs", reconstruct=512), RECOVERY,
             sl.ShareWeights(clusters=16)], True
        ),
    }  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A trained network, and what is tried on it."""

    name: str
    described: str
    original: Network
    task: sl.Task
    tried: dict[str, tuple[list[Method], bool]]
    """By a short name: the methods, and whether what they break is recovered."""


def fashion() -> Subject:
    """The network that the package ships."""
    original = sl.load(HERE / "network.slim")
    return Subject("fashion", "Fashion-MNIST ResNet", original, task().with_original(original), methods())


def minilm(folder: Path) -> Subject:
    """The classifier of reviews, most of whose parameters are a table of words."""
    (case,) = [case for case in cases(folder) if case.name == "minilm"]
    train, test = case.data()
    inputs = {name: torch.from_numpy(array[:2]) for name, array in test.items() if name != "labels"}
    original = trace(case.build(), inputs)
    given = sl.Task(validate=test, train=train, score="accuracy").with_original(original)
    return Subject("minilm", "MiniLM on movie reviews", original, given, table_methods())


def table_methods() -> dict[str, tuple[list[Method], bool]]:
    """For a network with a large table of words."""
    narrow, kept = sl.FactorizeEmbedding(rank=192, layers=(WORDS_TABLE,)), f"{WORDS_TABLE}.kept"
    narrow_kept = sl.FactorizeEmbedding(rank=192, layers=(kept,))
    tried: dict[str, list[Method]] = {
        "Simplify": [sl.Simplify()],
        "PruneVocabulary": [sl.PruneVocabulary()],
        "PruneVocabulary, read twice": [sl.PruneVocabulary(least=2)],
        "FactorizeEmbedding": [narrow],
        "FactorizeEmbedding, rank 96": [sl.FactorizeEmbedding(rank=96, layers=(WORDS_TABLE,))],
        "FactorizeWhitened": [sl.FactorizeWhitened(budget=0.75)],
        "ShareWeights, 256 clusters": [sl.ShareWeights(clusters=256)],
        "ShareWeights": [sl.ShareWeights(clusters=16)],
        "PruneChannels": [sl.PruneChannels(keep=0.9, of="macs", **WHOLE_HEADS)],
        "QuantizeStatic": [sl.Simplify(), sl.QuantizeStatic()],
        "QuantizeStatic, and the table shared": [
            sl.Simplify(), sl.ShareWeights(clusters=256, layers=(WORDS_TABLE,)), sl.QuantizeStatic()
        ],
        "PruneVocabulary, then shared": [sl.PruneVocabulary(), sl.ShareWeights(clusters=16)],
        "PruneVocabulary, then factorized": [sl.PruneVocabulary(), narrow_kept],
        "PruneVocabulary, then factorized and shared": [
            sl.PruneVocabulary(), narrow_kept, sl.ShareWeights(clusters=16)
        ],
        "PruneVocabulary, then shared beside integers": [
            sl.Simplify(), sl.PruneVocabulary(), sl.ShareWeights(clusters=256, layers=(kept,)), sl.QuantizeStatic()
        ],
        "PruneVocabulary, then factorized and shared beside integers": [
            sl.Simplify(), sl.PruneVocabulary(), narrow_kept,
            sl.ShareWeights(clusters=256, layers=(f"{kept}.first",)), sl.QuantizeStatic()
        ],
    }  # fmt: skip
    return {name: (recipe, False) for name, recipe in tried.items()}


def main(folder: Path | None, wanted: list[str]) -> None:
    """The demo network, and MiniLM where its folder is given."""
    torch.set_num_threads(usable_cores())
    subjects = {"fashion": fashion} | ({"minilm": lambda: minilm(folder)} if folder else {})
    chosen = [name for name in wanted if name in subjects] or list(subjects)
    wanted = [name for name in wanted if name not in subjects]
    for name in chosen:
        started = time.monotonic()
        subject = subjects[name]()
        kept = ROOT / "runs" / f"methods_{name}{'_some' * bool(wanted)}"
        summary, rows = measured(subject, wanted, kept)
        for row in rows:
            print(
                f"{row['method']:60} {row['score']:.4f} {row['size_ratio']:6.2f}x smaller {row['speedup']:5.2f}x "
                f"faster {'front' if row['on_front'] else ''}"
            )
        if not wanted:
            seconds = time.monotonic() - started + sum(row["seconds"] for row in rows if row.pop("from_before"))
            print(write(f"methods_{subject.name}", summary, rows, [SEED], seconds))
        shutil.rmtree(kept)


def measured(subject: Subject, wanted: list[str], folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Apply, export, score, then race in groups; what is finished stands in ``folder`` and is not done again."""
    chosen = {name: value for name, value in subject.tried.items() if not wanted or name in wanted}
    rows: list[dict[str, Any]] = []
    whole, reference = scored(subject, subject.original, folder / "original")
    artifacts: dict[str, Artifact] = {}
    for number, (name, (recipe, recovered)) in enumerate(chosen.items()):
        place, applied = folder / f"{number}", Recipe([*recipe, *([RECOVERY] * recovered)])
        known = {"method": name, "recipe": applied.lines()}
        make = partial(tried, subject, applied, place, whole, reference)
        row, done = kept(folder / f"{number}.json", known, CODE, make)
        artifacts[name] = Artifact(place / row.pop("file"), RUNTIME)
        rows.append({**known, **row, "from_before": done})
        print(name, row, flush=True)
    names = list(artifacts)
    inputs = {name: np.asarray(array)[:256] for name, array in given(subject).items()}
    for start in range(0, len(names), TOGETHER):
        group = names[start : start + TOGETHER]
        raced = race({"original": whole, **{n: artifacts[n] for n in group}}, inputs, PLAN, usable_cores())
        for name in group:
            ratio = raced.ratio("original", name)
            next(r for r in rows if r["method"] == name).update(
                latency_ms=raced.latency(name).value, speedup=ratio.value, low=ratio.low, high=ratio.high
            )
    for row in rows:
        row["on_front"] = not any(beats(other, row) for other in rows)
    front = [name for name, row in zip(names, rows, strict=True) if row["on_front"]]
    summary = {
        "network": subject.described,
        "recovery": RECOVERY.line() if any(again for _, again in chosen.values()) else "",
        "original_score": float(reference.mean()),
        "n": len(reference),
        "front": front,
        "front_by_room": {
            room: [name for name in front if room in {type(m).__module__.split(".")[2] for m in chosen[name][0]}]
            for room in ("prune", "sparsify", "factorize", "share", "quantize", "distill")
        },
    }
    return summary, rows


def tried(subject: Subject, applied: Recipe, place: Path, whole: Artifact, reference: np.ndarray) -> dict[str, Any]:
    """Apply and export: the file's name in ``place``, and what can be said of it without a race.

    Args:
        reference: whether the original's file, ``whole``, is right for every test sample.
    """
    began = time.monotonic()
    network = applied.apply(subject.original, subject.task).network
    artifact, right = scored(subject, network, place)
    drop = paired_drop(reference, right)
    return {
        "file": str(artifact.path.relative_to(place)),
        "score": float(right.mean()),
        "drop_points": 100 * drop.drop,
        "drop_upper_points": 100 * drop.upper,
        "within_half_a_point": str(judge(drop, 0.005)),
        "macs_left": macs(network) / macs(subject.original),
        "parameters_left": network.parameter_count() / subject.original.parameter_count(),
        "size_ratio": whole.size_bytes / artifact.size_bytes,
        "packed_ratio": packed(whole) / packed(artifact),
        "seconds": round(time.monotonic() - began, 1),
    }


def given(subject: Subject) -> dict[str, np.ndarray]:
    """What the network reads, of all test samples."""
    return {name: np.asarray(subject.task.validate[name]) for name in subject.original.input_names}


def scored(subject: Subject, network: Network, folder: Path) -> tuple[Artifact, np.ndarray]:
    """The exported file, and whether it is right for every test sample."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    runtime = get_runtime(RUNTIME)
    artifact = Artifact(runtime.export(network, folder), RUNTIME)
    runner, inputs = runtime.open(artifact, usable_cores()), given(subject)
    labels = np.asarray(subject.task.validate["labels"])
    right = [
        runner.run({n: a[i : i + BATCH] for n, a in inputs.items()})[0].argmax(1) == labels[i : i + BATCH]
        for i in range(0, len(labels), BATCH)
    ]
    return artifact, np.concatenate(right).astype(np.float64)


def packed(artifact: Artifact) -> int:
    """Bytes of its files behind gzip."""
    return sum(len(gzip.compress(path.read_bytes())) for path in artifact.files)


def beats(other: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether another is at least as good in score, size and speed and better in one; speeds count as their intervals.

    Intervals that overlap are one speed.
    """
    better = other["score"] > row["score"] or other["size_ratio"] > row["size_ratio"] or other["low"] > row["high"]
    return (
        better
        and other["score"] >= row["score"]
        and other["size_ratio"] >= row["size_ratio"]
        and other["high"] >= row["low"]
    )


if __name__ == "__main__":
    main(
        next((Path(a) for a in sys.argv[1:] if Path(a).is_dir()), None),
        [a for a in sys.argv[1:] if not Path(a).is_dir()],
    )
