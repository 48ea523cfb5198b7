"""The fit finds the coefficients that made the measurements, and predicts widths that it never saw."""

import numpy as np
import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.network.axes import axis_groups
from slimline.network.cost_model import CostModel
from slimline.search.latency_model import LatencyModel, fit
from tests.runtimes.networks import Residual, traced
from tests.toys import toy


class Chain(nn.Module):
    """Four convolutions, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 16, 1)
        self.d, self.e = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))
        return self.e(self.d(F.relu(self.d(x)))).mean((2, 3))  # type: ignore[no-any-return]


def random_widths(costs: CostModel, count: int, seed: int) -> list[dict[str, int]]:
    rng = np.random.default_rng(seed)
    return [dict(costs.widths)] + [
        {name: int(rng.integers(1, width + 1)) for name, width in costs.widths.items()} for _ in range(count)
    ]


def planted(costs: CostModel, seed: int) -> LatencyModel:
    """Efficiencies that differ up to sixfold between layers, and an overhead of a fifth of the whole."""
    rng = np.random.default_rng(seed)
    efficiency = {layer.name: float(rng.uniform(1, 6)) * 1e-6 for layer in costs.layers}
    arithmetic = LatencyModel(costs, efficiency, 0.0)({})
    return LatencyModel(costs, efficiency, arithmetic / 4)


@pytest.mark.parametrize("seed", range(4))
def test_planted_coefficients_are_recovered(seed: int) -> None:
    """Enough exact measurements leave nothing open but the lean, which moves the shares of large layers little.

    No two layers of the chain have MACs that go together, unlike the two ends of a residual block.
    """
    costs = CostModel(network := traced(Chain()), axis_groups(network))
    truth = planted(costs, seed)
    model = fit(costs, [(w, truth(w)) for w in random_widths(costs, 640, seed)])
    assert model.overhead_ms == pytest.approx(truth.overhead_ms, rel=0.1)
    for layer in costs.layers:
        share = truth.efficiency[layer.name] * layer.macs / truth({})
        if share > 0.1:
            assert model.efficiency[layer.name] == pytest.approx(truth.efficiency[layer.name], rel=0.1), layer.name


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_unseen_widths_are_predicted(noise: float) -> None:
    costs = CostModel(network := traced(Residual()), axis_groups(network))
    truth, rng = planted(costs, 1), np.random.default_rng(0)
    measured = [(w, truth(w) * float(np.exp(rng.normal(0, noise)))) for w in random_widths(costs, 25, 2)]
    model = fit(costs, measured)
    errors = [abs(model(w) / truth(w) - 1) for w in random_widths(costs, 50, 3)]
    assert np.mean(errors) < 0.02 + noise


def test_as_few_measurements_as_the_search_makes_are_better_than_counting_macs() -> None:
    """The whole network, each group halved, and everything at a quarter and an eighth."""
    costs = CostModel(network := traced(Residual()), axis_groups(network))
    truth = planted(costs, 2)
    whole = dict(costs.widths)
    widths = [whole, *({**whole, g: w // 2} for g, w in whole.items())]
    widths += [{g: max(1, w // part) for g, w in whole.items()} for part in (4, 8)]
    model = fit(costs, [(w, truth(w)) for w in widths])
    tried = random_widths(costs, 50, 4)[1:]
    ours = np.mean([abs(model(w) / truth(w) - 1) for w in tried])
    by_macs = np.mean([abs(costs.macs(w) / costs.macs(whole) * truth(whole) / truth(w) - 1) for w in tried])
    assert ours < 0.06 and ours < by_macs / 4


def test_nothing_is_negative_even_when_less_work_took_longer() -> None:
    costs = CostModel(network := toy(), axis_groups(network))
    whole = {"stem": 16, "inner": 24}
    model = fit(costs, [(whole, 1.0), ({**whole, "stem": 8}, 1.2), ({**whole, "inner": 12}, 1.1)])
    assert model.overhead_ms >= 0 and min(model.efficiency.values()) >= 0
    assert 0.9 < model(whole) < 1.2
    assert model({"stem": 4, "inner": 4}) <= model(whole)
