"""Selective training: a penalty pushes whole channels to zero before they are cut out.

Batch-norm scales: Liu, Li, Shen, Huang, Yan, Zhang (2017). Learning Efficient Convolutional Networks through Network
Slimming. arXiv:1708.06519. Filters: Wen, Wu, Wang, Chen, Li (2016). Learning Structured Sparsity in Deep
Neural Networks. arXiv:1608.03665.

    L = L_distillation + l sum over the channels c of | v_c |_2

v_c holds the gammas of the channel's batch norms, and the filters and biases of layers that put it out without a batch
norm behind them. With one layer and its batch norm |v_c| is |gamma_c|, the L1 penalty of network slimming.

Ours differs: a channel of an axis group owns what has to vanish together, so that the gammas of all batch norms on a
residual trunk go to zero together. The network learns from the original (`Distill`), which keeps its answers meanwhile.
Helps: a `PruneChannels` behind it that ranks by `batch_norm_scale` or `l2` loses less.
Does not: cut anything out itself. Without batch norm the layers behind can make up for smaller filters, and do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.methods.hooked import trained, trainer
from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.prune.batch_norm_scale import scaled_by
from slimline.methods.prune.filters import putting_out
from slimline.network.axes import Group, axis_groups
from slimline.network.network import Network, get_tensor
from slimline.task import Task
from slimline.training.hook import Hook
from slimline.training.workspace import Workspace

TINY = 1e-12
"""Under the root, whose slope at zero is infinite."""


@dataclass(frozen=True)
class Owned:
    """What vanishes with the channels of a group: v above."""

    group: str
    parts: tuple[tuple[str, int, Tensor], ...]
    """Weight, axis, and the positions of every channel on it, (width, most positions); one past the end is none."""

    @staticmethod
    def by(network: Network, group: Group) -> "Owned":
        """The gammas of a group, and what layers hold for it that have no batch norm behind them."""
        (gammas, bare), written = scaled_by(network, group), putting_out(network)
        read = {str(stored.target) for layer in bare for stored in layer.all_input_nodes if stored.op == "get_attr"}
        chosen = [(gamma, 0) for gamma in gammas]
        chosen += [(w, axis) for w, axis in group.slices if w in read and (w, axis) in written]
        tensors = {w: get_tensor(network.module, w) for w, _ in chosen}
        return Owned(group.name, tuple((w, a, _even(group.slices[w, a], tensors[w].shape[a])) for w, a in chosen))

    def lengths(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The |v| of every channel, (width,)."""
        squares = []
        for name, axis, positions in self.parts:
            rows = weights[name].square().movedim(axis, 0)
            each = rows.reshape(len(rows), -1).sum(1)
            squares.append(torch.cat([each, each.new_zeros(1)])[positions.to(each.device)].sum(1))
        return (torch.stack(squares).sum(0) + TINY).sqrt()


def _even(positions: Sequence[NDArray[np.int64]], size: int) -> Tensor:
    """Positions of channels as one array; ``size`` stands for those that a channel has fewer than others."""
    most = max(len(p) for p in positions)
    return torch.tensor([[*p.tolist(), *[size] * (most - len(p))] for p in positions])


class ChannelPenalty(Hook):
    """The second term of L."""

    def __init__(self, owned: Sequence[Owned], strength: float) -> None:
        self.owned, self.strength = owned, strength

    @property
    def identity(self) -> str:
        """The groups follow from the network that a stored training is known by."""
        return f"ChannelPenalty {[each.group for each in self.owned]} {self.strength}"

    def penalty(self, network: Network, step: int) -> Tensor | None:
        weights = network.weights()
        return self.strength * torch.stack([each.lengths(weights).sum() for each in self.owned]).sum()


@register
@dataclass(frozen=True)
class TrainSelectively(Method):
    """Train so that whole channels go to zero; put a `PruneChannels` behind it."""

    strength: float = param(0.01, low=0.0, high=100.0, doc="l: how strongly channels are pushed to zero")
    epochs: float = param(2.0, low=0.001, high=1000.0, doc="passes over the training samples")
    seed: int = param(0, low=0, doc="order of the samples")
    training: Mapping[str, Any] = param({}, doc="other hyperparameters of Distill, which trains")

    needs = frozenset({"data", "float weights"})
    cites = ("liu2017learning", "wen2016learning")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        by = trainer(self, {"epochs": self.epochs, "seed": self.seed}, self.training)
        found = axis_groups(network)
        skipped = {f"{weight} axis {axis}": reason for (weight, axis), reason in found.frozen.items()}
        if not found.groups:
            reasons = "; ".join(f"{what}: {why}" for what, why in skipped.items())
            raise SlimlineError(f"TrainSelectively found no channels that could be cut out later ({reasons}).")
        penalty = ChannelPenalty([Owned.by(network, group) for group in found.groups], self.strength)
        outcome = trained(self, by, network, task, workspace, penalty)
        return replace(outcome, changed=[g.name for g in found.groups], skipped=skipped | outcome.skipped)
