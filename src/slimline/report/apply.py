"""A recipe without a search: apply it, write the file, score it, draw what training did.

Started by `torchrun` or `accelerate launch`, every process applies the recipe and they share the training; the first
one writes and tells.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slimline.errors import SlimlineError
from slimline.measure.machine import usable_cores
from slimline.measure.score import artifact_outputs
from slimline.methods.method import Outcome
from slimline.methods.recipe import Recipe
from slimline.network import container
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.report.certificate import TrainingCurve
from slimline.report.training import write_training_page
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Artifact
from slimline.search.bench import require_writable
from slimline.search.listener import Listener
from slimline.search.training_curves import trained_by
from slimline.sources.source import Job, Source, read_source
from slimline.task import Array, Samples, Task
from slimline.training.engine import check_tracker, leave_processes, processes
from slimline.training.finished import forget_finished
from slimline.training.private import with_training_samples
from slimline.training.workspace import Workspace

RUNTIMES = {".slim": "torch", ".onnx": "onnxruntime"}
"""The runtime that scores a file, by its ending."""
SEED = 0
"""Of the splits: the same command must find the same ones when it goes on."""


@dataclass(frozen=True)
class Version:
    """A network as a file."""

    what: str
    size_bytes: int
    macs: int
    parameters: int
    score: float | None
    """Mean over the validation samples, from the file in a fresh process; None without data."""


@dataclass(frozen=True)
class Applied:
    """What applying a recipe gave."""

    path: Path
    versions: tuple[Version, Version]
    """Before and after."""
    samples: int
    outcome: Outcome
    page: Path | None
    """The curves of its training, if there was any."""


def apply_recipe(
    recipe: Path, source: Source, out: Path, task: Task | None, listener: Listener, tracker: str = "",
    allow_code: bool = False,
) -> Applied | None:  # fmt: skip
    """Apply a recipe file to a source and write the result.

    Checkpoints lie in ``OUT.work``: the same command continues a training that was stopped. Where a method learns, the
    result is scored on samples that nothing was learnt from or chosen by: those of the certify split.

    Args:
        out: a ``.slim`` or ``.onnx`` file.
        tracker: a tracker that Accelerate knows, such as ``tensorboard``.

    Returns:
        None in the processes that only helped to train.

    Raises:
        SlimlineError: the recipe, the source or the data cannot be used, or the file cannot be written; one sentence.
    """
    if out.suffix not in RUNTIMES:
        raise SlimlineError(f"{out} cannot be written: give --out a name that ends in {' or '.join(RUNTIMES)}.")
    work = out.with_name(out.name + ".work")
    _require_room_for(out)
    check_tracker(tracker, work)
    methods = read_recipe(recipe)
    job = read_source(source, task, allow_code=allow_code)
    main = processes()[0] == 0
    listener.stage(f"Applying {recipe.name}")
    told = Workspace(
        work, tracker=tracker, step=lambda done, total: listener.step(done, total, "training"), note=listener.note
    )
    workspace = told if main else Workspace(work)
    learning, judging = _samples(job, methods, workspace)
    outcome = methods.apply(job.network, learning, workspace)
    leave_processes()
    if not main:
        return None
    _write(outcome.network, out)
    forget_finished(work)
    listener.stage("Scoring the files")
    versions = _versions(job, outcome.network, out, work, judging)
    page = _page(learning, outcome, out)
    return Applied(out, versions, 0 if judging is None else len(judging), outcome, page)


def _require_room_for(out: Path) -> None:
    """Fail before hours of training, not after them, where the file cannot be written."""
    if out.is_dir():
        raise SlimlineError(f"{out} is a folder: give --out the name of a file.")
    require_writable(out.parent)


def _samples(job: Job, methods: Recipe, workspace: Workspace) -> tuple[Task | None, Samples | None]:
    """The task that methods learn from, and the samples that score the result, from which nothing is learnt."""
    if job.task is None:
        return None, None
    task = with_training_samples(job.task.read(job.network.input_names), job.network, workspace=workspace)
    if not any(method.learns_from_data() for method in methods.methods):
        return task, task.validate
    splits = task.splits(SEED)
    return replace(task, train=splits.train, validate=splits.search), splits.certify


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file.

    Raises:
        SlimlineError: no such file, or no recipe.
    """
    try:
        return Recipe.from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SlimlineError(f"The recipe {path} cannot be read ({reason}): give a YAML file of methods.") from error


def _write(network: Network, out: Path) -> None:
    """Write the file as a whole or not at all."""
    partial = out.with_name(f"partial-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".slim":
            container.save(network, partial).replace(out)
            return
        folder = out.with_name(out.name + ".work") / "file"
        folder.mkdir(parents=True, exist_ok=True)
        written = Artifact(get_runtime(RUNTIMES[out.suffix]).export(network, folder), RUNTIMES[out.suffix])
        for file in reversed(written.files):  # weights beside the file, where there are any, before the file itself
            file.replace(out.with_name(file.name.replace(written.path.name, out.name)))
    except OSError as error:
        reason = error.strerror or error
        raise SlimlineError(f"{out} cannot be written ({reason}): make room or choose another --out.") from error


def _versions(job: Job, network: Network, out: Path, work: Path, samples: Samples | None) -> tuple[Version, Version]:
    """Both networks as files, and how these score."""
    work.mkdir(parents=True, exist_ok=True)
    before = Artifact(container.save(job.network, work / "original.slim"), "torch")
    after = Artifact(out, RUNTIMES[out.suffix])
    scores: tuple[float | None, float | None] = (None, None)
    if job.task is not None and samples is not None:
        reference: list[Array] = artifact_outputs(before, samples.inputs, usable_cores())
        answers = artifact_outputs(after, samples.inputs, usable_cores())
        first, second = (np.mean(job.task.per_sample(a, samples, reference)) for a in (reference, answers))
        scores = (float(first), float(second))
    pairs = (("original", before, job.network, scores[0]), ("result", after, network, scores[1]))
    one, two = (Version(what, a.size_bytes, macs(n), n.parameter_count(), score) for what, a, n, score in pairs)
    return one, two


def _page(task: Task | None, outcome: Outcome, out: Path) -> Path | None:
    """The curves of the training, beside the file."""
    if not outcome.curves or task is None:
        return None
    kind = ", synthetic samples" if task.synthetic else ""
    curves = [
        TrainingCurve(name=f"training {place + 1}{kind}", trial=None, **trained_by(method, curve, len(task.train)))
        for place, (method, curve) in enumerate(outcome.curves)
    ]
    page = out.with_name(out.name + ".training.html")
    original = next((curve.original for _, curve in outcome.curves if curve.original is not None), None)
    score = task.score if isinstance(task.score, str) else "score"
    write_training_page(curves, page, f"{out.name}: training", original, None, score)
    return page
