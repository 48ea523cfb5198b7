"""Fills the sensitivity table: damage on calibration samples and milliseconds in the target runtime."""

from collections.abc import Callable
from dataclasses import replace

from slimline.methods.prune.channels import IMPORTANCES, PruneChannels
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.readers import moments_in_turns, read_by, readers
from slimline.methods.recipe import Recipe
from slimline.network.axes import axis_groups
from slimline.network.cost_model import CostModel
from slimline.network.network import Network
from slimline.search.bench import Bench
from slimline.search.latency_model import fit
from slimline.search.sensitivity import Damage, Option, Sensitivity, options
from slimline.search.study import Trial
from slimline.task import Samples, Task

MOST_TIMED_GROUPS = 6
"""Groups whose milliseconds are measured; those of the others follow from the fit."""
IMPORTANCE = "obs"
RECONSTRUCTION_SAMPLES = 256
"""How the search prunes: channels that others can stand in for go, and what read them is refitted."""
PROBE_SAMPLES = 32
"""Calibration samples of a probe, whose answers nobody reads."""

Widths = dict[str, int]


class SensitivityTable:
    """What pruning each group costs and saves, for one network in one runtime."""

    def __init__(self, bench: Bench, original: Network, task: Task, calibrate: Samples, multiple: int) -> None:
        self.bench, self.original, self.task = bench, original, task.with_original(original)
        self.calibrate, self.multiple = calibrate, multiple
        self.found = axis_groups(original)
        self.multiples = {g.name: g.multiple(multiple) for g in self.found.groups}
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
        importance = IMPORTANCES[IMPORTANCE](self.original, groups, self.task)
        damage = Damage(self.original, self.calibrate, self.task.output)
        rows: list[dict[str, object]] = []
        few = self.calibrate.take(slice(0, RECONSTRUCTION_SAMPLES))
        dense = readers(self.original)
        weights = {group.name: read_by(group, dense) for group in groups}
        for turn, moments in moments_in_turns(self.original, weights, few):
            for group in map(self.found.__getitem__, turn):
                ranks = importance[group.name]
                found = options(self.original, self.found, group, ranks, damage, self.multiple, moments)
                rows.append(Sensitivity(group.name, group.width, [], found).as_json())
                self.bench.listener.step(len(rows), len(groups), f"damage of narrowing {group.name}")
        return rows

    def time_groups(self, base: Trial) -> None:
        """Measure narrowed networks in the runtime of ``base``, finished as it was, and fit the latency model.

        The most expensive groups are halved one at a time; a quarter and an eighth of all channels tell what is left
        when arithmetic no longer counts.
        """
        assert base.latency_ms is not None
        whole = self.whole
        halves: list[Widths] = [{group: whole[group] // 2} for group in self._most_expensive()]
        shares: list[Widths] = [self.narrowed(share) for share in (0.25, 0.125)]
        shares = shares if shares[0] != shares[1] else shares[:1]
        methods = Recipe.from_yaml(base.recipe_yaml).methods
        finish = [replace(m, samples=PROBE_SAMPLES) if isinstance(m, QuantizeStatic) else m for m in methods]
        trials = []
        for done, widths in enumerate([*halves, *shares]):
            prune = PruneChannels(keep=1.0, widths=widths, importance="l1")
            recipe = Recipe([prune, *finish])
            trial = self.bench.trial("probe", recipe, base.place, scored=False)
            self.bench.drop_trial(trial, "a probe of milliseconds; not recovered")
            trials.append(trial)
            self.bench.listener.step(done + 1, len(halves) + len(shares), "probes of milliseconds")
        self.bench.time([base, *trials])
        # a narrower network that seems slower than the whole one is noise; one that was refused says nothing
        timed = [
            (widths, min(t.latency_ms, base.latency_ms))
            for widths, t in zip([*halves, *shares], trials, strict=True)
            if t.latency_ms is not None
        ]
        self.predict_ms = fit(self.costs, [(whole, base.latency_ms), *(({**whole, **w}, ms) for w, ms in timed)])
        saved = {}
        for half, ms in timed:
            if half in halves:
                ((group, width),) = half.items()
                saved[group] = (base.latency_ms - ms) / (whole[group] - width)
        self.rows = [replace(row, ms_per_channel=saved.get(row.group)) for row in self.rows]

    def narrowed(self, share: float) -> Widths:
        """A share of every width in multiples that the runtime likes, at least one of them where there is one."""
        return {g.name: g.narrowed(share, self.multiple) for g in self.found.groups}

    def _most_expensive(self) -> list[str]:
        """Groups whose halving saves the most MACs."""
        whole = self.whole
        macs = self.costs.macs(whole)
        saving = {g: macs - self.costs.macs({**whole, g: w // 2}) for g, w in whole.items() if w >= 2}
        return sorted(saving, key=lambda g: -saving[g])[:MOST_TIMED_GROUPS]
