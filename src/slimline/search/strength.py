"""One knob: the share of the latency (or size) that may stay. Bisected against the budget, each candidate recovered."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from slimline.errors import SlimlineError
from slimline.methods.adjust.logits import AdjustLogits, class_frequencies, last_layer, scores_by_strength
from slimline.methods.distill.distill import Distill, Points
from slimline.methods.distill.logits import matched_as
from slimline.methods.distill.own_student import OwnStudent
from slimline.methods.method import Method, needs_data
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.readers import readers
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network.cost import layers, macs
from slimline.network.network import Network
from slimline.numerics.augment import MIX
from slimline.search.allocation import allocate
from slimline.search.bench import Bench
from slimline.search.budget import Budget
from slimline.search.layer_race import LayerRace, faster
from slimline.search.students import FACTORIZATIONS, Factorization, students
from slimline.search.study import Trial
from slimline.search.table import IMPORTANCE, RECONSTRUCTION_SAMPLES, SensitivityTable
from slimline.search.training_curves import trained_by
from slimline.training.checkpoint import remove_checkpoint
from slimline.training.precision import step_speeds
from slimline.training.teacher import TEACHER_BATCH, Teacher
from slimline.training.views import without_effect
from slimline.training.workspace import Workspace

MOST_CANDIDATES, MOST_UNTRAINED = 3, 5
"""Candidates before the full recovery. Where they are not trained they take less time, which is worth coming closer to
the budget."""
WEAKEST, LEAST_SPAN = 0.75, 0.25
"""The strength is searched between this share of the whole network's cost and what an eighth of all channels cost; at
least this share of what lies above the latter is searched."""
SHORT_SHARE = 0.1
"""Share of the time for training that one short recovery takes; most of the time belongs to the full one."""
LONGEST_SHORT, LONGEST_FULL = 6.0, 60.0
"""Epochs; beyond them a recovery gains little."""
LEAST_FULL = 0.5
"""Epochs; a full recovery of fewer adds nothing to the short one."""
LEAST_EPOCHS = 0.01
"""The hundredth part of an epoch is the least that a recipe states; a student is not trained for less."""
STILL_HOPEFUL = 1.5
"""A candidate that lost at most this many times the budget in its short recovery is worth a full one."""
SAFE_ALREADY = 0.6
"""The same without batch norm, where a full recovery of some minutes cannot be counted on: this would pass as it is."""
SIZE_SHARE = 0.1
"""Weight of size when latency is minimised: channels that cost no time still cost bytes."""
EXPORT_SECONDS = 15.0
"""Allowance for export, scoring and timing of one candidate."""
LAYERS_RACED, LAYER_SECONDS = 8, 6.0
"""Layers, and what the race of one takes."""
MOST_VIEWS, TEACHER_SHARE = 3, 0.2
"""Views of a training sample where there is augmentation, and the share of the time for training that the teacher may
take to answer them: a network that is trained for one epoch reads one view."""
TEACHER_PROBES = 3
"""Batches by which the teacher's speed is measured; the first warms it up."""
LABEL_WEIGHT = 0.3
"""Share of the loss from labels when the score is accuracy and there are labels."""
ADAMW_RATE = 1e-4
ADJUSTMENTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Strengths of logit adjustment that are tried on the search split."""
SKEWED = 4.0
"""Classes are skewed when the commonest is answered so many times as often as those that are answered on average."""
NORMED_SHARE = 0.5
"""Batch norms per dense layer from which a network counts as normed."""
MANY_CLASSES = 1000
"""Beyond so many classes a temperature above 1 makes the tail, which says little, outweigh the rest."""


@dataclass
class Candidate:
    """Widths for a strength, recovered, and its trial."""

    strength: float
    methods: list[Method]
    network: Network
    """Recovered and still in floating point."""
    seconds_per_epoch: float
    trial: Trial

    @property
    def drop(self) -> float:
        return 1.0 if self.trial.drop is None else self.trial.drop


class StrengthSearch:
    """Finds the strongest pruning inside the budget, for one runtime and one precision.

    Args:
        base: the whole network in that runtime and precision; pruned ones are finished by the same methods.
    """

    def __init__(self, bench: Bench, table: SensitivityTable, base: Trial, budget: Budget) -> None:
        self.bench, self.table, self.base, self.budget = bench, table, base, budget
        self.finish = Recipe.from_yaml(base.recipe_yaml).methods
        self.task, self.original = table.task, table.original
        self.made: list[Candidate] = []
        samples = self.task.read(self.original.input_names).train
        self.samples = samples
        self.precision = "fp32"
        self.reconstruct = RECONSTRUCTION_SAMPLES
        idle = without_effect(self.task.augment, self.original)
        for name, why in idle.items():
            bench.listener.note(f"{name}: {why}.")
        self.augment = [name for name in self.task.augment if name not in idle]
        """What makes views differ."""
        labelled = self.task.score == "accuracy" and samples.labels is not None
        if labelled and MIX in self.augment:
            bench.listener.note(
                "Recovery learns from the original's answers alone: mixtures of samples have no labels."
            )
        self.label_weight = LABEL_WEIGHT if labelled and MIX not in self.augment else 0.0
        self.views = MOST_VIEWS if self.augment else 1
        norms = [n for n in self.original.module.graph.nodes if n.target is torch.ops.aten.batch_norm.default]
        self.normed = len(norms) >= NORMED_SHARE * len(readers(self.original)) and not self.task.synthetic
        """Whether batch norm holds the scale of the activations behind most layers. What it would learn from synthetic
        samples does not hold for real ones, so there it is folded as if it were not enough."""
        self.skewed = self._skewed()
        """Whether the original answers one class far more often than others."""
        self.hopeful_drop = (STILL_HOPEFUL if self.normed else SAFE_ALREADY) * budget.max_drop

    def run(self, deadline: float) -> None:
        """Fill ``made``, weakest to strongest within the bisection, the full recovery last.

        Args:
            deadline: seconds of search (`Study.elapsed`) at which certification has to begin.
        """
        self.precision, seconds_per_epoch = self._training_speed()
        training_time = self._decide("training time", lambda: deadline - self.bench.study.elapsed())
        self.views = round(self._decide("views", lambda: self._views(training_time)))
        short_seconds = training_time * SHORT_SHARE
        groups = self.table.found.groups
        passing, failing = self._range() if groups else (1.0, 1.0)
        for number in range((MOST_CANDIDATES if self.normed else MOST_UNTRAINED) if groups else 0):
            reserve = training_time * SHORT_SHARE * (2 if self.made else 1) + EXPORT_SECONDS
            reserve = max(reserve, self.made[-1].trial.seconds if self.made else 0.0)
            if not self._time_for(f"candidate {number}", reserve, deadline):
                break
            candidate = self._candidate((passing * failing) ** 0.5, short_seconds, seconds_per_epoch)
            if not self.made and self.normed:
                candidate = self._better_start(candidate, short_seconds, seconds_per_epoch, deadline)
            self.made.append(candidate)
            if candidate.drop <= self.hopeful_drop:
                passing = candidate.strength
            else:
                failing = candidate.strength
                after = "after a short recovery" if self.normed else "before recovery"
                self.bench.drop_trial(candidate.trial, f"lost {100 * candidate.drop:.2f} points {after}")
        for student in students(self.task):
            self._try_student(student, short_seconds, seconds_per_epoch, deadline)
        for method in FACTORIZATIONS:
            if factorized := self._where_faster(method, deadline):
                self._try_student(factorized, short_seconds, seconds_per_epoch, deadline)
        if hopeful := self._hopeful():
            self._finish(min(hopeful, key=lambda c: self._measured(c.trial)), deadline)
        elif runnable := [c for c in self.made if not c.trial.refused]:
            self._finish(max(runnable, key=lambda c: self._measured(c.trial)), deadline)

    def _hopeful(self) -> list[Candidate]:
        """Candidates that may be inside the budget after a full recovery."""
        return [c for c in self.made if not c.trial.refused and c.drop <= self.hopeful_drop]

    def _try_student(self, student: Method, seconds: float, quarter_seconds_per_epoch: float, deadline: float) -> None:
        """Recover a compact student like a candidate, where its file costs less than that of the best candidate.

        What a student costs is measured before it is trained; one of ours that computes more than the best candidate
        is not even measured.
        """
        name = student.line()
        if not self._time_for(name, seconds + 2 * EXPORT_SECONDS, deadline):
            return
        try:
            start = student.apply(self.original, self.task).network
        except SlimlineError as reason:
            self.bench.listener.note(f"{name}: {reason}")
            return
        best = min(self._hopeful(), key=lambda c: self._measured(c.trial), default=None)
        if best is not None and not isinstance(student, OwnStudent) and macs(start) >= best.trial.macs:
            self.bench.listener.note(f"{name}: computes more than {best.trial.id}")
            return
        finish, tail = Recipe([student, *self.finish]), Recipe(self.finish)
        epochs = min(LONGEST_SHORT, seconds / self._epoch_seconds(macs(start), quarter_seconds_per_epoch))
        if epochs < LEAST_EPOCHS:
            self.bench.listener.note(f"{name}: no time left to train it, it computes too much")
            return
        try:
            probe = self.bench.trial(
                "probe", finish, self.base.place, lambda: tail.apply(start, self.task).network, scored=False
            )
        except SlimlineError as reason:  # there may be operators in it that cannot be exported, or quantised
            self.bench.listener.note(f"{name}: {reason}")
            return
        self.bench.time([probe])
        limit, rival = (1.0, self.base.id) if best is None else (self._measured(best.trial), best.trial.id)
        slower = probe.refused or self._measured(probe) >= limit
        self.bench.drop_trial(probe, f"a probe of an untrained student{f'; costs more than {rival}' if slower else ''}")
        if slower:
            return
        methods: list[Method] = [student, self._distillation(round(epochs, 2))]
        candidate = self._recover(self._measured(probe), methods, self.original, methods)
        self.made.append(candidate)
        if candidate.drop > self.hopeful_drop:
            self.bench.drop_trial(candidate.trial, f"lost {100 * candidate.drop:.2f} points after a short recovery")

    def _where_faster(self, method: Factorization, deadline: float) -> Method | None:
        """The method for those layers that are measured to be faster for it, if there are any.

        Only the layers that compute most are raced, in floating point, and none where a factorisation of all that can
        be factorised would still compute more than the best candidate. Where bytes count, every layer gets smaller.
        """
        name = method.line()
        if self.budget.minimize == "size":
            return method
        if not self._time_for(f"races of layers for {name}", LAYERS_RACED * LAYER_SECONDS + EXPORT_SECONDS, deadline):
            return None
        best = min(self._hopeful(), key=lambda c: self._measured(c.trial), default=None)
        limit = None if best is None else best.trial.macs
        key = [name, str(limit), *self.base.place, self.bench.identity]
        kept, notes = self.bench.study.once("layer race", key, lambda: self._raced_layers(method, limit))
        for note in notes:
            self.bench.listener.note(f"{name}: {note}")
        return replace(method, layers=tuple(kept)) if kept else None

    def _raced_layers(self, method: Factorization, limit: int | None) -> tuple[list[str], list[str]]:
        """The layers that are faster for a method, and why others are not.

        Args:
            limit: MACs below which the network has to come for a race.
        """
        try:
            whole = method.apply(self.original, self.task)
            if not whole.changed:
                return [], ["finds no layer that gets cheaper"]
            if limit is not None and macs(whole.network) >= limit:
                return [], ["computes more than the best candidate"]
            work = Counter[str]()
            for layer in layers(self.original):
                work[layer.name] += layer.macs
            dearest = tuple(sorted(whole.changed, key=lambda layer: -work[layer])[:LAYERS_RACED])
            outcome = replace(method, layers=dearest).apply(self.original, self.task)
            with TemporaryDirectory() as folder:
                where = LayerRace(self.base.place, self.bench.threads, Path(folder))
                kept, left = faster(where.ratios(self.original, outcome, self.samples))
        except SlimlineError as reason:  # of what one layer alone cannot do, the search need not end
            return [], [str(reason)]
        return list(kept), [f"{layer} {why}" for layer, why in left.items()]

    def _measured(self, trial: Trial) -> float:
        """The share of the whole network's cost that a file was measured to have."""
        size = trial.size_bytes / self.base.size_bytes
        if self.budget.minimize == "size" or trial.latency_ms is None or self.base.latency_ms is None:
            return size
        return (1 - SIZE_SHARE) * trial.latency_ms / self.base.latency_ms + SIZE_SHARE * size

    def _cost(self, widths: dict[str, int]) -> float:
        """Share of the whole network's cost that is left."""
        whole, costs = self.table.whole, self.table.costs
        size = costs.bytes(widths) / costs.bytes(whole)
        if self.budget.minimize == "size":
            return size
        return (1 - SIZE_SHARE) * self.table.predict_ms(widths) / self.table.predict_ms(whole) + SIZE_SHARE * size

    def _range(self) -> tuple[float, float]:
        """The weakest and the strongest share of the cost to search between.

        The strongest is what an eighth of all channels still costs. Where that is much, because calls outweigh
        arithmetic, the weakest moves up with it, so that mild pruning is tried too.
        """
        floor = self._cost(self.table.narrowed(0.125))
        weakest = max(WEAKEST, floor + LEAST_SPAN * (1 - floor))
        return weakest, min(0.9 * weakest, floor)

    def _time_for(self, what: str, reserve: float, deadline: float) -> bool:
        """Whether something fits before the full recovery; told where it does not."""
        fits = self._decide(what, lambda: float(deadline - self.bench.study.elapsed() > reserve)) > 0
        if not fits:
            self.bench.listener.note(f"No time left for this, so it was not tried: {what}.")
        return fits

    def _finish(self, chosen: Candidate, deadline: float) -> None:
        left = self._decide("full recovery", lambda: deadline - self.bench.study.elapsed() - EXPORT_SECONDS)
        epochs = round(min(LONGEST_FULL, left / chosen.seconds_per_epoch), 2)
        if epochs < LEAST_FULL:
            self.bench.listener.note(f"{chosen.trial.id} is not recovered longer: {max(0, epochs):g} epochs would fit")
            return
        distill = replace(self._distillation(epochs), seed=1)
        full = self._recover(chosen.strength, [*chosen.methods, distill], chosen.network, [distill])
        self.made.append(full)
        if full.drop <= chosen.drop:
            self.bench.drop_trial(chosen.trial, f"carried on as {full.trial.id} with a longer recovery")
        else:
            self.bench.drop_trial(full.trial, f"lost more than {chosen.trial.id}, from which it was recovered")

    def _candidate(self, strength: float, seconds: float, quarter_seconds_per_epoch: float) -> Candidate:
        """Widths for a strength, recovered for about ``seconds``; a step takes time in proportion to the MACs.

        Without batch norm the first steps cost more than they bring, and a few dozen do not win it back: such a network
        is judged as least squares left it. The few norms there are would drift away in training; they are folded.
        """
        whole, costs = self.table.whole, self.table.costs
        widths = allocate(self.table.rows, self._cost, strength, self.table.multiples)
        seconds_per_epoch = self._epoch_seconds(costs.macs(widths), quarter_seconds_per_epoch)
        epochs = max(LEAST_EPOCHS, min(LONGEST_SHORT, seconds / seconds_per_epoch))
        self.bench.listener.note(
            f"keeping {strength:.0%} of the cost: {', '.join(f'{g} {w}/{whole[g]}' for g, w in widths.items())}"
        )
        prune = PruneChannels(
            keep=1.0,
            widths={g: w for g, w in widths.items() if w < whole[g]},
            importance=IMPORTANCE,
            reconstruct=self.reconstruct,
        )
        methods: list[Method] = [FoldBatchNorm(), prune]
        if self.normed:
            methods = [prune, self._distillation(round(epochs, 2))]
        candidate = self._recover(strength, methods, self.original, methods)
        return candidate if self.normed else replace(candidate, seconds_per_epoch=seconds_per_epoch)

    def _better_start(
        self, fitted: Candidate, seconds: float, quarter_seconds_per_epoch: float, deadline: float
    ) -> Candidate:
        """The first candidate again without least squares; what recovers better is the way of those that follow.

        From where least squares leave a network some recover better, others worse (docs/pruning.md has both).
        """
        if not self._time_for("a candidate without least squares", fitted.trial.seconds, deadline):
            return fitted
        self.reconstruct = 0
        plain = self._candidate(fitted.strength, seconds, quarter_seconds_per_epoch)
        ways = {"with": fitted, "without": plain}
        better, worse = sorted(ways, key=lambda way: ways[way].drop)
        self.reconstruct = RECONSTRUCTION_SAMPLES if better == "with" else 0
        self.bench.drop_trial(
            ways[worse].trial,
            f"lost {100 * ways[worse].drop:.2f} points after a short recovery {worse} least squares; "
            f"{ways[better].trial.id} {better} them {100 * ways[better].drop:.2f}",
        )
        return ways[better]

    def _epoch_seconds(self, work: float, quarter_seconds_per_epoch: float) -> float:
        """Seconds per epoch of a network of so many MACs, from those of one at a quarter of every width."""
        quarter = self.table.costs.macs(self.table.narrowed(0.25))
        return quarter_seconds_per_epoch * work / quarter

    def _recover(self, strength: float, methods: list[Method], start: Network, todo: list[Method]) -> Candidate:
        begun = time.monotonic()
        key = [Recipe([*methods, *self.finish]).to_yaml(), self.bench.identity]
        folder = self.bench.training_folder(key)
        stored = self.bench.study.once("recover", key, lambda: self._train(start, todo, folder))
        remove_checkpoint(folder)
        network = self.bench.load(stored["network"])
        adjustment = self._adjustment(network, key)
        recipe, tail = Recipe([*methods, *adjustment, *self.finish]), Recipe([*adjustment, *self.finish])
        trial = self.bench.trial("pruned", recipe, self.base.place, lambda: tail.apply(network, self.task).network)
        self.bench.time([trial])
        trial.seconds = max(trial.seconds, time.monotonic() - begun)  # a resumed run takes none to replay it
        self.bench.study.save_trial(trial)
        self.bench.curves += [(trial, curve) for curve in stored["curves"]]
        return Candidate(strength, methods, network, stored["seconds_per_epoch"], trial)

    def _train(self, network: Network, todo: list[Method], folder: Path) -> dict[str, object]:
        seconds, epochs, curves = 0.0, 1.0, []
        for method in todo:
            name = method.line()
            outcome = method.apply(network, self.task, self._workspace(name, folder))
            network = outcome.network
            network.history.append(name)
            if outcome.curve is not None and isinstance(method, Distill):
                seconds, epochs = outcome.curve.seconds, method.epochs
                curves.append(trained_by(name, outcome.curve, len(self.samples)))
        return {"network": self.bench.keep(network)[0], "seconds_per_epoch": seconds / epochs, "curves": curves}

    def _skewed(self) -> bool:
        output = self.task.output
        if output is None or isinstance(last_layer(self.original, self.task), str):
            return False
        counted = needs_data("Logit adjustment", self.task, self.original).take(slice(0, AdjustLogits.samples))
        shares = class_frequencies(self.original, counted, output)
        return bool(shares.max() >= SKEWED * shares[shares > 0].mean())

    def _adjustment(self, network: Network, key: list[str]) -> list[Method]:
        """The adjustment of the logits with which a network scores best on the search split, if any."""
        if not self.skewed:
            return []

        def choose() -> float:
            scores = scores_by_strength(network, self.task, ADJUSTMENTS)
            return max(ADJUSTMENTS, key=lambda strength: scores[strength])

        strength = float(self.bench.study.once("adjustment of the logits", key, choose))
        return [AdjustLogits(strength=strength)] if strength else []

    def _workspace(self, what: str, folder: Path) -> Workspace:
        """Where a method of this search trains; what it does is told under its name."""
        listener = self.bench.listener
        return Workspace(
            folder, tracker=self.bench.tracker, step=lambda done, total: listener.step(done, total, what),
            note=listener.note,
        )  # fmt: skip

    def _distillation(self, epochs: float) -> Distill:
        """How a pruned network is recovered.

        Without batch norm SGD at a rate that suits networks with it diverges; small steps of AdamW do not, and more of
        them fit into the time.
        """
        output = self.task.output
        plain = Distill(epochs=epochs, views=self.views, precision=self.precision, label_weight=self.label_weight)
        if output is not None and output.shape and output.shape[output.axis - 1] > MANY_CLASSES:
            plain = replace(plain, temperature=1.0)
        return plain if self.normed else replace(plain, optimizer="adamw", learning_rate=ADAMW_RATE, batch=32)

    def _views(self, training_time: float) -> int:
        """How many views the teacher can answer in its share of the time; one at least."""
        if not self.augment:
            return 1
        few = self.samples.take(slice(0, TEACHER_BATCH))
        teacher, inputs = Teacher(self.original, self.precision), few.tensors()
        fastest = math.inf
        for _ in range(TEACHER_PROBES):
            started = time.monotonic()
            teacher.answer(inputs)
            fastest = min(fastest, time.monotonic() - started)
        seconds = fastest * len(self.samples) / len(few)
        return max(1, min(MOST_VIEWS, int(TEACHER_SHARE * training_time / seconds)))

    def _training_speed(self) -> tuple[str, float]:
        """The faster precision of a training step on this machine, and seconds per epoch of a quarter-width network."""
        distill = replace(self._distillation(1.0), views=1)

        def probe() -> list[object]:
            small = PruneChannels(keep=0.25, importance="l1").apply(self.original, self.task).network
            few = self.samples.take(slice(0, distill.batch))
            task = replace(self.task, train=few, original=self.original)
            batches = distill.batches(task, few, Points(), Workspace())
            loss = distill.loss(small, batches, matched_as(self.task))
            speeds = step_speeds(small, batches, loss, distill.plan(batches))
            fastest = min(speeds.values(), key=lambda speed: speed.seconds)
            return [fastest.precision, fastest.seconds]

        precision, seconds = self.bench.study.once("training speed", self.bench.identity, probe)
        return str(precision), float(seconds) * max(1, len(self.samples) // distill.batch)

    def _decide(self, name: str, choose: Callable[[], float]) -> float:
        """A decision that depends on the clock is stored, so that a run resumed with the same time decides the same."""
        inputs = [self.bench.identity, self.budget.time_s]
        return float(self.bench.study.once(f"decision: {name}", inputs, choose))
