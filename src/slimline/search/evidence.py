"""Puts together what a certificate holds: every number from an exported file, in a fresh process."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimline.measure.latency import Race
from slimline.measure.machine import machine, versions
from slimline.measure.memory import runner_memory
from slimline.measure.statistics import Verdict
from slimline.network.cost import Layer, layers, macs, weight_count
from slimline.network.network import Network
from slimline.search.bench import Bench
from slimline.search.bundle import sha256, write_bundle
from slimline.search.certify import FINAL_RACE, Certified, Certifier
from slimline.search.latency_model import LatencyModel
from slimline.search.layer_race import owner
from slimline.search.study import Trial

if TYPE_CHECKING:
    from slimline.search.optimize import Search

FinalRace = Callable[[Bench, dict[str, Trial], Trial], Race]
FASTER = ("speedup", "speedup_vs_best_original", "speedup_vs_int8_only")


@dataclass(frozen=True)
class Result:
    """What an optimisation hands back."""

    verdict: Verdict
    best: Trial
    path: Path
    """The deployable file."""
    met: bool
    """Whether every other limit of the budget was met too."""
    certificate: dict[str, Any] = field(repr=False)

    @property
    def speedup(self) -> float:
        """Against the original in PyTorch eager."""
        return float(self.certificate["best"]["speedup"])


class Evidence:
    """The evidence of one finished search."""

    def __init__(
        self, search: "Search", finalists: list[Trial], certified: list[Certified], certifier: Certifier
    ) -> None:
        """Take what was found.

        Args:
            finalists: the sequence, of which the first were ``certified``.
        """
        self.search, self.certified, self.certifier = search, certified, certifier
        self.not_read = finalists[len(certified) :]
        passed = [c for c in certified if c.verdict is Verdict.PASS]
        self.best = passed[-1] if passed else certified[0]
        self.original_score = float(certifier.scores.mean())
        self.bench, self.budget = search.bench, search.budget
        self.limits: list[str] = [search.broken] if search.broken else []

    def deliver(self, run_race: FinalRace) -> Result:
        """Race, write ``best/`` and ``front/``, and assemble the certificate."""
        search = self.search
        int8 = self._fastest_int8()
        contestants = {f"original {t.label}": t for t in search.originals}
        if int8 is not None:
            contestants["int8 only"] = int8
        race = run_race(self.bench, contestants, self.best.trial)
        winner = self._winner(race)
        original_ms = {t.label: race.latency(f"original {t.label}").value for t in search.originals}
        fp32 = min(original_ms, key=original_ms.__getitem__)
        rivals = {
            "speedup": f"original {search.originals[0].label}",
            "speedup_vs_best_original": f"original {fp32}",
            "speedup_vs_int8_only": "int8 only" if int8 is not None else None,
        }
        best = self._entry(self.best.trial, self.best)
        best["latency_ms"] = race.latency(winner).value
        best["memory_bytes"] = int(
            runner_memory(self.bench.artifact(self.best.trial), self.bench.search.inputs, self.bench.threads).value
        )
        for name, rival in rivals.items():
            ratio = race.ratio(rival, winner) if rival else None
            best |= _interval(name, ratio)
        noise = race.ratio("best again", "best")
        met = self._check_limits(best)
        self._explain(best)
        self._mark()
        front = self._front(best, fp32)
        verdict, sentence = self.best.verdict if met else Verdict.FAIL, self._sentence(best, fp32, met)
        certificate = {"verdict": str(verdict), "sentence": sentence, **self._facts(original_ms), "best": best}
        certificate |= {"front": front, "noise": {"aa_ratio_low": noise.low, "aa_ratio_high": noise.high}}
        certificate["machine"]["launches"] = noise.n
        path = self._write(best, sentence)
        (search.settings.out / "recipe.yaml").write_text(self.best.trial.recipe_yaml)
        return Result(verdict, self.best.trial, path, met, certificate)

    def _facts(self, original_ms: dict[str, float]) -> dict[str, Any]:
        """What the certificate says apart from the verdict, the best, the front and the noise."""
        search = self.search
        return {
            "limits": self.limits,
            "budget": self.budget.as_json(),
            "seed": search.settings.seed,
            "seconds": round(search.study.elapsed(), 1),
            "trials": len(search.study.trials()),
            "task": {
                "score": search.task.score if isinstance(search.task.score, str) else "custom",
                "labels": search.splits.certify.labels is not None,
                "what": search.task.describe_score(),
            },
            "original": {
                "score": self.original_score,
                "size_bytes": search.originals[0].size_bytes,
                "macs": macs(search.network),
                "parameters": weight_count(search.network),
                "latency_ms": original_ms,
            },
            "splits": {name: len(getattr(search.splits, name)) for name in ("calibrate", "search", "certify")},
            "machine": {**machine(), "threads": self.bench.threads, "batch": FINAL_RACE.batch},
            "versions": versions(),
            "hashes": search.hashes,
            "discarded": [[number(t), t.why] for t in search.study.trials() if t.status == "dropped"],
            "study": [study_row(t) for t in search.study.trials()],
            "layers": layer_changes(self.search.network, self.bench.load(self.best.trial.network)),
            "training": [{"name": f"trial {number(t)}", "trial": number(t), **c} for t, c in self.bench.curves],
            "sensitivity": [row.as_json() for row in search.table.rows] if search.table is not None else [],
        }

    def _winner(self, race: Race) -> str:
        """Label of what is delivered: ``best``, or the original in whichever runtime turned out to be faster.

        The search's short races choose among many and so favour the lucky; the last race is the one that counts.
        """
        if self.budget.minimize != "latency":
            return "best"
        original = min(self.search.originals, key=lambda t: race.latency(f"original {t.label}").value)
        if self.best.trial.id == original.id:
            return f"original {original.label}"  # the same file, which is exactly as fast as itself
        ratio = race.ratio(f"original {original.label}", "best")
        if ratio.value >= 1:
            return "best"
        done = {c.trial.id: c for c in self.certified}
        certified = done.get(original.id) or self.certifier.certify(original, self.budget.max_drop)
        if certified.verdict is not Verdict.PASS:
            return "best"
        self.limits.append(
            f"Trial {number(self.best.trial)} ({self.best.trial.precision} in {self.best.trial.label}) passed but took "
            f"{1 / ratio.value:.2f} times as long as the original in {original.label}: the original is returned."
        )
        self.best = certified
        if original.id not in done:
            self.certified.append(certified)
        return f"original {original.label}"

    def _fastest_int8(self) -> Trial | None:
        timed = [t for t in self.search.int8 if t.latency_ms is not None]
        return min(timed, key=lambda t: t.latency_ms or 0.0) if timed else None

    def _entry(self, trial: Trial, certified: Certified | None) -> dict[str, Any]:
        """A trial as the certificate lists it; what was not certified is null."""
        artifact = self.search.settings.out / trial.artifact
        return {
            "trial": number(trial),
            "runtime": trial.label,
            "precision": trial.precision,
            "recipe": trial.recipe,
            "artifact": trial.artifact,
            "sha256": sha256(artifact),
            "score": certified.score if certified else None,
            "drop": certified.drop.drop if certified else None,
            "drop_upper": certified.drop.upper if certified else None,
            "drop_lower": certified.drop.lower if certified else None,
            "size_bytes": trial.size_bytes,
            "size_ratio": self.search.originals[0].size_bytes / trial.size_bytes,
            "macs": trial.macs,
            "parameters": trial.parameters,
            "memory_bytes": None,
            "latency_ms": trial.latency_ms,
            **{f"{name}{end}": None for name in FASTER for end in ("", "_low", "_high")},
        }

    def _check_limits(self, best: dict[str, Any]) -> bool:
        budget, missed = self.budget, []
        if budget.max_latency_ms is not None and best["latency_ms"] > budget.max_latency_ms:
            missed.append(
                f"The best latency is {best['latency_ms']:.3f} ms, above the {budget.max_latency_ms:g} ms asked for."
            )
        if budget.max_size_bytes is not None and best["size_bytes"] > budget.max_size_bytes:
            missed.append(
                f"The smallest file is {best['size_bytes']} bytes, above the {budget.max_size_bytes:.0f} asked for."
            )
        if budget.min_speedup is not None and best["speedup_vs_best_original_low"] < budget.min_speedup:
            missed.append(
                f"The speed-up against the original in its best runtime is "
                f"{best['speedup_vs_best_original']:.2f} (95 % interval from "
                f"{best['speedup_vs_best_original_low']:.2f}), not surely the {budget.min_speedup:g} asked for."
            )
        self.limits += missed
        return not missed

    def _explain(self, best: dict[str, Any]) -> None:
        """Why it is not faster: finalists that did not pass, and what binds in the runtime."""
        for certified in self.certified:
            if certified.verdict is not Verdict.PASS:
                more = f"; about {certified.needed} certify samples would decide" if certified.needed else ""
                self.limits.append(
                    f"Trial {number(certified.trial)} ({certified.trial.latency_ms:.3f} ms in "
                    f"{certified.trial.label}) did not pass: {certified.verdict}, "
                    f"drop {100 * certified.drop.drop:.2f} points, at most {100 * certified.drop.upper:.2f} with "
                    f"95 % confidence on "
                    f"{certified.drop.n} samples{more}."
                )
        read = {c.trial.id for c in self.certified}
        for trial in (t for t in self.not_read if t.id not in read):
            self.limits.append(
                f"Trial {number(trial)} ({trial.latency_ms:.3f} ms in {trial.label}) was not certified: the sequence "
                "ends at the first that does not pass."
            )
        model = self.search.table.predict_ms if self.search.table is not None else None
        if isinstance(model, LatencyModel) and best["macs"] < self.search.originals[0].macs:
            self.limits.append(
                f"What binds now: about {model.overhead_ms:.3f} ms of a call do not depend on the widths (fit over "
                f"this study's probes in {best['runtime']}); narrower layers cannot remove that part."
            )

    def _mark(self) -> None:
        now = {c.trial.id for c in self.certified}
        for trial in self.bench.study.trials():
            if trial.status in ("best", "finalist") and trial.id not in now:  # of a search that was resumed
                trial.status = "original" if trial.stage == "original" else "kept"
                self.bench.study.save_trial(trial)
        for certified in self.certified:
            trial = certified.trial
            trial.status = (
                "best" if trial.id == self.best.trial.id else "finalist" if trial.status != "original" else trial.status
            )
            if certified.verdict is not Verdict.PASS:
                trial.why = f"certified: {certified.verdict}"
            self.bench.study.save_trial(trial)

    def _front(self, best: dict[str, Any], fp32: str) -> list[dict[str, Any]]:
        """Trials that no other beats on latency, score and size at once; copied to ``front/``.

        The speed of the best comes from the last race, like all that is said of it; that of the others from the races
        of the search, whose times are compared through the anchor.

        Args:
            fp32: where the original is fastest.
        """
        usable = [t for t in self.bench.study.trials() if t.stage != "probe" and None not in (t.latency_ms, t.score)]
        kept = [t for t in usable if not any(_beats(other, t) for other in usable)]
        folder = self.search.settings.out / "front"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        by_id = {c.trial.id: c for c in self.certified}
        searched_ms = {t.label: t.latency_ms for t in self.search.originals}
        rivals = {"speedup_vs_best_original": fp32, "speedup": self.search.originals[0].label}
        entries = []
        for trial in sorted(kept, key=lambda t: t.latency_ms or 0.0):
            source, *sidecar = self.bench.artifact(trial).files
            shutil.copy2(source, folder / f"{trial.id}-{trial.label}{source.suffix}")
            for weights in sidecar:  # the file knows them by this name
                shutil.copy2(weights, folder / weights.name)
            entry = self._entry(trial, by_id.get(trial.id))
            for name, label in rivals.items():
                same = trial.id == self.best.trial.id
                entry[name] = best[name] if same else (searched_ms[label] or 0.0) / (trial.latency_ms or 1.0)
            entries.append(entry)
        return entries

    def _sentence(self, best: dict[str, Any], fp32: str, met: bool) -> str:
        drop = self.best.drop
        gain = (
            f"{best['speedup_vs_best_original']:.1f} times faster than the original in its best runtime ({fp32}, "
            f"fp32) and "
            f"{best['size_ratio']:.1f} times smaller"
        )
        loss = (
            f"it loses {100 * drop.drop:.2f} points of {self.search.task.describe_score()}, at most "
            f"{100 * drop.upper:.2f} with 95 % confidence "
            f"on {drop.n} samples that the search never read"
        )
        allowed = f"{100 * self.budget.max_drop:g} point{'' if self.budget.max_drop == 0.01 else 's'} allowed"
        if self.best.verdict is Verdict.CANT_TELL:
            need = f"; about {self.best.needed} samples would decide" if self.best.needed else ""
            return f"CAN'T TELL: {gain}, but {loss}; {allowed}{need}."
        if not met:
            return f"FAIL: a limit of the budget was not met. The best found is {gain}; {loss}; {allowed}."
        return f"{self.best.verdict}: {gain}; {loss}; {allowed}."

    def _write(self, best: dict[str, Any], sentence: str) -> Path:
        trial = self.best.trial
        lines = "\n".join(f"- `{line}`" for line in trial.recipe) or "- nothing: the original network"
        card = (
            f"# {trial.precision} for {trial.label}\n\n{sentence}\n\nRecipe:\n\n{lines}\n\n"
            f"{best['size_bytes']} bytes, {best['macs']} MACs, {best['latency_ms']:.4f} ms per call of batch "
            f"{FINAL_RACE.batch} on "
            f"{machine()['cpu']} with {self.bench.threads} threads. Evidence: certificate.json, report.html.\n"
        )
        return write_bundle(self.search.settings.out / "best", self.search.settings.out / trial.artifact, trial, card)


def number(trial: Trial) -> int:
    """Trials are numbered from 1."""
    return int(trial.id[1:])


def study_row(trial: Trial) -> dict[str, Any]:
    """A trial as the certificate's ``study`` lists it."""
    return {
        "trial": number(trial),
        "runtime": trial.label,
        "why": trial.why or None,
        **{
            k: getattr(trial, k)
            for k in ("stage", "precision", "recipe", "score", "drop", "latency_ms", "size_bytes", "macs", "status")
        },
        "seconds": round(trial.seconds, 2),
    }


