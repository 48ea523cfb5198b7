"""Predicted latency of widths that were never built, fitted to a few that were measured.

    ms(widths) = c + sum over layers of  e_l * MACs_l(widths)        e_l, c >= 0

One measurement per group (the group halved) and one of the whole network. There are more layers than measurements, so
the fit leans on equal e_l where the measurements leave it open (ridge towards the mean).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from slimline.search.sensitivity import CostModel

LEAN = 0.5
"""Weight of the lean towards equal efficiency against one measurement. Halving one of twenty groups saves less than the
noise of its measurement: with a weight of 0.1 the fit to such probes was 16 % off on average, with 0.5 it was 8 %."""
NOISE = 0.04
"""Relative error of one quick measurement; on busy machines two launches of one file differ by more."""


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds as a function of widths."""

    costs: CostModel
    efficiency: dict[str, float]
    """Milliseconds per MAC, by layer."""
    overhead_ms: float

    def __call__(self, widths: dict[str, int]) -> float:
        by_layer = self.costs.macs_by_layer(widths)
        return self.overhead_ms + sum(self.efficiency[name] * macs for name, macs in by_layer.items())


def fit(costs: CostModel, measured: list[tuple[dict[str, int], float]]) -> LatencyModel:
    """Fit to (widths, milliseconds); the first one is the whole network."""
    names = list(costs.macs_by_layer({}))
    macs = np.array([[costs.macs_by_layer(w)[n] for n in names] for w, _ in measured])
    ms = np.array([m for _, m in measured])
    # in relative units: x_l is the share of the whole latency spent in layer l, x_c that of the overhead
    whole = np.maximum(macs[0], 1e-9)
    rows = np.hstack([macs / whole, np.ones((len(ms), 1))])
    targets = ms / ms[0]
    prior = np.append(0.9 * whole / whole.sum(), 0.1)
    scale = LEAN / np.maximum(prior, 1e-3)
    shares, _ = nnls(np.vstack([rows / NOISE, np.diag(scale)]), np.append(targets / NOISE, scale * prior))
    efficiency = {n: float(s * ms[0] / w) for n, s, w in zip(names, shares[:-1], whole, strict=True)}
    return LatencyModel(costs, efficiency, float(shares[-1] * ms[0]))
