"""Gradual sparsification: zeros grow in number while the network trains, quickly at first.

Zhu, Gupta (2017). To prune, or not to prune: exploring the efficacy of pruning for model compression.
arXiv:1710.01878, equation 1.

    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n Dt))^3        for t in {t_0, t_0 + Dt, ..., t_0 + n Dt}

At every such step t the weights of the lowest scores become zero, so that their share is s_t; between them and after
the last, those zeros stay.

Ours differs: s_i is 0; t_0 and the end are shares of the run, and what ends a run early is followed by the whole s_f.
The network learns from the original (`Distill`). Patterns; of N:M, a part of the zeros that the whole pattern has.
Helps: bytes of a packed file; keeps the score at more zeros than zeroing at once, where the run is long enough.
Does not: help a run so short that the network cannot recover after the last zeros. Nor make a network faster: no dense
runtime is faster for zeros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.methods.hooked import trained, trainer
from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.sparsify.layers import Layer, layers
from slimline.methods.sparsify.patterns import MOST, PATTERNS, Pattern, pattern_of, zeros_of_all
from slimline.methods.sparsify.random_mask import random_scores
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.hook import Hook
from slimline.training.keep_zeros import zero_
from slimline.training.workspace import Workspace


@dataclass(frozen=True)
class Schedule:
    """The equation above."""

    begin: float
    """t_0 as a share of the run."""
    end: float
    """t_0 + n Dt as a share of the run; one that does not lie behind the beginning is the step after it."""
    every: int
    """Dt."""
    final: float
    """s_f."""

    def share(self, step: int, steps: int) -> float:
        """s_t of a run of so many steps, which stays the same between two updates."""
        first = int(self.begin * steps)
        last = max(first + 1, int(self.end * steps))
        if step < first:
            return 0.0
        if step >= last:
            return self.final
        updated = (step - first) // self.every * self.every
        return self.final * (1 - (1 - updated / (last - first)) ** 3)


class GrowingZeros(Hook):
    """Zeros whose number grows as the schedule says.

    Args:
        layers: the weights that may become zero.
        schedule: the cubic's hyperparameters: begin, end, every and the final share.
        drawn: seed of random scores; the magnitudes of the weights decide where there is none.
    """

    def __init__(
        self, layers: Sequence[Layer], pattern: Pattern, scope: str, schedule: Schedule, drawn: int | None = None
    ) -> None:
        self.layers, self.pattern, self.scope, self.schedule, self.drawn = layers, pattern, scope, schedule, drawn
        self.masks: dict[str, Tensor] = {}

    @property
    def identity(self) -> str:
        return f"GrowingZeros {self.layers} {self.pattern} {self.scope} {self.schedule} {self.drawn}"

    def begin(self, network: Network, steps: int) -> Network:
        self.steps, weights = steps, network.weights()
        self.masks = {each.weight: torch.zeros_like(weights[each.weight], dtype=torch.bool) for each in self.layers}
        return network

    def before_step(self, network: Network, step: int) -> None:
        share = self.schedule.share(step, self.steps)
        if share != (self.schedule.share(step - 1, self.steps) if step else 0.0):
            self._grow_(network, share)

    def after_step(self, network: Network, step: int) -> None:
        zero_(network, self.masks)

    def end(self, network: Network) -> Network:
        """Averaged weights, and those of an earlier step, get the zeros of the last one."""
        zero_(network, self.masks)
        self._grow_(network, self.schedule.final)
        return network

    def tensors(self) -> dict[str, Tensor]:
        return self.masks

    def _grow_(self, network: Network, share: float) -> None:
        scores, weights = [self._scores(network, each) for each in self.layers], network.weights()
        together = [scores] if self.scope == "network" else [[each] for each in scores]
        masks = [mask for each in together for mask in zeros_of_all(each, share, self.pattern)]
        for layer, mask in zip(self.layers, masks, strict=True):
            self.masks[layer.weight] = layer.unmatrix(mask, weights[layer.weight])
        zero_(network, self.masks)

    def _scores(self, network: Network, layer: Layer) -> Tensor:
        """Of what is zero already, below all others."""
        magnitudes = layer.stored(network).abs()
        if self.drawn is not None:
            return random_scores(magnitudes.shape, self.drawn, layer.name).to(magnitudes.device)
        return magnitudes.masked_fill(layer.matrix(self.masks[layer.weight]).to(magnitudes.device), -1.0)


@register
@dataclass(frozen=True)
class SparsifyGradually(Method):
    """Zero more and more weights while the network learns from the original."""

    sparsity: float = param(
        0.8, low=0.0, high=MOST, doc="s_f: share of the weights that are zero at the end; N:M says it itself"
    )
    criterion: str = param("magnitude", choices=("magnitude", "random"), doc="which weights become zero")
    scope: str = param("layer", choices=("layer", "network"), doc="the share of each layer, or of all together")
    pattern: str = param("any", choices=PATTERNS, doc="'any', 'N:M' (N of M inputs stay) or blocks 'RxC'")
    begin: float = param(0.0, low=0.0, high=1.0, doc="t_0 as a share of the run")
    end: float = param(0.6, low=0.0, high=1.0, doc="where s_f is reached, as a share of the run")
    every: int = param(10, low=1, high=100000, doc="Dt: steps between two updates")
    epochs: float = param(4.0, low=0.001, high=1000.0, doc="passes over the training samples")
    seed: int = param(0, low=0, doc="order of the samples, and random zeros")
    training: Mapping[str, Any] = param({}, doc="other hyperparameters of Distill, which trains")
    skip: Sequence[str] = param((), doc="layers that are left alone, by name")

    needs = frozenset({"data", "float weights"})
    cites = ("zhu2017prune",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        if self.training.get("patience"):
            raise SlimlineError(
                "SparsifyGradually(training={'patience': ...}) would hand back weights from before they were zero: "
                "leave patience out."
            )
        by, pattern = trainer(self, {"epochs": self.epochs, "seed": self.seed}, self.training), pattern_of(self.pattern)
        found, skipped = layers(network, pattern, self.skip)
        if not found:
            reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
            raise SlimlineError(f"SparsifyGradually found no layer whose weights may become zero ({reasons}).")
        schedule = Schedule(self.begin, self.end, self.every, pattern.share(self.sparsity))
        drawn = self.seed if self.criterion == "random" else None
        outcome = trained(self, by, network, task, workspace, GrowingZeros(found, pattern, self.scope, schedule, drawn))
        told = pattern.without_effect(self.sparsity) | skipped | outcome.skipped
        return replace(outcome, changed=[layer.name for layer in found], skipped=told)
