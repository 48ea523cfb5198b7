"""Tables whose rows are read by number (words, places, items), and how often each row is."""

from collections import Counter
from collections.abc import Mapping, Sequence

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
    owners = Counter(table.rpartition(".")[0] for table in {table_of(n) for n in nodes if _is_stored(n.args[0])})
    return {_name(node, owners): node for node in nodes}


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

    Args:
        who: needs the data, for the sentence that says so.
        most: samples at most.
    """
    samples = needs_data(who, task, network).take(slice(0, most))
    calls = {name: n for name, n in lookups(network).items() if _is_stored(n.args[0])}
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


def _is_stored(source: object) -> bool:
    return isinstance(source, Node) and source.op == "get_attr"


def _name(node: Node, owners: Mapping[str, int]) -> str:
    """That of the table without its last part, unless another table has it too; of the call, where it is computed."""
    if not _is_stored(node.args[0]):
        return node.name
    owner = table_of(node).rpartition(".")[0]
    return owner if owner and owners[owner] == 1 else table_of(node)
