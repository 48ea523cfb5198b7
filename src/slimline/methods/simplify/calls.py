"""Operator calls of a graph: whether they may be shared, left out or put in another's place."""

import operator

import torch
from torch.fx import Node

from slimline.network.calls import arguments
from slimline.network.network import Network

aten = torch.ops.aten
NUMBERS = {
    operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg, operator.mod,
}  # fmt: skip
SHARES = ("p", "dropout", "dropout_p")
"""What operators call the share of values that they drop."""
MODES = ("train", "training")
MAKES_NOTHING = ("empty", "new_empty", "resize")
"""Operators whose result holds whatever was in memory have names that start so."""


def draws(node: Node, in_training: bool = False) -> bool:
    """Whether a call gives another result each time.

    Args:
        in_training: count those too that do so once the network is switched to training.
    """
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    given = arguments(node)
    shares = [given[name] for name in SHARES if name in given]
    if shares and not any(shares):
        return False
    switched_off = any(given.get(name) is False for name in MODES)
    return in_training or not switched_off


def is_pure(node: Node) -> bool:
    """Whether a call gives the same for the same arguments and changes nothing else."""
    if node.op != "call_function":
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target in NUMBERS
    given = arguments(node)
    learns = given.get("running_mean") is not None and bool(given.get("training") or given.get("use_input_stats"))
    name = node.target._schema.name.partition("::")[2]
    return not (node.target._schema.is_mutable or learns or draws(node) or name.startswith(MAKES_NOTHING))


def is_quantised(node: Node) -> bool:
    """Whether a call quantises or dequantises; runtimes look for these pairs just as they stand."""
    return str(node.target).startswith("quantized_decomposed")


def value_readers(node: Node) -> list[Node]:
    """Who reads the numbers in a tensor, not only its sizes."""
    return [user for user in node.users if user.target is not aten.sym_size.int]


def axes_order(node: Node, rank: int) -> list[int] | None:
    """Where each axis of the result lay in the tensor of ``rank`` axes; None for a call that is no permutation."""
    given = arguments(node)
    order = list(range(rank))
    if node.target is aten.permute.default:
        return [axis % rank for axis in given["dims"]]
    if node.target in (aten.transpose.int, aten.swapaxes.default, aten.swapdims.default):
        names = ("dim0", "dim1") if "dim0" in given else ("axis0", "axis1")
        one, other = (given[name] % rank for name in names)
    elif node.target is aten.mT.default or (node.target is aten.t.default and rank == len("ij")):
        one, other = rank - 2, rank - 1
    else:
        return None
    order[one], order[other] = order[other], order[one]
    return order


def why_not_replace(node: Node, by: Node) -> str:
    """Why the readers of a value cannot read another, equal one instead; nothing where they can."""
    is_output = any(user.op == "output" for user in node.users)
    return "an output cannot be an input itself" if is_output and by.op == "placeholder" else ""


def let_views_copy_(network: Network) -> None:
    """Turn every ``view`` into ``reshape``, which does the same; edits the network.

    A view asks for one order in memory, and a tensor that takes the place of another may lie in another order.
    """
    for node in network.module.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
