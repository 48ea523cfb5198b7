"""Least-squares reconstruction: what is left of a layer computes, as well as it can, what the whole layer computed.

He, Zhang, Sun (2017). Channel Pruning for Accelerating Very Deep Neural Networks. arXiv:1707.06168, section 3.1,
equation 4; with the inputs of the pruned network and the outputs of the original, as in its section 3.2.

    [W', b'] = argmin  sum over rows | W x + b - W' x' - b' |^2  +  l | [W', b'] - [W, b] |^2

x is what the layer reads in the original, x' in the pruned network, whose earlier layers are reconstructed already.

Ours differs: the penalty pulls towards the weights that are left instead of towards zero; the bias takes part; both
networks walk through their graphs side by side, once, whatever branches there are.
Helps: part of what pruning breaks comes back without gradients; where no training follows, and without batch norm.
Does not: replace training when channels are gone that nothing can stand in for.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Interpreter, Node

from slimline.methods.readers import BATCH, MOST_ROWS, readers, rows_of, spread
from slimline.network.axes import Group
from slimline.network.network import Network, get_tensor
from slimline.task import Samples

PENALTY = 1e-3
"""l as a share of the mean of the squares on the diagonal."""
Prunings = Sequence[tuple[Group, NDArray[np.int64]]]
"""Groups and the channels that each keeps."""


def reconstruct(original: Network, pruned: Network, prunings: Prunings, samples: Samples) -> Network:
    """The pruned network with its dense layers refitted, in the order of the graph.

    Args:
        pruned: ``original`` after `slimline.network.axes.prune`, so that its nodes have the same names.
        prunings: the groups that were pruned and the channels that they kept.
        samples: read at once (`slimline.methods.visits.fitting`).
    """
    result = pruned.copy().set_training_(False)
    before = original.copy().set_training_(False)
    inputs = samples.tensors()
    given = tuple(inputs[name] for name in original.input_names)
    with torch.no_grad():
        _SideBySide(before, result, outputs_left(original, prunings)).run(*given)
    return result.set_training_(original.is_training())


def refit_alone(
    original: Network, pruned: Network, group: Group, kept: NDArray[np.int64], moments: Mapping[str, Tensor]
) -> Network:
    """The same with one group pruned and its readers alone refitted, from their moments in the original: x' is x.

    Args:
        kept: channels of the group that are left in ``pruned``; all other groups are whole.
        moments: `second_moments` of the layers that read the group.
    """
    result, alone = pruned.copy(), [(group, kept)]
    rows = outputs_left(original, alone)
    for weight, layer in readers(original).items():
        if (weight, 1) not in group.slices or weight not in moments:
            continue
        kernel = get_tensor(original.module, weight)[0, 0].numel()
        channels = torch.from_numpy(_left(original, weight, 1, alone))
        columns = (channels[:, None] * kernel + torch.arange(kernel)).flatten()
        columns = torch.cat([columns, torch.tensor([len(moments[weight]) - 1])])  # the last one is the bias's
        matrix = layer.matrix(original)
        matrix = matrix[rows[weight]] if weight in rows else matrix
        products = moments[weight][columns] @ matrix.T
        found = solved(moments[weight][columns][:, columns], products, matrix[:, columns], layer.bias is not None)
        layer.set_matrix_(result, found)
    return result


def outputs_left(network: Network, prunings: Prunings) -> dict[str, Tensor]:
    """By weight, which of its outputs are left when the groups keep these channels; others keep all."""
    pruned = {weight for group, _ in prunings for weight, axis in group.slices if axis == 0}
    return {weight: torch.from_numpy(_left(network, weight, 0, prunings)) for weight in pruned}


def _left(network: Network, weight: str, axis: int, prunings: Prunings) -> NDArray[np.int64]:
    """Positions that are left on an axis of a weight."""
    left = np.ones(get_tensor(network.module, weight).shape[axis], dtype=bool)
    for group, kept in prunings:
        if (weight, axis) in group.slices:
            for channel in np.setdiff1d(np.arange(group.width), kept):
                left[group.slices[weight, axis][channel]] = False
    return np.flatnonzero(left)


class _SideBySide(Interpreter):
    """Runs the original and, node by node with it, the pruned network, whose readers it refits before they run."""

    def __init__(self, original: Network, pruned: Network, rows: Mapping[str, Tensor]) -> None:
        super().__init__(original.module)
        self.original, self.pruned, self.rows = original, pruned, rows
        self.twin = Interpreter(pruned.module)
        self.nodes = {n.name: n for n in pruned.module.graph.nodes}
        left = readers(pruned)
        # a layer that runs several times would be refitted to its last call
        self.by_call = {
            r.calls[0].name: (r, left[w]) for w, r in readers(original).items() if w in left and len(r.calls) == 1
        }

    def run(self, *args: object) -> object:  # type: ignore[override]
        self.twin.args_iter = iter(args)
        self.twin.env = {}
        return super().run(*args)

    def run_node(self, n: Node) -> object:
        twin_node = self.nodes[n.name]
        if n.name in self.by_call:
            self._refit_(n, twin_node)
        self.twin.env[twin_node] = self.twin.run_node(twin_node)
        value = super().run_node(n)
        for used in self.user_to_last_uses.get(n, []):
            self.twin.env.pop(self.nodes[used.name], None)
        return value

    def _refit_(self, n: Node, twin_node: Node) -> None:
        whole, left = self.by_call[n.name]
        (x, weight, *_), _ = self.fetch_args_kwargs_from_env(n)
        (x_left, weight_left, *_), _ = self.twin.fetch_args_kwargs_from_env(twin_node)
        matrix = whole.matrix(self.original)
        target = matrix[self.rows[whole.weight]] if whole.weight in self.rows else matrix
        moments, products = _moments((n, x, weight), (twin_node, x_left, weight_left), target)
        left.set_matrix_(self.pruned, solved(moments, products, left.matrix(self.pruned), left.bias is not None))


def _moments(
    whole: tuple[Node, Tensor, Tensor], left: tuple[Node, Tensor, Tensor], target: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums over the rows of x' x'^T and of x' (W x + b)^T."""
    (node, x, weight), (node_left, x_left, weight_left) = whole, left
    moments, products = torch.zeros(()), torch.zeros(())
    chunks = -(-len(x) // BATCH)
    for start in range(0, len(x), BATCH):
        rows = rows_of(node, x[start : start + BATCH], weight)
        rows_left = rows_of(node_left, x_left[start : start + BATCH], weight_left)
        chosen = spread(len(rows), MOST_ROWS // chunks)
        rows, rows_left = rows[chosen], rows_left[chosen]
        moments = moments + (rows_left.T @ rows_left).double()
        products = products + (rows_left.T @ (rows @ target.T.float())).double()
    return moments, products


def solved(moments: Tensor, products: Tensor, matrix: Tensor, has_bias: bool) -> Tensor:
    """The minimum above.

    Args:
        moments: sum of x' x'^T, (inputs + 1, inputs + 1).
        products: sum of x' (W x + b)^T, (inputs + 1, outputs).
        matrix: [W, b] of what is left, (outputs, inputs + 1); a missing bias stays zero.
    """
    free = len(moments) if has_bias else len(moments) - 1
    moments, products = moments[:free, :free], products[:free]
    penalty = PENALTY * moments.diagonal().mean().clamp_min(1e-30)
    damped = moments + penalty * torch.eye(free, dtype=moments.dtype)
    found = matrix.clone()
    found[:, :free] = torch.linalg.solve(damped, products + penalty * matrix[:, :free].T).T
    return found
