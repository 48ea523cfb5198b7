"""Which widths to choose for a strength: take channels where they hurt least for what they save.

Greedy choice on the ratio damage / gain, as in NetAdapt (Yang et al. 2018, arXiv:1804.03230, section 3.2), but from one
sensitivity table instead of a retraining per step.

    D_g(w) = s_g (W_g / w - 1)          s_g = (damage of group g at half its width) ^ DAMPING

The damage measured before recovery ranks the groups but says little about how far each may go: recovery repairs most
of it, and what it cannot repair is missing capacity. Hence the barrier W / w - 1, convex and without bound, so that no
group is emptied, and the damping of the measured differences. Greedy steps along the measured curves themselves would
empty some groups and leave others whole.
"""

from collections.abc import Callable, Mapping

from slimline.search.sensitivity import Sensitivity

DAMPING = 0.25
SMALLEST_DAMAGE = 1e-6
Cost = Callable[[dict[str, int]], float]
"""Widths by group -> predicted cost, in any unit: milliseconds, bytes, or a share of the whole."""


def barrier_damage(row: Sensitivity) -> Callable[[float], float]:
    """D of the equation above for one group; zero at its full width."""
    half = min(row.options, key=lambda o: abs(o.width - row.width / 2))
    weight = float(max(half.damage, SMALLEST_DAMAGE) ** DAMPING)
    return lambda width: weight * (row.width / width - 1)


def allocate(table: list[Sensitivity], cost: Cost, target: float, multiples: Mapping[str, int]) -> dict[str, int]:
    """Widths whose predicted cost is at most ``target``, or the narrowest allowed ones when that is out of reach.

    Args:
        table: one row per group.
        cost: predicted cost of widths; ``target`` is in its unit.
        multiples: by group, of what widths are multiples; groups narrower than two multiples move by single channels.
    """
    damage = {row.group: barrier_damage(row) for row in table}
    widths = {row.group: row.width for row in table}
    steps = {row.group: step_of(row.width, multiples[row.group]) for row in table}
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
