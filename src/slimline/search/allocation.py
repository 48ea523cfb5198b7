"""Which widths to choose for a strength: take channels where they hurt least for what they save.

Greedy choice on the ratio damage / gain, as in NetAdapt (Yang et al. 2018, arXiv:1804.03230, section 3.2), but from one
sensitivity table instead of a retraining per step; the damage of a group is made convex first, so that the
greedy order is the best one for separable damage (Fox 1966, marginal analysis).
"""

from collections.abc import Callable

import numpy as np

from slimline.search.sensitivity import Option, Sensitivity

Cost = Callable[[dict[str, int]], float]
"""Widths by group -> predicted cost (milliseconds or bytes)."""


def convex_damage(options: list[Option]) -> Callable[[float], float]:
    """Damage as a function of the kept width: the lower convex hull of the measured options, linear between them.

    Below the narrowest measured width the last slope goes on, doubled for every halving of the width, because what is left is
    what mattered most.
    """
    points = sorted((o.width, o.damage) for o in options)
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) >= 2 and _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    xs, ys = np.array([p[0] for p in hull], float), np.array([p[1] for p in hull], float)
    slope = (ys[0] - ys[1]) / (xs[1] - xs[0]) if len(xs) > 1 else 0.0

    def damage(width: float) -> float:
        if width < xs[0]:
            return float(ys[0] + 2 * slope * (xs[0] - width) * xs[0] / max(width, 1e-9))
        return float(np.interp(width, xs, ys))

    return damage


def _turns_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def allocate(table: list[Sensitivity], cost: Cost, target: float, multiple: int) -> dict[str, int]:
    """Widths whose predicted cost is at most ``target``, or the narrowest allowed ones when that is out of reach.

    Args:
        table: one row per group.
        cost: predicted cost of widths; ``target`` is in its unit.
        multiple: widths are multiples of this; groups narrower than two multiples move by single channels.
    """
    damage = {row.group: convex_damage(row.options) for row in table}
    widths = {row.group: row.width for row in table}
    steps = {row.group: step_of(row.width, multiple) for row in table}
    now = cost(widths)
    while now > target:
        best: tuple[float, str, float] | None = None
        for group, width in widths.items():
            smaller = next_width(width, steps[group])
            if smaller < steps[group]:
                continue
            after = cost({**widths, group: smaller})
            if after >= now:
                continue
            ratio = (damage[group](smaller) - damage[group](width)) / (now - after)
            if best is None or ratio < best[0]:
                best = ratio, group, after
        if best is None:
            return widths
        widths[best[1]] = next_width(widths[best[1]], steps[best[1]])
        now = best[2]
    return widths


def step_of(width: int, multiple: int) -> int:
    """Channels taken at once from a group: one multiple, or one channel where a multiple would be half of it."""
    return multiple if width >= 2 * multiple else 1


def next_width(width: int, step: int) -> int:
    """The next narrower multiple of ``step``."""
    return (width - 1) // step * step
