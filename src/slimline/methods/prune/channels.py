"""Structured channel pruning over axis groups: remove the least important channels of every group.

Li, Kadav, Durdanovic, Samet, Graf (2017). Pruning Filters for Efficient ConvNets. arXiv:1608.08710, section 3.
Coupled layers as in Fang et al. (2023), DepGraph, arXiv:2301.12900.

    keep the width_g channels of group g with the largest importance; every slice of the others is cut out

Ours differs: groups come from ids carried along the graph (`slimline.network.axes`), so additions, padding,
concatenation, flattening and depthwise convolutions are covered by one mechanism; the importance is a choice.
Helps: latency and size in every runtime, where layers are large nearly in proportion to the multiply-adds; where they
are small, much less (docs/pruning.md).  Does not: without recovery the score falls quickly.
Least squares (`reconstruct`) keep much of the score where no training follows. Where one does, they help networks that
lose little and can hurt those that lose much (benchmarks/results/structure_fashion.json, structure_cifar.json).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, needs_data, param, register
from slimline.methods.prune.activation import activation_importance
from slimline.methods.prune.batch_norm_scale import scale_importance
from slimline.methods.prune.fpgm import fpgm_importance
from slimline.methods.prune.l1 import l1_importance
from slimline.methods.prune.l2 import l2_importance
from slimline.methods.prune.obs import obs_importance
from slimline.methods.prune.random import random_importance
from slimline.methods.prune.reconstruct import reconstruct
from slimline.methods.prune.synflow import synflow_importance
from slimline.methods.prune.taylor import taylor_importance
from slimline.methods.prune.widths import (
    Cost,
    Shares,
    Widths,
    filled,
    gains_of,
    global_shares,
    snapped,
    strength_within,
    uniform_shares,
)
from slimline.methods.visits import fitting
from slimline.network.axes import AxisGroups, Group, axis_groups, prune
from slimline.network.cost_model import CostModel
from slimline.network.network import Network
from slimline.network.residual import stream_groups
from slimline.task import Task
from slimline.training.workspace import Workspace

Importance = Callable[[Network, list[Group], Task | None], dict[str, NDArray[np.float64]]]
IMPORTANCES: dict[str, Importance] = {
    "l1": l1_importance,
    "l2": l2_importance,
    "fpgm": fpgm_importance,
    "batch_norm_scale": scale_importance,
    "activation": activation_importance,
    "synflow": synflow_importance,
    "taylor": taylor_importance,
    "obs": obs_importance,
    "random": random_importance,
}
WITHOUT_DATA = frozenset({"l1", "l2", "fpgm", "synflow", "random"})
"""Importances that no sample decides."""


def strongest(importance: NDArray[np.float64], width: int) -> NDArray[np.int64]:
    """Indices of the ``width`` most important channels, in their old order; ties go to the lower index."""
    return np.sort(np.argsort(-importance, kind="stable")[:width])


@register
@dataclass(frozen=True)
class PruneChannels(Method):
    """Cut out channels; the result is an ordinary smaller network."""

    keep: float = param(0.5, low=0.001, high=1.0, doc="share that is kept of what `of` says")
    of: str = param("channels", choices=("channels", "macs", "parameters"), doc="what keep is a share of")
    allocation: str = param(
        "uniform", choices=("uniform", "global"), doc="the same share of every group, or the most important of all"
    )
    streams: str = param(
        "prune", choices=("prune", "keep"), doc="whether the channels that residual blocks add to go too"
    )
    widths: Mapping[str, int] = param({}, doc="channels kept, by group name, whatever keep says")
    importance: str = param("taylor", choices=tuple(IMPORTANCES), doc="how channels are ranked")
    multiple: int = param(8, low=1, high=64, doc="kept positions are multiples of this, as runtimes like them")
    reconstruct: int = param(
        0, low=0, high=100000, doc="samples from which dense layers are refitted to the original's sums; 0 for none"
    )

    needs = frozenset({"float weights"})
    cites = ("li2017pruning", "fang2023depgraph")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        found = axis_groups(network)
        self.check_widths(found)
        given = self.given_widths(network, found)
        free = [g for g in found.groups if g.name not in given]
        ranks = {} if self.allocation == "uniform" else IMPORTANCES[self.importance](network, free, task)
        cost = self.cost(network, found)
        widths = {**self.chosen_widths(free, given, cost, ranks), **given}
        smaller = [g for g in found.groups if widths[g.name] < g.width]
        ranks |= IMPORTANCES[self.importance](network, [g for g in smaller if g.name not in ranks], task)
        kept = {g.name: strongest(ranks[g.name], widths[g.name]) for g in smaller}
        skipped = {f"{weight} axis {axis}": reason for (weight, axis), reason in found.frozen.items()}
        if self.of != "channels" and (left := cost(widths) / cost({})) > self.keep:
            skipped[self.of] = (
                f"{left:.1%} are left instead of {self.keep:.1%}: the rest cannot be pruned with these widths, "
                f"streams and multiples"
            )
        if not kept and found.groups and self.keep < 1:
            skipped["channels"] = (
                f"every group keeps all its channels with keep={self.keep:g}, streams={self.streams}, "
                f"multiple={self.multiple} and these widths"
            )
        result = prune(network, found, kept) if kept else network.copy()
        if kept and self.reconstruct:
            wanted = needs_data("Reconstruction", task, network).take(slice(0, self.reconstruct))
            samples, told = fitting(network, wanted)
            skipped |= told
            result = reconstruct(network, result, [(g, kept[g.name]) for g in smaller], samples)
        return Outcome(result, list(kept), skipped)

    def learns_from_data(self) -> bool:
        return self.reconstruct > 0 or self.importance not in WITHOUT_DATA

    def check_widths(self, found: AxisGroups) -> None:
        """Every width has its group.

        Raises:
            SlimlineError: a name that matches no group, or a width outside [1, width of the group].
        """
        for name, width in self.widths.items():
            most = found[name].width
            if not isinstance(width, Integral) or not 1 <= width <= most:
                raise SlimlineError(f"Group {name} has {most} channels, {width} cannot be kept: choose 1 to {most}.")

    def cost(self, network: Network, found: AxisGroups) -> Cost:
        """What `keep` is a share of, for any widths."""
        if self.of == "channels":
            return lambda widths: float(sum(widths.get(g.name, g.width) * g.span for g in found.groups))
        model = CostModel(network, found)
        return model.macs if self.of == "macs" else model.parameters

    def given_widths(self, network: Network, found: AxisGroups) -> Widths:
        """Channels kept in the groups of which `keep` says nothing."""
        streams = stream_groups(network, found) if self.streams == "keep" else set()
        whole = {g.name: g.width for g in found.groups if g.name in streams}
        return whole | {name: int(width) for name, width in self.widths.items()}

    def chosen_widths(
        self, free: list[Group], given: Widths, cost: Cost, ranks: Mapping[str, NDArray[np.float64]]
    ) -> Widths:
        """Channels kept in every free group.

        Args:
            given: channels kept in the others.
            ranks: importance of the channels of the free groups, for the global allocation.
        """
        if self.allocation == "uniform" and self.of == "channels":
            return snapped(free, {g.name: self.keep for g in free}, self.multiple)
        gains = gains_of(free, ranks, cost) if self.allocation == "global" else {}

        def shares(strength: float) -> Shares:
            return global_shares(free, gains, strength) if gains else uniform_shares(free, strength)

        def whole(widths: Mapping[str, int]) -> float:
            return cost({**widths, **given})

        budget = self.keep * cost({})
        strength = strength_within(budget, whole, lambda at: snapped(free, shares(at), self.multiple))
        widths = snapped(free, shares(strength), self.multiple)
        return filled(free, shares(strength), widths, self.multiple, budget, whole)
