"""Turns networks into trials: export, latency and score from the exported file, everything stored in the study."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slimline.errors import SlimlineError
from slimline.measure.latency import QUICK, race
from slimline.measure.score import artifact_outputs
from slimline.methods.recipe import Recipe
from slimline.network import container
from slimline.network.cost import macs, weight_count
from slimline.network.network import Network
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Artifact
from slimline.search.listener import Listener
from slimline.search.study import Study, Trial
from slimline.task import Array, Samples, Task

SCORE_BATCH = 64


Build = Callable[[], Network]


@dataclass
class Bench:
    """The workbench of one study."""

    folder: Path
    original: Network
    training_task: Task
    """What methods may read: the training samples and the search split."""
    task: Task
    search: Samples
    study: Study
    threads: int
    listener: Listener
    identity: str
    """Digest of network, data and seed: part of every stored step's key."""
    given: Path | None = None
    """The model file that the user gave, where a runtime can load it: then it is the original in that runtime."""
    anchor: Trial | None = None
    """The original in its best runtime: it runs in every race, so that races at different times can be compared."""
    reference: list[Array] = field(default_factory=list)
    """The original's outputs on the search split, from torch."""
    reference_scores: np.ndarray[Any, Any] | None = None
    tracker: str = ""
    """Name of the tracker that training reports to."""
    curves: list[tuple[Trial, dict[str, Any]]] = field(default_factory=list)
    """Every training run: the trial that came of it, and what happened."""
    _last: tuple[str, Network] | None = None

    def keep(self, network: Network) -> tuple[str, str]:
        """Store a network in the run's folder; its path there and its digest."""
        folder = self.folder / "networks"
        folder.mkdir(exist_ok=True)
        digest = hashlib.sha256(container.save(network, folder / "new.slim").read_bytes()).hexdigest()
        (folder / "new.slim").replace(folder / f"{digest[:16]}.slim")
        return f"networks/{digest[:16]}.slim", digest

    def training_folder(self, key: list[str]) -> Path:
        """Where the training of one step of the search keeps its checkpoint and event files."""
        return self.folder / "training" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]

    def load(self, path: str) -> Network:
        return container.load(self.folder / path)

    def artifact(self, trial: Trial) -> Artifact:
        return Artifact(self.folder / trial.artifact, trial.runtime, trial.variant)

    def trial(
        self, stage: str, recipe: Recipe, place: tuple[str, str], build: Build | None = None, scored: bool = True
    ) -> Trial:
        """Build a network, export it for (runtime, variant) and score the file; a finished trial is replayed.

        A file that the runtime cannot run is a dropped trial, marked ``refused``, and not the end of the search.

        Args:
            build: makes the network when that is cheaper than applying the recipe to the original.
            scored: whether the file's score is measured; probes of latency go without.

        Raises:
            SlimlineError: the first file of a study, which all others are compared with, cannot be run.
        """

        def make() -> dict[str, Any]:
            begun = time.monotonic()
            network = build() if build is not None else self._built(recipe)
            path, digest = self.keep(network)
            artifact = self._given(place[0]) if stage == "original" else None
            artifact = artifact or self._export(network, digest, place[0])
            made = Trial(
                id=f"t{len(self.study.trials()) + 1:02d}", stage=stage, runtime=place[0], variant=place[1],
                precision="int8" if recipe.leaves_integers() else place[1] or "fp32",
                recipe=recipe.lines(), network=path, artifact=str(artifact.relative_to(self.folder)),
                size_bytes=Artifact(artifact, place[0]).size_bytes, macs=macs(network),
                parameters=weight_count(network), recipe_yaml=recipe.to_yaml(),
            )  # fmt: skip
            if scored:
                self._score(made)
            made.seconds = time.monotonic() - begun
            return asdict(made)

        stored = self.study.once("trial", [recipe.to_yaml(), *place, self.identity], make)
        trial = next((t for t in self.study.trials() if t.id == stored["id"]), None)
        if trial is None:
            trial = Trial(**stored)
            self.study.save_trial(trial)
        self.listener.note(self.describe(trial))
        return trial

    def _built(self, recipe: Recipe) -> Network:
        """The network of a recipe; the last one is kept, as it is often wanted for several runtimes and variants."""
        text = recipe.to_yaml()
        if self._last is None or self._last[0] != text:
            self._last = (text, recipe.apply(self.original, self.training_task).network)
        return self._last[1]

    def describe(self, trial: Trial) -> str:
        drop = "" if trial.drop is None else f", drop {100 * trial.drop:+.2f} points"
        drop = f": {trial.why}" if trial.refused else drop
        return f"{trial.id} {trial.stage}: {trial.precision} in {trial.label}, {trial.size_bytes / 1000:.0f} kB{drop}"

    def _export(self, network: Network, digest: str, runtime: str) -> Path:
        """The file of a network for a runtime; runtimes that read the same format share it."""
        engine = get_runtime(runtime)
        folder = self.folder / "artifacts" / f"{digest[:16]}-{engine.file_format}"
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            written = engine.export(network, partial)
            partial.rename(folder)
            return folder / written.name
        return next(iter(sorted(folder.iterdir())))

    def _given(self, runtime: str) -> Path | None:
        """A copy of the file that the user gave, if the runtime can run it: what users have is what we compare with.

        A file with a fixed batch, with its weights elsewhere or with operators that the runtime lacks is exported
        from the network instead, which the listener is told.
        """
        if self.given is None or self.given.suffix != f".{get_runtime(runtime).file_format}":
            return None
        folder = self.folder / "artifacts" / "given"
        folder.mkdir(parents=True, exist_ok=True)
        copy = Path(shutil.copy2(self.given, folder / self.given.name))
        try:
            artifact_outputs(Artifact(copy, runtime), self.search.take(slice(0, 2)).inputs, self.threads, 2)
        except SlimlineError as error:
            self.listener.note(f"{self.given.name} cannot be run in {runtime} as it was given; its export is: {error}")
            return None
        return copy

    def _score(self, trial: Trial) -> None:
        try:
            outputs = artifact_outputs(self.artifact(trial), self.search.inputs, self.threads, SCORE_BATCH)
        except SlimlineError as error:
            if not self.reference:
                raise
            trial.status, trial.why, trial.refused = "dropped", str(error), True
            return
        if not self.reference:
            self.reference = outputs
        scores = self.task.per_sample(outputs, self.search, self.reference)
        if self.reference_scores is None:
            self.reference_scores = scores
        lost = self.reference_scores - scores
        trial.score, trial.drop, trial.drop_sd = float(scores.mean()), float(lost.mean()), float(lost.std())

    def restore_reference(self, trial: Trial) -> None:
        """Compute the original's outputs again when its trial was replayed."""
        if not self.reference:
            self.reference = artifact_outputs(self.artifact(trial), self.search.inputs, self.threads, SCORE_BATCH)
            self.reference_scores = self.task.per_sample(self.reference, self.search, self.reference)

    def time(self, trials: Sequence[Trial]) -> None:
        """Race the trials against each other and against the anchor, and store their latency.

        Those that were refused stay without one; a file that runs in the batch of the scores and not in that of the
        race is refused here.
        """
        running = [t for t in trials if not t.refused]
        if not running:
            return
        contestants = {t.id: self.artifact(t) for t in running}
        if self.anchor is not None:
            contestants = {self.anchor.id: self.artifact(self.anchor), **contestants}
        found = self.study.once("race", sorted(contestants), lambda: self._raced(contestants))
        for trial in running:
            if isinstance(found[trial.id], str):
                trial.status, trial.why, trial.refused = "dropped", found[trial.id], True
            else:
                trial.latency_ms = float(found[trial.id])
            self.study.save_trial(trial)
            what = trial.why if trial.refused else f"{trial.latency_ms:.3f} ms"
            self.listener.note(f"{trial.id} {trial.label} {trial.precision}: {what}")

    def _raced(self, contestants: dict[str, Artifact]) -> dict[str, float | str]:
        """Milliseconds by trial, or what the runtime said of a file that it could not run."""
        refused = {}
        try:
            result = race(contestants, self.search.inputs, QUICK, self.threads)
        except SlimlineError:
            refused = {label: why for label, artifact in contestants.items() if (why := self._refusal(artifact))}
            if not refused or (self.anchor is not None and self.anchor.id in refused):
                raise
            contestants = {label: artifact for label, artifact in contestants.items() if label not in refused}
            result = race(contestants, self.search.inputs, QUICK, self.threads)
        if self.anchor is None or self.anchor.latency_ms is None:
            return refused | {label: result.latency(label).value for label in contestants}
        anchor, ms = self.anchor.id, self.anchor.latency_ms
        return refused | {label: ms / result.ratio(anchor, label).value for label in contestants}

    def _refusal(self, artifact: Artifact) -> str | None:
        """What the runtime says when it cannot run a file on one sample."""
        try:
            artifact_outputs(artifact, self.search.take(slice(0, 1)).inputs, self.threads, 1)
        except SlimlineError as error:
            return str(error)
        return None

    def drop_trial(self, trial: Trial, why: str) -> None:
        """Say why a trial is not carried on; one that was refused keeps the runtime's words."""
        if trial.refused:
            return
        trial.status, trial.why = "dropped", why
        self.study.save_trial(trial)


def require_writable(folder: Path) -> None:
    """Make the run's folder.

    Raises:
        SlimlineError: it cannot be made or written to, or the disk is full.
    """
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise SlimlineError(
            f"The output folder {folder} cannot be written ({error.strerror}): choose another --out or make room."
        ) from error
