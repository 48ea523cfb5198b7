"""The moving average of a network's weights.

Polyak, Juditsky (1992). Acceleration of Stochastic Approximation by Averaging. SIAM J. Control Optim. 30(4).

    a <- d a + (1 - d) w        after step t = 0, 1, ..., with d = min(decay, (1 + t) / (10 + t))

The second term under the minimum forgets the start of short runs (Martin Abadi et al., TensorFlow's
ExponentialMovingAverage with num_updates). The statistics of batch norms are averaged too.
"""

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from slimline.network.network import Network


class Average:
    """Averages the floating-point weights of a network; what holds whole numbers follows it as it is."""

    def __init__(self, network: Network, decay: float) -> None:
        self.decay, self.followed = decay, network
        self.network = network.copy()
        for parameter in self.network.module.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step ``step`` (counted from 0)."""
        current, averaged = self.followed.weights(), self.network.weights()
        floating = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
        decay = min(self.decay, (1 + step) / (10 + step))
        ours: list[Tensor | None] = [averaged[name].data for name in floating]
        theirs: list[Tensor | None] = [current[name].data for name in floating]
        get_ema_multi_avg_fn(decay)(ours, theirs, 0)  # type: ignore[no-untyped-call]
        for name in averaged.keys() - set(floating):
            averaged[name].copy_(current[name])