def _interval(name: str, ratio: Any) -> dict[str, float | None]:
    if ratio is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}


def _beats(a: Trial, b: Trial) -> bool:
    """No worse on latency, score and size, and better on one."""
    left = (a.latency_ms or 0.0, -(a.score or 0.0), a.size_bytes)
    right = (b.latency_ms or 0.0, -(b.score or 0.0), b.size_bytes)
    return left != right and all(x <= y for x, y in zip(left, right, strict=True))


def layer_changes(original: Network, small: Network) -> list[dict[str, Any]]:
    """Every layer of a network beside what another made of it; what was split is counted together."""
    before, after = layers(original), layers(small)
    weighted = list(dict.fromkeys(layer.name for layer in before if layer.weight_shape))
    alike: dict[str, list[Layer]] = {}
    parts: dict[str, list[Layer]] = {}
    for layer in after:
        name = _plain_name(layer.name)
        alike.setdefault(name, []).append(layer)
        if layer.weight_shape and name not in weighted:
            parts.setdefault(owner(name, weighted), []).append(layer)
    rows = []
    for layer in before:
        calls = alike.get(layer.name, [])  # of a layer that is called several times, one for each call
        twin = (calls.pop(0) if len(calls) > 1 else calls[0]) if calls else None
        twins = [twin] if twin else parts.get(layer.name, [])
        note = f"{len(twins)} layers in its place" if twins else None
        if twin:
            note = _format(small, twin) if twin.weight_shape else None
        rows.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "shape_before": list(layer.weight_shape),
                "shape_after": list(twin.weight_shape) if twin else None,
                "macs_before": layer.macs,
                "macs_after": sum(t.macs for t in twins) if twins else None,
                "bytes_before": layer.bytes,
                "bytes_after": sum(t.bytes for t in twins) if twins else None,
                "note": note,
            }
        )
    return rows


def _plain_name(name: str) -> str:
    return name.removesuffix(".weight_quantized").removesuffix(".weight")


def _format(network: Network, layer: Layer) -> str:
    """The number format in which a layer's weight is stored; one that is made of several is ``computed``."""
    weights = network.weights()
    names = (f"{layer.name}.weight", f"{layer.name}.weight_quantized", layer.name)
    stored = next((weights[name] for name in names if name in weights), None)
    return "computed" if stored is None else str(stored.dtype).removeprefix("torch.")
