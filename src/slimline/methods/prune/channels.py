"""Structured channel pruning over axis groups: remove the least important channels of every group.

Li, Kadav, Durdanovic, Samet, Graf (2017). Pruning Filters for Efficient ConvNets. arXiv:1608.08710, section 3.
Coupled layers as in Fang et al. (2023), DepGraph, arXiv:2301.12900.

    keep the width_g channels of group g with the largest importance; every slice of the others is cut out

Ours differs: groups come from ids carried along the graph (`slimline.network.axes`), so additions, padding,
concatenation, flattening and depthwise convolutions are covered by one mechanism; the importance is a choice.
Helps: latency and size in every runtime, almost one to one.  Does not: without recovery the score falls quickly.
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
    LEAST_SHARE,
    Cost,
    Widths,
    gains_of,
    global_widths,
    uniform_widths,
    within,
)
from slimline.network.axes import AxisGroups, Group, axis_groups, prune
from slimline.network.cost_model import CostModel
from slimline.network.network import Network
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
    widths: Mapping[str, int] = param({}, doc="channels kept, by group name, whatever keep says")
    importance: str = param("taylor", choices=tuple(IMPORTANCES), doc="how channels are ranked")
    multiple: int = param(8, low=1, high=64, doc="kept positions are multiples of this, as runtimes like them")
    reconstruct: int = param(
        0, low=0, high=100000, doc="samples from which the layers that read pruned channels are refitted; 0 for none"
    )

    needs = frozenset({"float weights"})
    cites = ("li2017pruning", "fang2023depgraph")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        found = axis_groups(network)
        self.check_widths(found)
        free = [g for g in found.groups if g.name not in self.widths]
        ranks = {} if self.allocation == "uniform" else IMPORTANCES[self.importance](network, free, task)
        cost = self.cost(network, found)
        widths = self.chosen_widths(found, cost, ranks)
        smaller = [g for g in found.groups if widths[g.name] < g.width]
        ranks |= IMPORTANCES[self.importance](network, [g for g in smaller if g.name not in ranks], task)
        kept = {g.name: strongest(ranks[g.name], widths[g.name]) for g in smaller}
        skipped = {f"{weight} axis {axis}": reason for (weight, axis), reason in found.frozen.items()}
        if self.of != "channels" and (left := cost(widths) / cost({})) > self.keep:
            skipped[self.of] = f"{left:.1%} are left instead of {self.keep:.1%}: the rest cannot be pruned"
        result = prune(network, found, kept) if kept else network.copy()
        if kept and self.reconstruct:
            samples = needs_data("Reconstruction", task, network).take(slice(0, self.reconstruct))
            result = reconstruct(network, result, [(g, kept[g.name]) for g in smaller], samples)
        return Outcome(result, list(kept), skipped)

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

    def chosen_widths(self, found: AxisGroups, cost: Cost, ranks: Mapping[str, NDArray[np.float64]]) -> Widths:
        """Channels kept in every group.

        Args:
            ranks: importance of the channels of groups without a width of their own, for the global allocation.
        """
        given = {name: int(width) for name, width in self.widths.items()}
        free = [g for g in found.groups if g.name not in given]
        if self.allocation == "uniform" and self.of == "channels":
            return {**uniform_widths(free, self.keep, self.multiple), **given}
        gains = gains_of(free, ranks, cost) if self.allocation == "global" else {}

        def at(strength: float) -> Widths:
            if self.allocation == "global":
                return {**global_widths(free, gains, strength, self.multiple), **given}
            return {**uniform_widths(free, max(LEAST_SHARE, 1 - strength), self.multiple), **given}

        return within(self.keep * cost({}), cost, at)
