"""Tables whose rows are read by number (words, places, items), and how often each row is."""

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from slimline.methods.method import needs_data
from slimline.methods.readers import batches
from slimline.network.calls import readers_of
from slimline.network.network import Network, get_tensor
from slimline.task import Task

aten = torch.ops.aten


def lookups(network: Network) -> dict[str, Node]:
    """The calls that read tables, by the name of their table, in the order of the graph."""
    nodes = network.module.graph.find_nodes(op="call_function", target=aten.embedding.default)
    return {_name(node): node for node in nodes}


def not_own(network: Network, node: Node) -> list[str]:
    """Why the table of a call cannot be replaced; [] means it can."""
    if not _is_stored(node.args[0]):
        return ["has a table that is computed"]
    if len(readers_of(network, table_of(node))) > 1:
        return ["has a table that is read elsewhere too"]
    if not get_tensor(network.module, table_of(node)).is_floating_point():
        return ["has a table of whole numbers"]
    return []


def table_of(node: Node) -> str:
    """The name of the weight that a call looks up in."""
    source = node.args[0]
    assert isinstance(source, Node)
    return str(source.target)


def stem(name: str, node: Node) -> str:
    """What the names of the weights that take the place of a table begin with."""
    return f"{name}_" if name == table_of(node) else f"{name}."


def reads(network: Network, task: Task | None, who: str, most: int) -> dict[str, Tensor]:
    """How often each row of each stored table is read, float64 (rows,), by the name of the table.

    Only what leads to the numbers is computed.

    Args:
        who: needs the data, for the sentence that says so.
        most: samples at most.
    """
    samples = needs_data(who, task, network).take(slice(0, most))
    small = network.copy().set_training_(False)
    graph = small.module.graph
    calls = {name: n for name, n in lookups(small).items() if _is_stored(n.args[0])}
    sizes = {name: len(get_tensor(network.module, table_of(node))) for name, node in calls.items()}
    next(reversed(graph.nodes)).args = (tuple(node.args[1] for node in calls.values()),)
    graph.eliminate_dead_code()
    numbers_of = GraphModule(small.module, graph)
    found = {name: torch.zeros(size, dtype=torch.double) for name, size in sizes.items()}
    with torch.no_grad():
        for inputs in batches(network, samples):
            for (name, count), numbers in zip(found.items(), numbers_of(*inputs), strict=True):
                count += torch.bincount(numbers.flatten(), minlength=sizes[name])
    return found


def _is_stored(source: object) -> bool:
    return isinstance(source, Node) and source.op == "get_attr"


def _name(node: Node) -> str:
    if not _is_stored(node.args[0]):
        return node.name
    return table_of(node).rpartition(".")[0] or table_of(node)
