"""A batch norm at inference is a scale and a shift per channel."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.simplify.calls import let_views_copy_
from slimline.methods.simplify.channel_affine import Affine, Plan
from slimline.methods.simplify.free_shapes import FreeShapes
from slimline.network.calls import arguments
from slimline.network.network import Network, get_tensor


def scale_and_shift(
    gamma: Tensor | None, beta: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The scale g = gamma / sqrt(variance + eps) and the shift beta - g mean, in double precision; all (channels,)."""
    inverse = 1 / torch.sqrt(variance.double() + eps)
    g = inverse if gamma is None else gamma.double() * inverse
    return g, (0.0 if beta is None else beta.double()) - g * mean.double()


def batch_norm_affine(network: Network, node: Node, shapes: FreeShapes) -> Affine | str:
    """What a batch norm computes, its channels on axis 1, or why that is not known."""
    given = arguments(node)
    statistics = [given[name] for name in ("weight", "bias", "running_mean", "running_var")]
    if given["training"] or given["running_mean"] is None or given["running_var"] is None:
        return "uses the statistics of the batch"
    if any(isinstance(value, Node) and value.op != "get_attr" for value in statistics):
        return "its scales are computed"
    gamma, beta, mean, variance = (_stored(network, value) for value in statistics)
    assert mean is not None and variance is not None
    scale, shift = scale_and_shift(gamma, beta, mean, variance, float(given["eps"]))
    if not bool(torch.isfinite(scale).all() and torch.isfinite(shift).all()):
        return "its scales are not finite"
    shape = shapes.tensors.get(node)
    if shape is None or shape.rank is None:
        return "its shape follows from values"
    behind = [1] * (shape.rank - 2)
    return Affine(scale.view(-1, *behind), shift.view(-1, *behind))


def fold_batch_norms_(
    network: Network, shapes: FreeShapes, plan: Callable[[Network, Node, Affine, FreeShapes], Plan | str]
) -> tuple[list[str], dict[str, str]]:
    """Fold every batch norm that can be; the layers that changed, and why other norms stay. Edits the network.

    Args:
        plan: `plan_before` or `plan_behind`: the layer on which side takes the norm in.
    """
    changed, skipped = [], {}
    for node in network.module.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default):
        affine = batch_norm_affine(network, node, shapes)
        planned = affine if isinstance(affine, str) else plan(network, node, affine, shapes)
        if isinstance(planned, str):
            skipped[node.name] = planned
        else:
            changed.append(planned.carry_out_(network, node))
    if changed:
        let_views_copy_(network)
    network.tidy_()
    return changed, skipped


def _stored(network: Network, value: Any) -> Tensor | None:
    return get_tensor(network.module, str(value.target)).detach() if isinstance(value, Node) else None
