"""How many channels every group keeps: the same share of each, or the most important ones of all.

Uniform: Li et al. (2017), Pruning Filters for Efficient ConvNets, arXiv:1608.08710. Over all groups at once: Molchanov
et al. (2019), Importance Estimation for Neural Network Pruning, arXiv:1906.10771, section 3.3, where we weigh
importance by what it costs, as Yang et al. (2018), NetAdapt, arXiv:1804.03230, do.

    keep channel c of group g   if   importance(c) / saved(g) > t        saved(g): cost that one channel of g takes
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from slimline.network.axes import Group

Cost = Callable[[Mapping[str, int]], float]
"""Widths by group -> what the network would cost."""
Widths = dict[str, int]
LEAST_SHARE = 0.1
"""A group never loses more than the rest of this: what it cannot do without shows only when it is gone."""
STEPS = 24
"""Halvings until a strength is exact."""


def uniform_widths(groups: Sequence[Group], share: float, multiple: int) -> Widths:
    """The same share of every group, in multiples."""
    return {g.name: g.narrowed(share, multiple) for g in groups}


def global_widths(
    groups: Sequence[Group], gains: Mapping[str, NDArray[np.float64]], strength: float, multiple: int
) -> Widths:
    """The channels of every group with the larger gains of all, in multiples.

    Args:
        gains: importance per cost of every channel, by group name.
        strength: share of all channels whose gain is too small.
    """
    if strength <= 0 or not groups:
        return {g.name: g.width for g in groups}
    threshold = np.quantile(np.concatenate([gains[g.name] for g in groups]), strength)
    found = {}
    for group in groups:
        share = max(LEAST_SHARE, float((gains[group.name] > threshold).mean()))
        found[group.name] = group.narrowed(share, multiple)
    return found


def within(budget: float, cost: Cost, at: Callable[[float], Widths]) -> Widths:
    """The widths that cost at most ``budget`` and are the least strong of those.

    Costs fall in steps, since widths are multiples, so the budget is met from below. Where even the strongest cost
    more, they are returned.

    Args:
        at: widths for a strength from 0, all channels, to 1.
    """
    if cost(at(0.0)) <= budget:
        return at(0.0)
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if cost(at(middle)) <= budget:
            high = middle
        else:
            low = middle
    return at(high)


def gains_of(
    groups: Sequence[Group], importance: Mapping[str, NDArray[np.float64]], cost: Cost
) -> dict[str, NDArray[np.float64]]:
    """Importance per cost that a channel takes when it goes alone; infinite where nothing is saved."""
    whole = {g.name: g.width for g in groups}
    everything, found = cost(whole), {}
    for group in groups:
        saved = everything - cost({**whole, group.name: group.width - 1})
        found[group.name] = importance[group.name] / saved if saved > 0 else np.full(group.width, np.inf)
    return found
