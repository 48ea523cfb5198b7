"""Removal of operators that change nothing: dropout at inference, copies, identities of every kind.

Bacon, Graham, Sharp (1994). Compiler Transformations for High-Performance Computing. doi:10.1145/197405.197406.
Algebraic simplification, for the operators of networks:

    x + 0 = x     1 x = x     relu(relu(x)) = relu(x)     clamp(x, a, b) = x  where  a <= x <= b     pool_1(x) = x  ...

Ours differs: shapes are compared for any batch, so that a cut or a stretch that only fits the example batch stays.
Helps: graphs that exporters and other frameworks leave behind; fewer passes over memory where the runtime does not look
for these itself.  Does not: change a number. A network that is to be trained loses its dropout, unless that is kept.
"""

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.simplify.calls import axes_order, draws, let_views_copy_, why_not_replace
from slimline.methods.simplify.channel_affine import ARITHMETIC, affine_of, data_of
from slimline.methods.simplify.free_shapes import FreeShapes, free_shapes
from slimline.methods.simplify.value_range import clamp_limits, value_range
from slimline.network.calls import arguments
from slimline.network.network import Network, get_tensor
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
END = 2**62
"""An index that means the end of an axis, however long."""
SAME_NUMBERS = frozenset({
    aten.clone.default, aten.contiguous.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default,
    aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other, aten._to_copy.default, aten.type_as.default,
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.view_as.default, aten.reshape_as.default,
    aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.expand.default, aten.expand_as.default, aten.broadcast_to.default, aten.repeat.default, aten.tile.default,
    aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
})  # fmt: skip
"""Operators that change nothing where they keep shape and type."""
DROPOUTS = frozenset({aten.dropout.default, aten.alpha_dropout.default, aten.feature_dropout.default})
CUTS = frozenset({aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes, aten.chunk.default})
LOGIC = {
    aten.__and__.Tensor: True, aten.bitwise_and.Tensor: True, aten.logical_and.default: True,
    aten.__or__.Tensor: False, aten.bitwise_or.Tensor: False, aten.logical_or.default: False,
}  # fmt: skip
"""Operator -> the constant that leaves the other argument as it is."""
CATS = frozenset({aten.cat.default, aten.concat.default})
PADS = ("pad", "constant_pad_nd", "reflection_pad", "replication_pad")
POOLS = ("max_pool", "avg_pool")
RESIZES = ("upsample_nearest", "upsample_linear", "upsample_bilinear", "upsample_trilinear")


def remove_no_ops_(network: Network, shapes: FreeShapes, dropout: str = "remove") -> tuple[list[str], dict[str, str]]:
    """Remove every operator that changes nothing; what went, and why near ones stay. Edits the network."""
    changed, skipped = [], {}
    nodes = list(network.module.graph.nodes)
    strided = any("as_strided" in str(node.target) for node in nodes)
    for node in nodes:
        source = _equal_input(network, node, shapes)
        reason = "" if source is None else _why_it_stays(node, source, strided, dropout)
        if reason:
            skipped[node.name] = reason
        elif source is not None:
            node.replace_all_uses_with(source)
            network.module.graph.erase_node(node)
            changed.append(node.name)
        else:
            changed += _skip_inner_clamp_(node, shapes)
    if changed:
        let_views_copy_(network)
    network.tidy_()
    return changed, skipped


def _why_it_stays(node: Node, source: Node, strided: bool, dropout: str) -> str:
    if node.target in DROPOUTS and draws(node):
        return "is in training mode"
    if node.target in DROPOUTS and dropout == "keep":
        return "is kept for training"
    return "the network reads memory by its strides" if strided else why_not_replace(node, source)


def _equal_input(network: Network, node: Node, shapes: FreeShapes) -> Node | None:
    """The input that an operator gives back as it is; None where it changes something."""
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    source: Any = node.args[0]
    if node.target in CATS and len(source) == 1:
        source = source[0]
    elif node.target is operator.getitem and source.target in CUTS and node.args[1] == 0:
        axis = arguments(source)["dim"]
        source = source.args[0] if shapes.fixed(source.args[0], axis) else None
    elif node.target in LOGIC or node.target in ARITHMETIC:
        source = data_of(node) if _with_neutral(network, node) else None
    elif not isinstance(source, Node) or not _keeps_values(node, source, shapes):
        return None
    return source if isinstance(source, Node) and shapes.same(node, source) else None


