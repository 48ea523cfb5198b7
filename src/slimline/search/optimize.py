"""The main job: originals, free moves, int8, storage, sensitivity, strength, certification."""

import hashlib
import json
import time as clock
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from slimline.errors import SlimlineError
from slimline.measure.machine import usable_cores
from slimline.methods.distill.own_student import fitted
from slimline.methods.method import Method
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.quantize.static import QuantizeStatic, op_name
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.methods.simplify.simplify import Simplify
from slimline.network import container
from slimline.network.network import Network
from slimline.runtimes.registry import available_runtimes, get_runtime
from slimline.search.bench import Bench, require_writable
from slimline.search.budget import SECONDS, Budget, parse_quantity
from slimline.search.bundle import sha256
from slimline.search.certify import Certified, Certifier, final_race, sequence
from slimline.search.evidence import Evidence, Result
from slimline.search.listener import Listener, Silent
from slimline.search.sensitivity import Damage, layer_damage
from slimline.search.storage import smaller
from slimline.search.strength import StrengthSearch
from slimline.search.study import Study, Trial
from slimline.search.table import SensitivityTable
from slimline.sources.source import Job, read_source
from slimline.task import FileArrays, Splits, Task, data_digest
from slimline.training.engine import check_tracker, processes
from slimline.training.private import with_training_samples
from slimline.training.workspace import Workspace

CERTIFY_SECONDS, CERTIFY_SHARE = 110.0, 0.25
"""Set aside at the end of the search for the certify split and the final race: at most so long, at most this share."""
OBSERVERS = ("percentile", "minmax")
SAME_SCORE_SHARE = 0.2
"""Calibrations whose scores differ by less than this share of the budget count as equally good."""
SKIPPED_SHARES = (1 / 6, 1 / 3, 1 / 2)
"""Shares of the layers that stay in floating point where integers everywhere lose too much."""
SIMILAR_DROP = 1.5
"""Losses up to this many times the least count as alike when a calibration and runtime is chosen for that."""
REFERENCE = "torch"


@dataclass(frozen=True)
class Settings:
    """How to search, apart from the budget."""

    out: Path
    runtimes: tuple[str, ...] = ()
    seed: int = 0
    resume: bool = False
    allow_code: bool = False
    """Let the code in a Keras file's Lambda layers run."""
    tracker: str = ""
    """A tracker that Accelerate knows by this name, such as ``tensorboard``; training reports to it."""

    def __post_init__(self) -> None:
        check_tracker(self.tracker, self.out)
        if self.seed < 0:
            raise SlimlineError(f"The seed {self.seed} cannot be used: give a whole number, 0 or more.")


def optimize(
    model: nn.Module | Network | Path | str,
    task: Task | None = None,
    budget: Budget | None = None,
    time: str | None = None,
    out: Path | str = "runs/optimize",
    settings: Settings | None = None,
    listener: Listener | None = None,
) -> Result:
    """Find the fastest or smallest version of a network inside a budget.

    Args:
        model: a torch or Keras model, a network, or the path of a model file or folder or a `JOB.py`.
        task: the data and the score; a `JOB.py` with a task() brings its own.
        time: length of the search, such as ``10m``; overrides the budget's.
        out: folder for the results; ``settings.out`` when settings are given.

    Raises:
        SlimlineError: the input cannot be used; one sentence.
    """
    if processes()[1] > 1:
        raise SlimlineError(
            "A search measures and cannot share its machine: run `slimline optimize` in one process, and "
            "`slimline apply` with torchrun or accelerate launch to train a recipe on many."
        )
    chosen = settings or Settings(Path(out))
    require_writable(chosen.out)
    job = read_source(model, task, allow_code=chosen.allow_code)
    if job.task is None:
        raise SlimlineError(f"{model} comes without a task: pass task=, or give a JOB.py with task().")
    limits = budget or Budget()
    if time is not None:
        limits = Budget(**{**limits.as_json(), "time_s": parse_quantity(time, SECONDS, "time", "10m")})
    search = Search(job, limits, chosen, listener or Silent())
    if isinstance(model, (str, Path)):
        search.study.set_fact("source", str(Path(model).resolve()))
    if task is not None and isinstance(task.validate, FileArrays):
        search.study.set_fact("data", str(Path(task.validate.path).resolve()))
        search.study.set_fact("synthetic", task.wants_synthetic)
    try:
        return search.run()
    finally:
        search.study.close()


