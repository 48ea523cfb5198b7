"""Constant folding: what is computed from weights and numbers alone is computed once and stored.

Kildall (1973). A Unified Approach to Global Program Optimization. doi:10.1145/512927.512945, constant propagation:

    a value is constant if every argument of a pure operator is         C(f(a, b)) = f(C(a), C(b))

Ours differs: weights are constants too, trainable ones as well, as this is for inference; the result of a trainable
weight is a trainable weight. Bounded by what it may add to the file.
Helps: weight norm and other parametrisations, tables of relative positions, masks and index tables.
Does not: random numbers; results much larger than what they are made of, such as a table stretched over a map; weights
that stay for other readers; dequantised weights, which are stored as integers for a reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.simplify.calls import is_pure, is_quantised
from slimline.network.network import Network, get_tensor
from slimline.network.surgery import set_weight, unused_name
from slimline.task import Task
from slimline.training.workspace import Workspace

MIB = 2**20
GROWTH, SPARE = 4.0, 1.0


def constants(network: Network) -> dict[Node, frozenset[str]]:
    """Every node that no input reaches, in order, and the names of the weights that it is made of."""
    found: dict[Node, frozenset[str]] = {}
    for node in network.module.graph.nodes:
        if node.op == "get_attr":
            if get_tensor(network.module, str(node.target)).dtype is not torch.uint8:  # packed numbers of a codebook
                found[node] = frozenset({str(node.target)})
        elif is_pure(node) and not is_quantised(node) and all(n in found for n in node.all_input_nodes):
            found[node] = frozenset().union(*(found[n] for n in node.all_input_nodes))
    return found


def computed(network: Network, nodes: Iterable[Node]) -> dict[Node, Any]:
    """What constant nodes, given in order, hold."""
    values: dict[Node, Any] = {}
    with torch.no_grad():
        for node in nodes:
            if node.op == "get_attr":
                values[node] = get_tensor(network.module, str(node.target)).detach()
            else:
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values


def fold_constants_(network: Network, growth: float = GROWTH, spare: float = SPARE) -> tuple[list[str], dict[str, str]]:
    """Store every constant that is computed; the new weights, and why others stay. Edits the network.

    Args:
        growth: a result may have so many times the bytes of the weights that it replaces,
        spare: plus so many MiB.
    """
    changed: list[str] = []
    skipped: dict[str, str] = {}
    made_of = constants(network)
    values = computed(network, made_of)
    calls = [node for node in made_of if node.op != "get_attr"]
    computing = set(calls)
    stay = {str(n.target) for n in made_of if n.op == "get_attr" and any(user not in made_of for user in n.users)}
    for node in reversed(calls):  # readers first: what a stored value was made of need not be stored
        value = values[node]
        if all(user in computing for user in node.users):
            continue
        replaced = sum(_bytes(get_tensor(network.module, name)) for name in made_of[node] - stay)
        if isinstance(value, Tensor) and _bytes(value) <= growth * replaced + spare * MIB:
            changed.append(_store_(network, node, value, made_of[node]))
            continue
        if isinstance(value, Tensor):
            skipped[node.name] = (
                f"would store {_bytes(value) / MIB:.2f} MiB in the place of {replaced / MIB:.2f} MiB of weights"
            )
        computing.discard(node)
        stay |= {str(n.target) for n in node.all_input_nodes if n.op == "get_attr"}
    for node in reversed(calls):  # a dropout, though switched off, is no dead code to torch
        if not node.users:
            network.module.graph.erase_node(node)
    network.tidy_()
    return changed[::-1], skipped


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _store_(network: Network, node: Node, value: Tensor, sources: frozenset[str]) -> str:
    """Put a weight in the place of a node; the weight's name."""
    trainable = any(get_tensor(network.module, name).requires_grad for name in sources)
    name = unused_name(network, _name(node, sources))
    set_weight(network, name, value, trainable)
    with network.module.graph.inserting_before(node):
        stored = network.module.graph.create_node("get_attr", name)
    node.replace_all_uses_with(stored)
    return name


def _name(node: Node, sources: frozenset[str]) -> str:
    """Where the constant belongs: ``conv.weight`` for one of ``conv.parametrizations.weight.original0`` and ``1``."""
    paths = [name.split(".")[:-1] for name in sources]
    shared = [parts[0] for parts in zip(*paths, strict=False) if len(set(parts)) == 1]
    if "parametrizations" in shared:
        return ".".join([*shared[: shared.index("parametrizations")], shared[shared.index("parametrizations") + 1]])
    return ".".join([*shared, node.name])


@register
@dataclass(frozen=True)
class FoldConstants(Method):
    """Compute once what depends on no input, and store it."""

    growth: float = param(GROWTH, low=0.0, high=1000.0, doc="most bytes of a result, in bytes of weights it replaces")
    spare: float = param(SPARE, low=0.0, high=10000.0, doc="MiB that each result may have beyond that")

    needs = frozenset({"float weights"})
    cites = ("kildall1973unified",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        return Outcome(result, *fold_constants_(result, self.growth, self.spare))