def _keeps_values(node: Node, source: Node, shapes: FreeShapes) -> bool:
    """Whether the values stay what and where they were, given that the shape stays."""
    if node.target in SAME_NUMBERS | DROPOUTS:
        return True
    shape = shapes.tensors.get(source)
    if shape is None or shape.rank is None:
        return False
    order = axes_order(node, shape.rank)
    if order is not None:
        return order == sorted(order)
    limits = clamp_limits(node)
    if limits is not None or node.target is aten.abs.default:
        least, most = limits or (0.0, math.inf)
        low, high = value_range(source)
        return least <= low and high <= most
    given = arguments(node)
    if node.target is aten.slice.Tensor:
        return _keeps_all(given, shapes.fixed(source, given["dim"]))
    name = str(node.target).removeprefix("aten.")
    if name.startswith(PADS):
        return set(_numbers(given.get("pad", given.get("padding")))) == {0}
    if name.startswith(POOLS) and "kernel_size" in given:
        ones = (*_numbers(given["kernel_size"]), *_numbers(given.get("stride")))
        return set(ones) == {1} and not any(_numbers(given["padding"])) and given.get("divisor_override") in (None, 1)
    if name.startswith(RESIZES):  # a factor of 1.2 leaves 4 pixels 4, but moves what lies between them
        factors = [given.get(f) for f in ("scale_factors", "scales", "scales_h", "scales_w", "scales_d")]
        return all(set(_numbers(factor)) <= {1} for factor in factors)
    return False


def _keeps_all(given: dict[str, Any], fixed: bool) -> bool:
    """Whether a slice that keeps the shape keeps it for any batch: ``x[:100]`` is not x for a batch of 101."""
    start, end = given["start"], given["end"]
    whole = start in (None, 0) and (end is None or isinstance(end, Node) or end >= END)
    return given["step"] == 1 and (fixed or whole)


def _with_neutral(network: Network, node: Node) -> bool:
    """Whether a sum is with 0, a product with 1, an "and" with True, an "or" with False."""
    if node.target in ARITHMETIC:
        affine = affine_of(network, node)
        return affine is not None and bool((affine.scale == 1).all()) and not bool(affine.shift.any())
    constants = [n for n in node.all_input_nodes if n.op == "get_attr"]
    if len(constants) != 1 or len(node.all_input_nodes) == 1:
        return False
    constant = get_tensor(network.module, str(constants[0].target))
    neutral = torch.tensor(LOGIC[node.target])  # type: ignore[index]
    return constant.dtype is torch.bool and bool((constant == neutral).all())


def _skip_inner_clamp_(node: Node, shapes: FreeShapes) -> list[str]:
    """Read past a clamp whose work the one behind it does too: relu6(relu(x)) = relu6(x); its name if there was one."""
    limits = clamp_limits(node)
    if limits is None:
        return []
    inner = node.all_input_nodes[0]
    low, high = clamp_limits(inner) or (math.inf, math.inf)
    if len(inner.users) > 1 or not low <= limits[0] <= limits[1] <= high:
        return []
    if not shapes.same(inner, inner.all_input_nodes[0]):
        return []
    node.replace_input_with(inner, inner.all_input_nodes[0])
    return [inner.name]


def _numbers(value: Any) -> tuple[Any, ...]:
    """The numbers of an argument that may be a list, one number, or nothing."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


@register
@dataclass(frozen=True)
class RemoveNoOps(Method):
    """Remove every operator that changes nothing at inference."""

    dropout: str = param("remove", choices=("remove", "keep"), doc="keep it for a network that will be trained")

    cites = ("bacon1994compiler",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        return Outcome(result, *remove_no_ops_(result, free_shapes(result), self.dropout))
