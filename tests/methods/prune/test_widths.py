"""Widths meet their budget, and the most important channels per cost are those that stay."""

from collections.abc import Mapping

import numpy as np
import pytest

from slimline.methods.prune.channels import PruneChannels
from slimline.methods.prune.widths import (
    LEAST_SHARE,
    filled,
    gains_of,
    global_shares,
    snapped,
    strength_within,
    uniform_shares,
)
from slimline.network.axes import Group
from slimline.network.cost import macs
from tests.toys import toy, toy_task


def group(name: str, width: int, span: int = 1) -> Group:
    positions = [np.arange(span * c, span * (c + 1)) for c in range(width)]
    return Group(name, width, {(f"{name}.weight", 0): positions})


def test_uniform_widths_are_multiples_of_positions() -> None:
    """A head of 8 positions fills a multiple of 4 by itself."""
    groups = [group("a", 64), group("b", 20), group("heads", 12, span=8), group("pairs", 10, span=2)]
    assert snapped(groups, uniform_shares(groups, 0.5), 4) == {"a": 32, "b": 8, "heads": 6, "pairs": 4}
    assert snapped(groups, uniform_shares(groups, 0.0), 4) == {"a": 64, "b": 20, "heads": 12, "pairs": 10}


def test_the_most_important_of_all_groups_stay() -> None:
    """Against a ranking of all channels, where multiples and the least share do not matter."""
    rng = np.random.default_rng(0)
    groups = [group("a", 30), group("b", 50)]
    gains = {"a": rng.uniform(0, 2, 30), "b": rng.uniform(0, 1, 50)}
    ranked = sorted(((v, name) for name, values in gains.items() for v in values), reverse=True)
    for strength in (0.25, 0.5):
        stay = [name for _, name in ranked[: round(80 * (1 - strength))]]
        found = snapped(groups, global_shares(groups, gains, strength), 1)
        assert abs(found["a"] - stay.count("a")) <= 1 and abs(found["b"] - stay.count("b")) <= 1
    assert global_shares(groups, gains, 0.0) == {"a": 1.0, "b": 1.0}
    assert global_shares(groups, gains, 1.0) == {"a": LEAST_SHARE, "b": LEAST_SHARE}


def test_a_budget_is_met_from_below_and_as_closely_as_multiples_allow() -> None:
    groups = [group("a", 64), group("b", 128)]

    def cost(widths: Mapping[str, int]) -> float:
        return widths.get("a", 64) * widths.get("b", 128)

    def at(strength: float) -> dict[str, int]:
        return snapped(groups, uniform_shares(groups, strength), 8)

    for budget in (0.8, 0.5, 0.3):
        found = at(strength_within(budget * cost({}), cost, at))
        assert cost(found) <= budget * cost({})
        assert cost(found) == max(c for s in np.linspace(0, 1, 2000) if (c := cost(at(s))) <= budget * cost({}))
    assert strength_within(cost({}), cost, at) == 0


def test_what_rounding_leaves_of_a_budget_goes_where_rounding_took_most() -> None:
    """Eight groups of 16 round together: all 16 or all 8; a budget between is met within one multiple."""
    groups = [group(f"g{i}", 16) for i in range(8)] + [group("wide", 64)]
    shares = uniform_shares(groups, 0.3)
    rounded = snapped(groups, shares, 8)
    assert set(rounded.values()) == {8, 48}  # 11.2 and 44.8

    def cost(widths: Mapping[str, int]) -> float:
        return float(sum(widths.values()))

    found = filled(groups, shares, rounded, 8, 141.0, cost)
    assert cost(found) == 136  # the next step would be 144
    assert found["wide"] == 48 and sorted(found.values()) == [8] * 5 + [16] * 3 + [48]
    assert filled(groups, shares, rounded, 8, cost(rounded), cost) == rounded


def test_gains_are_importance_per_cost() -> None:
    groups = [group("dear", 4), group("cheap", 4), group("free", 4)]
    price = {"dear": 10.0, "cheap": 2.0, "free": 0.0}

    def cost(widths: Mapping[str, int]) -> float:
        return sum(price[name] * width for name, width in widths.items())

    gains = gains_of(groups, {name: np.arange(4.0) for name in price}, cost)
    np.testing.assert_allclose(gains["dear"], np.arange(4) / 10)
    np.testing.assert_allclose(gains["cheap"], np.arange(4) / 2)
    assert np.isinf(gains["free"]).all()


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("of", ["macs", "parameters", "channels"])
def test_what_is_left_is_counted_on_the_network_that_was_built(of: str, allocation: str) -> None:
    network, task = toy(), toy_task(train=64)
    for keep in (0.7, 0.4):
        method = PruneChannels(keep=keep, of=of, allocation=allocation, multiple=1, importance="l1")
        smaller = method.apply(network, task).network
        counts = {
            "macs": lambda n: macs(n),
            "parameters": lambda n: n.parameter_count(),
            "channels": lambda n: n.weights()["stem.weight"].shape[0] + n.weights()["inner.weight"].shape[0],
        }
        assert keep - 0.12 <= counts[of](smaller) / counts[of](network) <= keep + (0.02 if of == "channels" else 0)


def test_a_budget_out_of_reach_is_told() -> None:
    outcome = PruneChannels(keep=0.001, of="macs", multiple=8, importance="l1").apply(toy())
    assert "instead of 0.1%: the rest cannot be pruned" in outcome.skipped["macs"]


def test_widths_that_are_given_stay_as_they_are_given() -> None:
    method = PruneChannels(keep=0.5, of="macs", widths={"stem": 16}, multiple=1, importance="l1")
    smaller = method.apply(toy()).network
    assert smaller.weights()["stem.weight"].shape[0] == 16
    assert 0.4 * macs(toy()) <= macs(smaller) <= 0.5 * macs(toy())
