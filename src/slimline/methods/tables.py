"""Tables whose rows are read by number (words, places, items), and how often each row is."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from slimline.methods.method import check_names, needs_data
from slimline.methods.readers import batches
from slimline.network.calls import by_layer, readers_of, stored_name
from slimline.network.network import Network, get_tensor
from slimline.task import Task

aten = torch.ops.aten


def lookups(network: Network) -> dict[str, Node]:
    """The calls that read tables, by the name of their table, in the order of the graph."""
    nodes = network.module.graph.find_nodes(op="call_function", target=aten.embedding.default)
    return by_layer({node: stored_name(node.args[0]) for node in nodes})


def own_lookups(network: Network, names: Sequence[str], who: str) -> tuple[dict[str, Node], dict[str, str]]:
    """The calls whose tables may be replaced, by the name of the table, and by name why others may not.

    Args:
        names: only these; none for all.
        who: the method that is told in the sentence.

    Raises:
        SlimlineError: a name is no table's.
    """
    calls = lookups(network)
    check_names(f"{who}(layers=...)", names, calls, "table")
    reasons = {name: _not_own(network, node) for name, node in calls.items() if not names or name in names}
    return {n: calls[n] for n, why in reasons.items() if not why}, {n: why for n, why in reasons.items() if why}


def _not_own(network: Network, node: Node) -> str:
    """Why the table of a call cannot be replaced; empty where it can."""
    table = stored_name(node.args[0])
    if table is None:
        return "has a table that is computed"
    if len(readers_of(network, table)) > 1:
        return "has a table that is read elsewhere too"
    return "" if get_tensor(network.module, table).is_floating_point() else "has a table of whole numbers"


def table_of(node: Node) -> str:
    """The name of the stored table that a call looks up in."""
    table = stored_name(node.args[0])
    assert table is not None
    return table


def reads(network: Network, task: Task | None, who: str, most: int) -> dict[str, Tensor]:
    """How often each row of each stored table is read, float64 (rows,), by the name of the table.

    Args:
        who: needs the data, for the sentence that says so.
        most: samples at most.
    """
    samples = needs_data(who, task, network).take(slice(0, most))
    calls = {name: node for name, node in lookups(network).items() if stored_name(node.args[0])}
    sizes = {name: len(get_tensor(network.module, table_of(node))) for name, node in calls.items()}
    numbers_of = numbers_read(network, list(calls.values()))
    found = {name: torch.zeros(size, dtype=torch.double) for name, size in sizes.items()}
    with torch.no_grad():
        for inputs in batches(network, samples):
            for (name, count), numbers in zip(found.items(), numbers_of(*inputs), strict=True):
                count += torch.bincount(numbers.flatten(), minlength=sizes[name])
    return found


def numbers_read(network: Network, calls: Sequence[Node]) -> GraphModule:
    """What computes the numbers by which these calls look up, and nothing else."""
    small = network.copy().set_training_(False)
    graph = small.module.graph
    nodes = {node.name: node for node in graph.nodes}
    next(reversed(graph.nodes)).args = (tuple(nodes[call.name].args[1] for call in calls),)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))  # a dropout is no dead code to torch
    return GraphModule(small.module, graph)