class Search:
    """One optimisation; `run` walks its stages."""

    def __init__(self, job: Job, budget: Budget, settings: Settings, listener: Listener) -> None:
        assert job.task is not None
        began = clock.monotonic()
        network = job.network
        self.network, self.budget, self.settings, self.listener = network, budget, settings, listener
        torch.manual_seed(settings.seed)
        self.threads = usable_cores()
        torch.set_num_threads(self.threads)
        self.runtimes = self._runtimes(settings.runtimes)
        task, of_network = job.task.read(network.input_names), _hash(network)
        Study.check(settings.out / "study.sqlite", {"network": of_network}, settings.resume)
        self.task = self._with_samples(task)
        self.splits: Splits = self.task.splits(settings.seed)
        self._check_score()
        self.hashes = {
            "network": of_network,
            "data": data_digest(self.task, self.splits),
        }
        budget_but_time = {k: v for k, v in budget.as_json().items() if k != "time_s"}
        identity = {
            **self.hashes,
            **budget_but_time,
            "score": self.task.describe_score(),
            "augment": list(self.task.augment),
            "student": "" if self.task.student is None else fitted(self.task.student, network).digest(),
            "seed": settings.seed,
            "runtimes": list(self.runtimes),
        }
        self.study = Study(settings.out / "study.sqlite", identity, settings.resume)
        container.save(network, settings.out / "original.slim")  # not before: another study may be there
        self.study.started = began  # synthetic samples take minutes, which count
        self.training_task = Task(
            validate=self.splits.search, score=self.task.score, train=self.splits.train, augment=self.task.augment,
            output=self.task.output, student=self.task.student, synthetic=self.task.synthetic,
        )  # fmt: skip
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.bench = Bench(
            folder=settings.out,
            original=network,
            training_task=self.training_task,
            task=self.task,
            search=self.splits.search,
            study=self.study,
            threads=self.threads,
            listener=listener,
            identity=digest,
            given=job.file,
            tracker=settings.tracker,
        )
        self.originals: list[Trial] = []
        self.free: list[Trial] = []
        self.int8: list[Trial] = []
        self.stored: list[Trial] = []
        self.table: SensitivityTable | None = None
        self.broken = ""
        """Why a stage ended before its time."""

    def run(self) -> Result:
        """Every stage in turn; Ctrl-C and the end of the time lead to certification of what there is."""
        self._originals()
        try:
            self._free_moves()
            self._int8()
            self._storage()
            self._pruned_and_students()
        except KeyboardInterrupt:
            if not self.originals or self.originals[0].latency_ms is None:
                raise
            self.listener.note("Stopped by Ctrl-C: certifying the best so far (Ctrl-C again gives up).")
        return self._certify()

    def _pruned_and_students(self) -> None:
        """The last stage before certification; what cannot be mended here does not cost what was found before."""
        try:
            self._strength()
        except SlimlineError as reason:
            self.broken = f"The search for less work ended early: {reason}"
            self.listener.note(self.broken)

    def _runtimes(self, wanted: Sequence[str]) -> tuple[str, ...]:
        usable, missing = available_runtimes()
        for name in wanted:
            get_runtime(name)
            if name in missing:
                raise SlimlineError(f"The runtime {name} cannot be used here: {missing[name]}")
        for name, reason in missing.items():
            self.listener.note(f"without {name}: {reason}")
        chosen = [r.name for r in usable if r.name != REFERENCE and (not wanted or r.name in wanted)]
        if not chosen:
            raise SlimlineError(
                f"There is no runtime to search in: {REFERENCE} is what the others are compared with. Choose "
                f"{' or '.join(r.name for r in usable if r.name != REFERENCE) or 'one, after installing it'}."
            )
        return (REFERENCE, *chosen)

    def _with_samples(self, task: Task) -> Task:
        """The task with training samples; those made from the network are stored in the run's folder."""
        if not task.wants_synthetic:
            return task
        self.listener.stage("Synthetic training samples, made from the network itself")
        listener = self.listener
        workspace = Workspace(
            self.settings.out, step=lambda done, total: listener.step(done, total, "synthesis"), note=listener.note
        )
        return with_training_samples(task, self.network, self.settings.seed, workspace)

    def _check_score(self) -> None:
        """Fail in the first second, not after ten minutes, when outputs and labels do not match."""
        few = self.splits.search.take(slice(0, 8))
        outputs = [o.numpy() for o in self.network.run(few.tensors())]
        self.task.per_sample(outputs, few, outputs)

    def _originals(self) -> None:
        self.listener.stage("The original in every runtime")
        for runtime in self.runtimes:
            trial = self.bench.trial("original", Recipe(), (runtime, ""))
            if not trial.refused:
                trial.status = "original"
                self.originals.append(trial)
        self.bench.restore_reference(self.originals[0])
        self.bench.time(self.originals)
        self.originals = [t for t in self.originals if not t.refused]
        self.runtimes = tuple(t.runtime for t in self.originals)
        refusals = [t.why for t in self.study.trials() if t.refused]
        if refusals and self.runtimes == (REFERENCE,):
            raise SlimlineError(f"No runtime can run the network as it is: {' '.join(refusals)}")
        self.bench.anchor = min(self.originals, key=_ms)

    def _free_moves(self) -> None:
        self.listener.stage("Free moves: exact simplification and runtime settings")
        exact = Recipe([Simplify()])
        places = [(r, v) for r in self.runtimes if r != REFERENCE for v in get_runtime(r).offered_variants()]
        self.free = self._raced([self.bench.trial("free", exact, place) for place in places])

    def _int8(self) -> None:
        self.listener.stage("8-bit integers")
        everywhere = []
        for observer in OBSERVERS:
            if not self._time_for(f"integers with ranges by {observer}"):
                break
            for runtime in self.runtimes:
                if runtime == REFERENCE:
                    continue
                facts = get_runtime(runtime).facts
                method = QuantizeStatic(
                    observer=observer,
                    ops=tuple(sorted(facts.quantized_ops)),
                    absorbed=tuple(sorted(facts.absorbed_ops)),
                    activation=facts.activation,
                    weight=facts.weight,
                )
                recipe = Recipe([Simplify(), method])
                places = [(runtime, variant) for variant in get_runtime(runtime).offered_variants()]
                everywhere += [self.bench.trial("int8", recipe, place) for place in places]
        self.int8 += self._raced(everywhere)
        if self._time_for("integers without the operators that a runtime is faster without"):
            self._int8_spared()
        lost = self.int8 and all((t.drop or 0.0) > self.budget.max_drop for t in self.int8)
        if lost and self._time_for("integers without the layers that lose most"):
            self._int8_partly()

    def _int8_spared(self) -> None:
        """The best calibration of a runtime once more, without the operators that the runtime may be faster without."""
        spared = []
        for runtime in self.runtimes:
            ops = get_runtime(runtime).facts.spared_ops & {op_name(n) for n in self.network.module.graph.nodes}
            trials = [t for t in self.int8 if t.runtime == runtime]
            if not ops or not trials:
                continue
            base = self._fastest_of_the_safest(trials)
            *before, method = Recipe.from_yaml(base.recipe_yaml).methods
            assert isinstance(method, QuantizeStatic)
            without = replace(method, ops=tuple(op for op in method.ops if op not in ops))
            spared.append(self.bench.trial("int8", Recipe([*before, without]), base.place))
        self.int8 += self._raced(spared)

    def _fastest_of_the_safest(self, trials: Sequence[Trial]) -> Trial:
        """The fastest of those whose loss is about the least."""
        least = min(t.drop or 0.0 for t in trials)
        most = max(SIMILAR_DROP * least, least + SAME_SCORE_SHARE * self.budget.max_drop)
        return min((t for t in trials if (t.drop or 0.0) <= most), key=_ms)

    def _int8_partly(self) -> None:
        """When integers everywhere lose too much: the layers that lose most stay in floating point."""
        self.listener.stage("8-bit integers, but for the layers that lose most")
        if not self._comparable("no layer can be said to lose most"):
            return
        base = self._fastest_of_the_safest(self.int8)
        *_, method = Recipe.from_yaml(base.recipe_yaml).methods
        assert isinstance(method, QuantizeStatic)
        # `Simplify` might merge a layer of a narrower network away that is named here
        before: list[Method] = [FoldBatchNorm()]

        def rank() -> list[str]:
            folded = Recipe(before).apply(self.network, self.training_task).network
            damage = Damage(folded, self.splits.calibrate, self.task.output)
            found = layer_damage(folded, method, self.training_task, damage)
            return sorted(found, key=lambda name: -found[name])

        ranked = self.study.once("layer damage", [base.recipe_yaml, self.bench.identity], rank)
        partly = []
        for count in sorted({max(1, round(share * len(ranked))) for share in SKIPPED_SHARES}):
            skipped = replace(method, skip=tuple(sorted(ranked[:count])))
            partly.append(self.bench.trial("int8", Recipe([*before, skipped]), base.place))
        self.int8 += self._raced(partly)

    def _storage(self) -> None:
        """Fewer bytes for the same layers, where bytes are what counts: from the smallest file of either precision."""
        if self.budget.minimize != "size":
            return
        self.listener.stage("Codebooks and smaller tables")
        safe = [t for t in self.int8 if (t.drop or 0.0) <= self.budget.max_drop]
        for trials in (self.free, safe):
            base = min(trials, key=lambda t: t.size_bytes, default=None)
            if base is None or not self._time_for(f"codebooks and smaller tables beside {base.precision}"):
                continue
            recipes = smaller(self.network, Recipe.from_yaml(base.recipe_yaml), self.training_task)
            self.stored += self._raced([self.bench.trial("storage", recipe, base.place) for recipe in recipes])

    def _raced(self, trials: list[Trial]) -> list[Trial]:
        """Time the trials; those that their runtime can run."""
        self.bench.time(trials)
        running = [t for t in trials if not t.refused]
        for trial in running:
            if (trial.drop or 0.0) > self.budget.max_drop:
                self.bench.drop_trial(trial, f"lost {100 * (trial.drop or 0.0):.2f} points on the search split")
        return running

    @property
    def _deadline(self) -> float:
        """Seconds of search at which certification has to begin."""
        return self.budget.time_s - min(CERTIFY_SECONDS, CERTIFY_SHARE * self.budget.time_s)

    def _time_for(self, stage: str) -> bool:
        """Whether time is left to begin a stage; stored, so that a resumed run decides the same."""
        inputs = [stage, self.budget.time_s, self.bench.identity]
        left = bool(self.study.once("decision: time for", inputs, lambda: self.study.elapsed() < self._deadline))
        if not left:
            self.listener.note(f"The time is over, so this was not tried: {stage}. Give --time more for it.")
        return left

    def _strength(self) -> None:
        if not self.free or not self._time_for("pruning"):
            return
        self.listener.stage("How sensitive each group of channels is")
        if not self._comparable("nothing can be pruned and recovered"):
            return
        target = self._target()
        facts = get_runtime(target.runtime).facts
        self.table = SensitivityTable(
            self.bench, self.network, self.training_task, self.splits.calibrate, facts.channel_multiple
        )
        if self.table.found.groups:
            self.table.measure_damage()
            self.table.time_groups(target)
            self.listener.stage("The strongest pruning inside the budget")
        else:
            self.listener.note("No group of channels can be pruned; see `slimline inspect` for the reasons.")
            self.listener.stage("Compact students")
        StrengthSearch(self.bench, self.table, target, self.budget).run(self._deadline)

    def _comparable(self, else_what: str) -> bool:
        """Whether there is an output by which two networks can be compared; told where there is none."""
        floating = any(output.is_floating_point() for output in self.network.run(self.network.examples))
        if not floating:
            self.listener.note(f"No output holds floating-point numbers, so {else_what}.")
        return floating

    def _target(self) -> Trial:
        """The trial whose runtime, variant and calibration the pruned networks use.

        Of the int8 trials that hold the score and the fastest float trial inside the budget, the one whose runtime is
        fastest on a network of a quarter of the channels: the fastest runtime of a wide network need not be the fastest
        of a narrow one, where calls outweigh arithmetic, and a runtime that lacks an integer kernel may be faster in
        bf16.
        """
        best_drop = min([t.drop or 0.0 for t in self.int8], default=0.0)
        close = [t for t in self.int8 if (t.drop or 0.0) <= best_drop + SAME_SCORE_SHARE * self.budget.max_drop]
        close = list({_speed_key(t): t for t in sorted(close, key=lambda t: -(t.drop or 0.0))}.values())
        close += sorted((t for t in self.free if (t.drop or 0.0) <= self.budget.max_drop), key=_ms)[:1]
        if self.budget.minimize == "size":
            close += [t for t in self.stored if (t.drop or 0.0) <= self.budget.max_drop]
            return min(close, key=lambda t: t.size_bytes)
        narrow = PruneChannels(keep=0.25, importance="l1")
        probes = {
            t.id: self.bench.trial(
                "probe", Recipe([narrow, *Recipe.from_yaml(t.recipe_yaml).methods]), t.place, scored=False
            )
            for t in close
        }
        self.bench.time(list(probes.values()))
        for probe in probes.values():
            self.bench.drop_trial(probe, "a probe of the runtime's speed on a narrow network; not recovered")
        return min(close, key=lambda t: _ms(probes[t.id]))

    def _certify(self) -> Result:
        self.listener.stage("Certification on data the search never read")
        splits = self.splits
        chain = sequence(
            self.study.trials(), self.budget.max_drop, self.budget.minimize, len(splits.search), len(splits.certify)
        )
        certifier = Certifier(self.bench, self.originals[0], self.splits.certify)
        certified: list[Certified] = certifier.in_sequence(chain, self.budget.max_drop)
        return Evidence(self, chain, certified, certifier).deliver(final_race)


def _hash(network: Network) -> str:
    """Of the file that the network makes."""
    with TemporaryDirectory() as folder:
        return sha256(container.save(network, Path(folder) / "original.slim"))


def _speed_key(trial: Trial) -> tuple[str, str, str]:
    """What the speed of a trial depends on: its recipe but for the calibration, and where it runs."""
    methods = Recipe.from_yaml(trial.recipe_yaml).methods
    alike = [replace(m, observer=OBSERVERS[0]) if isinstance(m, QuantizeStatic) else m for m in methods]
    return (Recipe(alike).to_yaml(), *trial.place)


def _ms(trial: Trial) -> float:
    return trial.latency_ms if trial.latency_ms is not None else float("inf")
