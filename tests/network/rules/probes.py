"""What the tests of all rules share: an operator behind a convolution, and what its rule has to say."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from slimline.network.ids import Axes
from slimline.network.propagation import Propagation
from slimline.network.trace import trace

Move = Callable[[Tensor], Tensor]
CHANNELS, SIDE = 6, 4


class Probe(nn.Module):
    """A convolution, and a function of what it returns."""

    def __init__(self, move: Move) -> None:
        super().__init__()
        self.conv, self.move = nn.Conv2d(1, CHANNELS, 1), move

    def forward(self, x: Tensor) -> Tensor:
        return self.move(self.conv(x))


@dataclass
class Walked:
    """What the walk found for a `Probe`."""

    walk: Propagation
    channels: list[int]
    """The id of each channel of the convolution."""
    after: Axes

    def kept(self) -> list[str | None]:
        """For every channel why it stays, or None."""
        stay = self.walk.frozen()
        return [next((stay[p] for p in sorted(self.walk.plain(c)) if p in stay), None) for c in self.channels]


def walked(move: Move) -> Walked:
    """The ids behind a convolution and behind an operator that follows it."""
    network = trace(Probe(move).eval(), {"x": torch.randn(2, 1, SIDE, SIDE)})
    walk = Propagation(network)
    nodes = list(network.module.graph.nodes)
    for node in nodes[:-1]:  # without the output, which freezes
        walk.visit(node)
    convolution = next(n for n in nodes if n.target is torch.ops.aten.conv2d.default)
    ids = walk.axes[convolution.name][1]
    assert ids is not None and len(ids) == CHANNELS
    return Walked(walk, ids.tolist(), walk.axes[nodes[-1].args[0][0].name])


def check_that_ids_move_as_values_do(move: Move) -> None:
    """The operator is run on the numbers of the channels: wherever a number arrives, what it depends on has to arrive.

    A number may arrive where no axis carries anything only if the channel stays.
    """
    got = walked(move)
    numbers = torch.arange(1.0, CHANNELS + 1, dtype=torch.float64)[None, :, None, None]  # 0 means "no channel"
    values = move(numbers.expand(2, -1, SIDE, SIDE).contiguous())
    assert len(got.after) == values.ndim
    assert [axis for axis, ids in enumerate(got.after) if ids is not None], "no axis carries ids"
    stay = set(got.walk.frozen())
    for axis, ids in enumerate(got.after):
        assert ids is None or len(ids) == values.shape[axis]
    for place in np.ndindex(*values.shape):
        if values[place] == 0:  # padding
            continue
        own = [got.walk.plain(int(ids[p])) for ids, p in zip(got.after, place, strict=True) if ids is not None]
        expected = got.walk.plain(got.channels[round(float(values[place])) - 1])
        assert frozenset().union(*own) - stay == expected - stay, place


def check_that_all_stay(move: Move) -> None:
    """Every channel is frozen, with a reason that names the operator."""
    reasons = walked(move).kept()
    assert all(reasons), reasons
