"""Every method on the demo network, alone: what it costs in score, and what it saves on disk and in time.

    python benchmarks/methods.py                      all; writes benchmarks/results, from which docs/methods.md is made
    python benchmarks/methods.py FactorizeTucker      only these; writes nothing

What a method breaks is recovered by the same short distillation for all; what is exact is not. Scores come from the
exported file on all test images, sizes from the disk (plain, and packed by gzip), times from races against the
original.
"""

import gzip
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import slimline as sl
from record import write
from slimline.demo.job import HERE, task
from slimline.measure.latency import RacePlan, race
from slimline.measure.machine import usable_cores
from slimline.measure.statistics import judge, paired_drop
from slimline.methods.method import Method
from slimline.methods.recipe import Recipe
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Artifact

SEED, RUNTIME = 0, "onnxruntime"
BLOCKS = tuple(f"blocks.{block}.conv{conv}" for block in range(3) for conv in (1, 2))
"""The 3 x 3 convolutions between the stem and the head."""
RECOVERY = sl.Distill(epochs=2.0, judgements=0, precision="bf16", views=2)
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
        "DepthStudent": ([sl.DepthStudent(keep=0.0)], True),
        "PruneChannels, QuantizeStatic": (
            [sl.PruneChannels(keep=0.5, of="macs", importance="obs", reconstruct=512), RECOVERY,
             sl.FoldBatchNorm(), sl.QuantizeStatic()], False
        ),
        "PruneChannels, ShareWeights": (
            [sl.PruneChannels(keep=0.5, of="macs", importance="obs", reconstruct=512), RECOVERY,
             sl.ShareWeights(clusters=16)], True
        ),
    }  # fmt: skip


def main(wanted: list[str]) -> None:
    """Apply, export, score, then race in groups."""
    started = time.monotonic()
    torch.set_num_threads(usable_cores())
    original = sl.load(HERE / "network.slim")
    given = task().with_original(original)
    chosen = {name: value for name, value in methods().items() if not wanted or name in wanted}
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        whole, reference = scored(original, Path(folder) / "original")
        artifacts: dict[str, Artifact] = {}
        for number, (name, (recipe, recovered)) in enumerate(chosen.items()):
            began = time.monotonic()
            applied = Recipe([*recipe, *([RECOVERY] * recovered)])
            network = applied.apply(original, given).network
            artifacts[name], right = scored(network, Path(folder) / str(number))
            drop = paired_drop(reference, right)
            rows.append(
                {
                    "method": name,
                    "recipe": applied.lines(),
                    "score": float(right.mean()),
                    "drop_points": 100 * drop.drop,
                    "drop_upper_points": 100 * drop.upper,
                    "within_half_a_point": str(judge(drop, 0.005)),
                    "macs_left": macs(network) / macs(original),
                    "size_ratio": whole.size_bytes / artifacts[name].size_bytes,
                    "packed_ratio": packed(whole) / packed(artifacts[name]),
                    "seconds": round(time.monotonic() - began, 1),
                }
            )
            print({k: v for k, v in rows[-1].items() if k != "recipe"}, flush=True)
        names = list(artifacts)
        inputs = {"image": np.asarray(given.validate["image"][:256])}
        for start in range(0, len(names), TOGETHER):
            group = names[start : start + TOGETHER]
            raced = race({"original": whole, **{n: artifacts[n] for n in group}}, inputs, PLAN, usable_cores())
            for name in group:
                ratio = raced.ratio("original", name)
                next(r for r in rows if r["method"] == name).update(
                    latency_ms=raced.latency(name).value, speedup=ratio.value, low=ratio.low, high=ratio.high
                )
    for row in rows:
        row["on_front"] = on_front(row, rows)
        print(f"{row['method']:32} {row['score']:.4f} {row['size_ratio']:6.2f}x smaller {row['speedup']:5.2f}x faster")
    if not wanted:
        summary = {
            "original_score": float(reference.mean()),
            "n": len(reference),
            "front": [r["method"] for r in rows if r["on_front"]],
        }
        print(write("methods", summary, rows, [SEED], time.monotonic() - started))


def scored(network: Network, folder: Path) -> tuple[Artifact, np.ndarray]:
    """The exported file, and whether it is right for every test image."""
    folder.mkdir()
    runtime = get_runtime(RUNTIME)
    artifact = Artifact(runtime.export(network, folder), RUNTIME)
    runner, given = runtime.open(artifact, usable_cores()), task()
    images, labels = given.validate["image"], given.validate["labels"]
    right = [
        runner.run({"image": images[i : i + 100]})[0].argmax(1) == labels[i : i + 100]
        for i in range(0, len(labels), 100)
    ]
    return artifact, np.concatenate(right).astype(np.float64)


def packed(artifact: Artifact) -> int:
    """Bytes of its files behind gzip."""
    return sum(len(gzip.compress(path.read_bytes())) for path in artifact.files)


def on_front(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether no other is at least as good in score, size and speed and better in one."""
    keys = ("score", "size_ratio", "speedup")
    return not any(all(other[k] >= row[k] for k in keys) and any(other[k] > row[k] for k in keys) for other in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
