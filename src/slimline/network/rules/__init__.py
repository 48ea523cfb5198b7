"""One small rule per operator: how channel ids pass through it.

A rule takes the walk and the node, merges ids that must live or die together, and returns the axes of the result. A
rule whose operator holds a constant that depends on a channel count also leaves a rewrite for it. An operator without a
rule freezes what goes in, with the reason, so that an unknown operator can never be pruned wrongly.
"""

from typing import Any

import torch

from slimline.network.rules import (
    elementwise,
    layers,
    normalization,
    parts,
    places,
    products,
    recurrent,
    reductions,
    reshape,
)
from slimline.network.rules.rule import RULES, Rule, unknown

__all__ = [
    "RULES", "elementwise", "layers", "normalization", "parts", "places", "products", "recurrent", "reductions",
    "reshape", "rule_for", "unknown",
]  # fmt: skip


def rule_for(target: Any) -> Rule:
    """The rule of an operator; that of all operators that work position by position, or `unknown`."""
    found = RULES.get(target)
    if found is None and torch.Tag.pointwise in getattr(target, "tags", ()):
        return elementwise.broadcast
    return found or unknown
