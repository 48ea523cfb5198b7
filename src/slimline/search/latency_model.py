"""Predicted latency of widths that were never built, fitted to a few that were measured.

    ms(widths) = c + sum over layers of  e_l * MACs_l(widths)        e_l, c >= 0

Measured are the whole network, its most expensive groups halved one at a time, and all groups narrowed together. There
are more layers than measurements, and halving one of twenty groups saves hardly more than the noise of measuring it. So
the fit goes in two steps: one e for all layers and c; then an e_l for each, leaning towards that e (ridge).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from slimline.network.cost_model import CostModel

LEAN = 2.0
"""Weight of the lean: efficiencies of layers are taken to differ by half of the common one. With less, layers of one
shape get efficiencies that differ with the noise of their probes, and the choice of widths follows that noise."""
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
    alike = np.stack([macs.sum(1) / macs[0].sum(), np.ones(len(ms))], axis=1)
    (arithmetic, overhead), _ = nnls(alike, targets)
    prior = np.append(arithmetic * whole / whole.sum(), overhead)
    scale = LEAN / np.maximum(prior, 1e-3)
    shares, _ = nnls(np.vstack([rows / NOISE, np.diag(scale)]), np.append(targets / NOISE, scale * prior))
    efficiency = {n: float(s * ms[0] / w) for n, s, w in zip(names, shares[:-1], whole, strict=True)}
    return LatencyModel(costs, efficiency, float(shares[-1] * ms[0]))
