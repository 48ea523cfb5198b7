"""OBS importance: what the layers that read a channel would lose, after the other channels have made up for it.

Hassibi, Stork (1992). Second order derivatives for network pruning: Optimal Brain Surgeon. NeurIPS 5, equation 5.
Whole channels at once: Kurtic, Frantar, Alistarh (2023). ZipLM: Inference-Aware Structured Pruning of Language Models.
arXiv:2302.04089, equations 2 and 3.

    loss(c)  = sum over outputs of  W_c (H^-1_cc)^-1 W_c^T        H = sum of [x; 1] [x; 1]^T over calibration rows
    W       <- W - W_c (H^-1_cc)^-1 H^-1_c,:                      the others make up for c
    H^-1    <- H^-1 - H^-1_:,c (H^-1_cc)^-1 H^-1_c,:

The channel with the least loss goes, again and again until one is left; a channel's importance is the largest loss up
to the round in which it went. One pass therefore serves every width, and groups can be compared.

Ours differs: a channel that several layers read counts with the sum of their losses, each as a share of the squares
that the layer puts out. A group that no dense layer reads (`slimline.methods.readers`) is ranked by L1.
Helps: finds channels that others can stand in for, so that pruning with reconstruction costs little.
Does not: see past the next layer.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimline.methods.method import needs_data
from slimline.methods.prune.l1 import l1_importance
from slimline.methods.readers import Reader, moments_in_turns, read_by, readers
from slimline.methods.remembered import Remembered
from slimline.network.axes import Group
from slimline.network.network import Network, get_tensor
from slimline.task import Samples, Task

SAMPLES = 256
DAMPING = 1e-4
"""Added to the diagonal of H, as a share of its mean."""
SMALLEST_LOSS, SMALLEST_STEP = 1e-12, 1e-6
"""Where losses are equal or fall, the order of the rounds still shows."""


def obs_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group, from up to 256 training samples."""
    samples = needs_data("OBS importance", task, network).take(slice(0, SAMPLES))
    known = RANKS.of(network, samples)
    _rank(network, [g for g in groups if g.name not in known], samples, known)
    return {g.name: known[g.name] for g in groups}


def _rank(network: Network, groups: list[Group], samples: Samples, found: dict[str, NDArray[np.float64]]) -> None:
    dense = readers(network)
    weights = {g.name: read_by(g, dense) for g in groups}
    found |= l1_importance(network, [g for g in groups if not weights[g.name]], None)
    by_name = {g.name: g for g in groups}
    for turn, moments in moments_in_turns(network, {name: w for name, w in weights.items() if w}, samples):
        for name in turn:
            found[name] = _rounds(network, by_name[name], [dense[w] for w in weights[name]], moments)


RANKS = Remembered[NDArray[np.float64]]()


def _rounds(network: Network, group: Group, layers: list[Reader], moments: dict[str, Tensor]) -> NDArray[np.float64]:
    """The largest loss up to the round in which every channel goes, a little more in every round."""
    eliminations = [_Elimination.of(network, layer, group, moments[layer.weight]) for layer in layers]
    importance, largest = np.zeros(group.width), SMALLEST_LOSS
    for _ in range(group.width):
        losses = np.sum([e.losses(group.width) for e in eliminations], axis=0)
        gone = int(losses.argmin())
        largest = max(largest * (1 + SMALLEST_STEP), float(losses[gone]))
        importance[gone] = largest
        for elimination in eliminations:
            elimination.remove_(gone)
    return importance


@dataclass
class _Alike:
    """Channels with as many columns each."""

    channels: NDArray[np.int64]
    columns: Tensor
    """Where the columns of each lie, (channels, columns of each)."""

    def __len__(self) -> int:
        return self.columns.numel()


@dataclass
class _Elimination:
    """One reader of a group: the parts of its W and H^-1 that belong to the group's channels that are left."""

    matrix: Tensor
    inverse: Tensor
    left: list[_Alike]
    output: float
    """Sum of the squares that the layer puts out."""

    @staticmethod
    def of(network: Network, layer: Reader, group: Group, moments: Tensor) -> "_Elimination":
        kernel = get_tensor(network.module, layer.weight)[0, 0].numel()
        by_size: dict[int, dict[int, Tensor]] = {}
        for channel, positions in enumerate(group.slices[layer.weight, 1]):
            columns = (torch.from_numpy(positions)[:, None] * kernel + torch.arange(kernel)).flatten()
            by_size.setdefault(len(columns), {})[channel] = columns
        left = [_Alike(np.array(list(each)), torch.stack(list(each.values()))) for each in by_size.values()]
        matrix = layer.matrix(network)
        output = float(((matrix @ moments) * matrix).sum())
        damped = moments + DAMPING * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
        whole = _Elimination(matrix, torch.linalg.inv(damped), left, max(output, 1e-30))
        whole._leave_out_the_rest_()
        return whole

    def _leave_out_the_rest_(self) -> None:
        """Neither loss nor update of a channel that is left reads any other column."""
        chosen = torch.cat([alike.columns.flatten() for alike in self.left])
        self.matrix, self.inverse = self.matrix[:, chosen], self.inverse[chosen][:, chosen]
        start = 0
        for alike in self.left:
            alike.columns = torch.arange(start, start + len(alike)).view(alike.columns.shape)
            start += len(alike)

    def losses(self, width: int) -> NDArray[np.float64]:
        """The loss of every channel as a share of the output; infinite for those that are gone."""
        found = np.full(width, np.inf)
        for alike in self.left:
            columns = alike.columns
            weights = self.matrix[:, columns].transpose(0, 1)  # (channels, outputs, columns of each)
            blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
            if columns.shape[1] == 1:  # wide layers have one column each, and a solver for each number is slow
                made_up = weights / blocks
            else:
                made_up = torch.linalg.solve(blocks, weights.transpose(1, 2)).transpose(1, 2)
            found[alike.channels] = ((weights * made_up).sum((1, 2)) / self.output).numpy()
        return found

    def remove_(self, channel: int) -> None:
        """The second and the third equation above."""
        alike = next(a for a in self.left if channel in a.channels)
        stay = alike.channels != channel
        columns = alike.columns[torch.from_numpy(~stay)][0]
        alike.channels, alike.columns = alike.channels[stay], alike.columns[torch.from_numpy(stay)]
        share = torch.linalg.solve(self.inverse[columns][:, columns], self.inverse[columns])
        self.matrix -= self.matrix[:, columns] @ share
        self.inverse -= self.inverse[:, columns] @ share
        if 0 < 2 * sum(map(len, self.left)) <= len(self.inverse):
            self._leave_out_the_rest_()
