"""What pruning each group would cost in quality and save in time, before anything is decided."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from slimline.methods.prune.channels import strongest
from slimline.methods.prune.reconstruct import refit_alone
from slimline.methods.quantize.static import WEIGHTED, QuantizeStatic, layer_name
from slimline.network.axes import AxisGroups, Group, prune
from slimline.network.network import Network, first_floating
from slimline.scores import FirstOutput
from slimline.task import Samples, Task

KEPT_SHARES = (0.75, 0.5, 0.25)
DAMAGE_SAMPLES = 128
LAYER_SAMPLES = 32
"""Calibration samples when layers are only to be ranked."""
Damages = dict[str, float]


@dataclass(frozen=True)
class Option:
    """A width and the damage of pruning only this group to it."""

    width: int
    damage: float
    """Mean divergence from the original's answers on calibration samples: KL in nats for class scores, else relative
    squared error."""


@dataclass(frozen=True)
class Sensitivity:
    """One group's row of the table."""

    group: str
    width: int
    layers: list[str]
    options: list[Option]
    ms_per_channel: float | None = None
    """Milliseconds of latency per channel, measured by halving the group in the target runtime."""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


class Damage:
    """How far the first output of floating-point numbers moves when a network is pruned, on average over samples.

    Args:
        output: what the first output is; without it two axes are taken for (samples, class scores).
    """

    def __init__(self, original: Network, samples: Samples, output: FirstOutput | None = None) -> None:
        several = output is not None and output.positions  # every position is an answer, so fewer samples do
        few = samples.take(slice(0, DAMAGE_SAMPLES // 4 if several else DAMAGE_SAMPLES))
        self.inputs, self.output = few.tensors(), output
        self.before = self._answer(original)

    def __call__(self, pruned: Network) -> float:
        """KL divergence in nats for class scores, relative squared error for anything else."""
        after = self._answer(pruned)
        if not self._classes(after):
            return float(F.mse_loss(after, self.before) / self.before.var().clamp_min(1e-12))
        divergence = F.kl_div(self._log(after), self._log(self.before), reduction="sum", log_target=True)
        axis = self.output.axis if self.output is not None else 1
        return float(divergence / (after.numel() / after.shape[axis]))

    def _answer(self, network: Network) -> Tensor:
        return first_floating(network.run(self.inputs), network.output_names)

    def _classes(self, answer: Tensor) -> bool:
        if self.output is None or self.output.integers:  # then another output is compared
            return answer.ndim == 2
        return self.output.score in ("accuracy", "agreement")

    def _log(self, answer: Tensor) -> Tensor:
        if self.output is not None and self.output.probabilities:
            return answer.clamp_min(torch.finfo(torch.float32).tiny).log()
        return answer.log_softmax(self.output.axis if self.output is not None else 1)


def options(
    network: Network,
    found: AxisGroups,
    group: Group,
    importance: NDArray[np.float64],
    damage: Callable[[Network], float],
    multiple: int,
    moments: Mapping[str, Tensor] = MappingProxyType({}),
) -> list[Option]:
    """Damage at a few widths of one group, widest first; the whole group costs nothing.

    Args:
        moments: of the layers that read the group, which are refitted then.
    """
    step = group.multiple(multiple)
    snapped = {max(1, round(group.width * share / step) * step) for share in KEPT_SHARES}
    table = [Option(group.width, 0.0)]
    for width in sorted((w for w in snapped if w < group.width), reverse=True):
        kept = strongest(importance, width)
        pruned = refit_alone(network, prune(network, found, {group.name: kept}), group, kept, moments)
        table.append(Option(width, max(0.0, damage(pruned))))
    return table


def layer_damage(network: Network, method: QuantizeStatic, task: Task, damage: Callable[[Network], float]) -> Damages:
    """Damage of quantising each layer alone, by layer name; few samples are enough to rank them."""
    names = list(dict.fromkeys(filter(None, map(layer_name, network.module.graph.nodes))))
    ops = tuple(op for op in method.ops if op in WEIGHTED)
    found = {}
    for name in names:
        others = tuple(n for n in names if n != name)
        alone = replace(method, ops=ops, skip=others, samples=LAYER_SAMPLES)
        found[name] = damage(alone.apply(network, task).network)
    return found
