"""Scale folding: a product or sum with a constant becomes part of the layer before or behind it.

Roesch and others (2019). Relay: A High-Level Compiler for Deep Learning. arXiv:1904.08368, axis scale folding,
forwards and backwards; s and t have one entry per channel:

    s (W x + b) + t = (s W) x + (s b + t)          W (s x + t) + b = (W s) x + (W t + b)

Ours differs: sums too, and through what only moves numbers; a factor of a product of two layers, such as that of
queries and keys, goes into one of them. Zeros that a layer pads with are not shifted, so it takes in no t from before.
Helps: layer scale (ConvNeXt, CaiT), scaled attention, normalised inputs, hand-written norms.
Does not: constants between a layer and what reads it twice, or that change from place to place.
"""

from dataclasses import dataclass

import torch
from torch.fx import Node

from slimline.methods.method import Method, Outcome, register
from slimline.methods.simplify.calls import let_views_copy_, value_readers
from slimline.methods.simplify.channel_affine import MOVES, Affine, Plan, affine_of, data_of, plan_before, plan_behind
from slimline.methods.simplify.free_shapes import FreeShapes, free_shapes
from slimline.methods.simplify.layers import LAYERS, read_layer, scaled_outputs
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
ROUNDS = 0.25
"""x + 2^23 - 2^23 is a way to round x: a number is left alone that makes steps as large as this."""
PRODUCTS = frozenset({aten.matmul.default, aten.bmm.default, aten.mm.default})


def fold_scalars_(network: Network, shapes: FreeShapes) -> tuple[list[str], dict[str, str]]:
    """Fold every constant that can be; the layers that changed, and why other constants stay. Edits the network."""
    changed: list[str] = []
    while True:  # (x - mean) / std behind a network's input: the division goes first and makes way for the sum
        before = len(changed)
        skipped = {}
        for node in list(network.module.graph.nodes):
            plan = _plan(network, node, shapes)
            if isinstance(plan, Plan):
                changed.append(plan.carry_out_(network, node))
            elif plan:
                skipped[node.name] = plan
        if len(changed) == before:
            break
    if changed:
        let_views_copy_(network)
    network.tidy_()
    return changed, skipped


def _plan(network: Network, node: Node, shapes: FreeShapes) -> Plan | str:
    """How a layer can take in what a node computes with a constant, or why not; nothing for other nodes."""
    affine = affine_of(network, node)
    if affine is None or not shapes.floating(node):
        return ""
    if not bool(torch.isfinite(affine.scale).all() and torch.isfinite(affine.shift).all()):
        return "its constant is not finite"
    if float(affine.shift.abs().max()) * torch.finfo(shapes.tensors[node].dtype).eps > ROUNDS:
        return "its constant is so large that adding it rounds"
    reasons = []
    for plan in (plan_before, plan_behind, _plan_in_product):
        found = plan(network, node, affine, shapes)
        if isinstance(found, Plan):
            return found
        reasons.append(found)
    return "; ".join(reason for reason in dict.fromkeys(reasons) if reason)


def _plan_in_product(network: Network, node: Node, affine: Affine, shapes: FreeShapes) -> Plan | str:
    """How a factor of a matrix product can go into a layer that makes one side of it."""
    product = data_of(node)
    if product.target not in PRODUCTS or affine.scale.numel() > 1 or bool(affine.shift.any()):
        return ""
    if len(value_readers(product)) > 1 or not shapes.same(node, product):
        return f"{product.name} is read by other operators too"
    sides = product.all_input_nodes
    for side in sides if len(sides) == len(product.args) else []:  # the factor of x x would be squared
        while side.target in MOVES and len(value_readers(side)) == 1:
            side = side.args[0]  # type: ignore[assignment]
        layer = read_layer(network, side) if side.target in LAYERS and len(value_readers(side)) == 1 else ""
        if not isinstance(layer, str):
            ones = torch.ones_like(layer.full_bias)
            scale, shift = affine.scale.flatten() * ones, 0 * ones
            return Plan(layer, *scaled_outputs(layer.blocks, layer.full_bias, scale, shift))
    return f"neither side of {product.name} is a layer of its own"


@register
@dataclass(frozen=True)
class FoldScalars(Method):
    """Fold products and sums with constants into convolutions and linear layers."""

    needs = frozenset({"float weights"})
    cites = ("roesch2019relay",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        return Outcome(result, *fold_scalars_(result, free_shapes(result)))
