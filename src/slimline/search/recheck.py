"""Checks a finished run on this machine: checksums, the score, the latency."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimline.errors import SlimlineError
from slimline.measure.latency import QUICK, race
from slimline.measure.machine import usable_cores
from slimline.measure.score import artifact_outputs
from slimline.measure.statistics import Verdict, judge, paired_drop
from slimline.network import container
from slimline.runtimes.runtime import Artifact
from slimline.search.bench import SCORE_BATCH
from slimline.search.bundle import sha256
from slimline.search.study import Study
from slimline.sources.source import read_data, read_source
from slimline.task import SYNTHETIC, FileArrays, Samples, Task, data_digest
from slimline.training.private import with_training_samples
from slimline.training.workspace import Workspace


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    holds: bool | None
    """None when it could not be checked here."""
    found: str


def recheck(folder: Path, certificate: dict[str, Any]) -> list[Check]:
    """Every claim of a certificate that can be checked on this machine.

    Raises:
        SlimlineError: the folder does not hold what the certificate speaks of.
    """
    best = certificate["best"]
    runtime, _, variant = best["runtime"].rstrip("]").partition("[")
    artifact = Artifact(folder / best["artifact"], runtime, variant)
    original = Artifact(folder / "original.slim", "torch")
    for path in (artifact.path, original.path):
        if not path.exists():
            raise SlimlineError(f"{path} is missing: give the whole folder of the run, as it was written.")
    checks = [
        Check("the artifact's checksum", sha256(artifact.path) == best["sha256"], sha256(artifact.path)[:16]),
        Check("the artifact's size", artifact.size_bytes == best["size_bytes"], f"{artifact.size_bytes} bytes"),
        Check(
            "the original's checksum",
            sha256(original.path) == certificate["hashes"]["network"],
            f"{original.size_bytes} bytes",
        ),
        *_score_checks(folder, certificate, artifact, original),
    ]
    inputs = {name: x.numpy() for name, x in container.load(original.path).examples.items()}
    result = race({"best": artifact, "original": original}, inputs, QUICK, usable_cores())
    ratio = result.ratio("original", "best")
    faster = best["speedup"] <= 1 or ratio.value > 1
    text = f"{ratio.value:.2f} times faster than PyTorch eager here ({best['speedup']:.2f} when it was certified)"
    return [*checks, Check("it is faster than the original in PyTorch", faster, text)]


def _score_checks(folder: Path, certificate: dict[str, Any], artifact: Artifact, original: Artifact) -> list[Check]:
    source = stored_source(folder)
    if source is None or not Path(source).exists():
        return [
            Check(
                "the score",
                None,
                "the run was not started from a JOB.py that is still there, so its data cannot be read",
            )
        ]
    data = stored_fact(folder, "data")
    if data is not None and not Path(data).exists():
        return [Check("the score", None, f"{data}, the data of the run, is no longer there")]
    score = certificate["task"]["score"]
    train = SYNTHETIC if stored_fact(folder, "synthetic") else None
    task = None if data is None else Task(validate=FileArrays(read_data(Path(data)), data), score=score, train=train)
    job = read_source(source, task)
    if job.task is None:
        return [Check("the score", None, f"{source} has no task()")]
    seed, workspace = certificate["seed"], Workspace(folder)  # which keeps samples that were made from the network
    task = with_training_samples(job.task.read(job.network.input_names), job.network, seed, workspace)
    splits = task.splits(certificate["seed"])
    digest = data_digest(task, splits)
    if digest != certificate["hashes"]["data"]:
        return [Check("the data", False, f"{source} now gives other data than the certificate's")]
    certify: Samples = splits.certify
    reference = artifact_outputs(original, certify.inputs, usable_cores(), SCORE_BATCH)
    outputs = artifact_outputs(artifact, certify.inputs, usable_cores(), SCORE_BATCH)
    scores = [task.per_sample(o, certify, reference) for o in (reference, outputs)]
    drop = paired_drop(scores[0], scores[1])
    verdict = judge(drop, certificate["budget"]["max_drop"])
    lost = f"{100 * drop.drop:.2f} points lost, at most {100 * drop.upper:.2f}, on {drop.n} samples: {verdict}"
    agrees = verdict is Verdict.PASS or certificate["verdict"] != str(Verdict.PASS)
    return [Check("the data", True, digest[:16]), Check("the score", agrees, lost)]


def stored_source(folder: Path) -> str | None:
    """Path of the job or the model file a run was started from."""
    source: str | None = stored_fact(folder, "source")
    return source


def stored_fact(folder: Path, name: str) -> Any:
    """What the study of a run remembers under a name; None where it remembers nothing.

    Raises:
        SlimlineError: the study cannot be read.
    """
    path = folder / "study.sqlite"
    if not path.exists():
        return None
    try:
        return Study.stored_fact(path, name)
    except sqlite3.Error as error:
        raise SlimlineError(f"{path} cannot be read ({error}): copy the run's folder again.") from error
