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
Shares = dict[str, float]
"""By group: the share of its channels that is to stay, before it is rounded."""
LEAST_SHARE = 0.1
"""A group never loses more than the rest of this: what it cannot do without shows only when it is gone."""
STEPS = 24
"""Halvings until a strength is exact."""


def snapped(groups: Sequence[Group], shares: Shares, multiple: int) -> Widths:
    """The shares in channels, to the nearest multiple of positions."""
    return {g.name: g.narrowed(shares[g.name], multiple) for g in groups}


def uniform_shares(groups: Sequence[Group], strength: float) -> Shares:
    """The same share of every group."""
    return {g.name: max(LEAST_SHARE, 1 - strength) for g in groups}


def global_shares(groups: Sequence[Group], gains: Mapping[str, NDArray[np.float64]], strength: float) -> Shares:
    """What the channels with the larger gains of all are of each group.

    Args:
        gains: importance per cost of every channel, by group name.
        strength: share of all channels whose gain is too small.
    """
    if strength <= 0 or not groups:
        return {g.name: 1.0 for g in groups}
    threshold = np.quantile(np.concatenate([gains[g.name] for g in groups]), strength)
    return {g.name: max(LEAST_SHARE, float((gains[g.name] > threshold).mean())) for g in groups}


def strength_within(budget: float, cost: Cost, at: Callable[[float], Widths]) -> float:
    """The least strength, from 0 to 1, whose widths cost at most ``budget``; 1 where even the strongest cost more.

    Args:
        at: widths for a strength; at 0 everything stays.
    """
    if cost(at(0.0)) <= budget:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if cost(at(middle)) <= budget:
            high = middle
        else:
            low = middle
    return high


def filled(groups: Sequence[Group], shares: Shares, widths: Widths, multiple: int, budget: float, cost: Cost) -> Widths:
    """Widths that use what rounding to multiples left of the budget.

    Groups of one width round at one strength, so a budget can be missed by far. Each group, that which rounding cost
    the largest share first, gets one multiple more where the budget allows (the method of the largest remainder).

    Args:
        shares: what was rounded to ``widths``.
    """
    for group in sorted(groups, key=lambda g: widths[g.name] / g.width - shares[g.name]):
        wider = min(group.width, widths[group.name] + group.multiple(multiple))
        if cost({**widths, group.name: wider}) <= budget:
            widths = {**widths, group.name: wider}
    return widths


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
