"""Greedy widths are the best there are where that can be checked, and no group is emptied."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from slimline.search.allocation import DAMPING, allocate, barrier_damage, next_width, step_of
from slimline.search.sensitivity import Option, Sensitivity

EIGHTS = defaultdict[str, int](lambda: 8)


def row(group: str, width: int, damage_at_half: float) -> Sensitivity:
    options = [Option(width, 0.0), Option(width // 2, damage_at_half), Option(width // 8, 20 * damage_at_half)]
    return Sensitivity(group, width, [], options)


class Cost:
    """So many milliseconds per channel of every group, and one that does not depend on them."""

    def __init__(self, per_channel: dict[str, float]) -> None:
        self.per_channel = per_channel

    def __call__(self, widths: dict[str, int]) -> float:
        return 1.0 + sum(self.per_channel[g] * w for g, w in widths.items())


def test_the_barrier_by_hand() -> None:
    """s (W / w - 1) with s the fourth root of the damage at half the width: at half the width it is s itself."""
    damage = barrier_damage(row("a", 64, 16.0))
    assert DAMPING == 0.25
    assert [damage(w) for w in (64, 32, 16, 1)] == [0, 2, 6, 126]


def test_a_group_that_nothing_was_measured_of_still_has_a_barrier() -> None:
    damage = barrier_damage(Sensitivity("a", 8, [], [Option(8, 0.0)]))
    assert damage(4) > damage(8) == 0


@pytest.mark.parametrize("seed", range(6))
def test_nothing_as_cheap_does_less_damage(seed: int) -> None:
    """Against every combination of widths: damage convex, cost a sum over groups (Fox 1966)."""
    rng = np.random.default_rng(seed)
    table = [row(name, 8 * int(rng.integers(3, 9)), float(rng.uniform(0.01, 5))) for name in "abc"]
    cost = Cost({r.group: float(rng.uniform(0.01, 0.1)) for r in table})
    damage = {r.group: barrier_damage(r) for r in table}
    whole = {r.group: r.width for r in table}
    for share in (0.9, 0.7, 0.5, 0.35):
        chosen = allocate(table, cost, share * cost(whole), EIGHTS)
        spent = sum(damage[g](w) for g, w in chosen.items())
        assert cost(chosen) <= share * cost(whole)
        for widths in itertools.product(*(range(8, r.width + 1, 8) for r in table)):
            other = dict(zip(whole, widths, strict=True))
            if cost(other) <= cost(chosen):
                assert sum(damage[g](w) for g, w in other.items()) >= spent - 1e-9


def test_what_hurts_less_gives_more() -> None:
    table = [row("tender", 64, 1.0), row("tough", 64, 1e-4)]
    widths = allocate(table, Cost({"tender": 0.1, "tough": 0.1}), 8.0, EIGHTS)
    assert widths["tough"] < widths["tender"]


def test_what_saves_more_gives_more() -> None:
    table = [row("dear", 64, 1.0), row("cheap", 64, 1.0)]
    widths = allocate(table, Cost({"dear": 0.1, "cheap": 0.01}), 5.0, EIGHTS)
    assert widths["dear"] < widths["cheap"]


def test_a_target_out_of_reach_gives_the_narrowest_and_nothing_narrower() -> None:
    table = [row("a", 64, 1.0), row("b", 20, 1.0), row("c", 6, 1.0), row("d", 1, 1.0)]
    widths = allocate(table, Cost(dict.fromkeys("abcd", 0.1)), 0.0, EIGHTS)
    assert widths == {"a": 8, "b": 8, "c": 1, "d": 1}


def test_a_target_that_is_met_already_changes_nothing() -> None:
    table = [row("a", 64, 1.0), row("b", 20, 1.0)]
    assert allocate(table, Cost({"a": 0.1, "b": 0.1}), 100.0, EIGHTS) == {"a": 64, "b": 20}


def test_a_group_that_saves_nothing_is_left_whole() -> None:
    table = [row("a", 64, 1.0), row("b", 64, 1e-9)]
    assert allocate(table, Cost({"a": 0.1, "b": 0.0}), 0.0, EIGHTS) == {"a": 8, "b": 64}


def test_steps() -> None:
    assert [step_of(w, 8) for w in (64, 16, 15, 8, 3)] == [8, 8, 1, 1, 1]
    assert [next_width(w, 8) for w in (64, 63, 9, 8)] == [56, 56, 8, 0]
    assert [next_width(w, 1) for w in (5, 1)] == [4, 0]
