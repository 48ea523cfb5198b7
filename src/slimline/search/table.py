"""Fills the sensitivity table: damage on calibration samples and milliseconds in the target runtime."""

from collections.abc import Callable
from dataclasses import replace

from slimline.methods.prune.channels import IMPORTANCES, PruneChannels
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network.axes import axis_groups
from slimline.network.network import Network
from slimline.search.bench import Bench
from slimline.search.latency_model import LatencyModel, fit
from slimline.search.sensitivity import CostModel, Option, Sensitivity, options
from slimline.search.study import Trial
from slimline.task import Samples, Task

MOST_TIMED_GROUPS = 6
"""Groups whose milliseconds are measured; those of the others follow from the fit."""
PROBE_SAMPLES = 32
"""Calibration samples of a probe, whose answers nobody reads."""

Widths = dict[str, int]


class SensitivityTable:
    """What pruning each group costs and saves, for one network in one runtime."""

    def __init__(self, bench: Bench, original: Network, task: Task, calibrate: Samples, multiple: int) -> None:
        self.bench, self.original, self.task = bench, original, task.with_original(original)
        self.calibrate, self.multiple = calibrate, multiple
        self.found = axis_groups(original)
        self.costs = CostModel(original, self.found)
        self.rows: list[Sensitivity] = []
        self.predict_ms: Callable[[Widths], float] = self.costs.macs
        """Predicted milliseconds of widths; MACs until `time_groups` has run."""

    @property
    def whole(self) -> Widths:
        return {g.name: g.width for g in self.found.groups}

    def measure_damage(self) -> None:
        """One row per group: how far the answers move when only that group is narrowed."""
        rows = self.bench.study.once("damage", self.bench.identity, self._damage)
        self.rows = [
            Sensitivity(r["group"], r["width"], self.costs.layers_of(r["group"]), [Option(**o) for o in r["options"]])
            for r in rows
        ]

    def _damage(self) -> list[dict[str, object]]:
        groups = self.found.groups
        importance = IMPORTANCES["taylor"](self.original, groups, self.task)
        rows = []
        for done, group in enumerate(groups):
            found = options(self.original, self.found, group, importance[group.name], self.calibrate, self.multiple)
            rows.append(Sensitivity(group.name, group.width, [], found).as_json())
            self.bench.listener.step(done + 1, len(groups), f"damage of narrowing {group.name}")
        return rows

    def time_groups(self, int8: Trial, quantize: QuantizeStatic) -> None:
        """Halve the most expensive groups, one at a time, measure each in the runtime, and fit the latency model."""
        assert int8.latency_ms is not None
        whole = self.whole
        measured: list[tuple[Widths, float]] = []
        halves = self._halves()
        trials = []
        for done, (group, width) in enumerate(halves.items()):
            prune = PruneChannels(keep=1.0, widths={group: width}, importance="l1")
            recipe = Recipe([prune, FoldBatchNorm(), replace(quantize, samples=PROBE_SAMPLES)])
            trial = self.bench.trial("probe", recipe, int8.place, scored=False)
            self.bench.drop_trial(trial, f"a probe of the milliseconds of {group}; not recovered")
            trials.append(trial)
            self.bench.listener.step(done + 1, len(halves), f"milliseconds of {group}")
        if trials:
            self.bench.time([int8, *trials])
        saved = {}
        for trial, (group, width) in zip(trials, halves.items(), strict=True):
            assert trial.latency_ms is not None
            measured.append(({**whole, group: width}, trial.latency_ms))
            saved[group] = (int8.latency_ms - trial.latency_ms) / (whole[group] - width)
        model: LatencyModel = fit(self.costs, [(whole, int8.latency_ms), *measured])
        self.predict_ms = model
        self.rows = [replace(row, ms_per_channel=saved.get(row.group)) for row in self.rows]

    def _halves(self) -> Widths:
        whole = self.whole
        macs = self.costs.macs(whole)
        saving = {g: macs - self.costs.macs({**whole, g: w // 2}) for g, w in whole.items() if w >= 2}
        chosen = sorted(saving, key=lambda g: -saving[g])[:MOST_TIMED_GROUPS]
        return {g: whole[g] // 2 for g in chosen}
