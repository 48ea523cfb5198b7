"""The order in which the nodes of a graph can run."""

import heapq
from collections.abc import Iterator, Sequence, Set

import onnx

from slimline.errors import SlimlineError
from slimline.sources.onnx.limits import quoted
from slimline.sources.onnx.schema import label


def in_order(nodes: Sequence[onnx.NodeProto], defined: Set[str]) -> list[onnx.NodeProto]:
    """Nodes so that each comes after those it reads from, and otherwise as they were.

    ONNX wants files to be in such an order; some tools do not care, and runtimes accept that.

    Args:
        defined: names that have a value before the first node.

    Raises:
        SlimlineError: a node reads what nothing writes, or nodes wait for each other.
    """
    writer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs: list[set[int]] = []
    for node in nodes:
        names = dict.fromkeys(reads(node))
        absent = next((name for name in names if name not in writer and name not in defined), None)
        if absent is not None:
            raise SlimlineError(f"{label(node)} reads {quoted(absent)}, which nothing writes: the graph is damaged.")
        needs.append({writer[name] for name in names if name in writer})
    if all(before < i for i, found in enumerate(needs) for before in found):
        return list(nodes)
    order = _sorted(needs)
    if len(order) < len(nodes):
        ring = _ring(needs, set(order))
        listed = " -> ".join(quoted(nodes[i].name or next(iter(nodes[i].output), "")) for i in ring[:5])
        raise SlimlineError(f"the graph has a cycle of {len(ring)} nodes, in which each waits for another: {listed}.")
    return [nodes[i] for i in order]


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads from the graph it stands in: its inputs, and what its subgraphs take from outside."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield from _free(attribute.g)


def _free(graph: onnx.GraphProto) -> set[str]:
    """Names that a subgraph reads and does not define."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {sparse.values.name for sparse in graph.sparse_initializer}
    own |= {name for node in graph.node for name in node.output}
    found = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output if value.name}
    return found - own


def _sorted(needs: list[set[int]]) -> list[int]:
    """Positions in an order that respects what each needs; those on or after a cycle are left out."""
    waiting = [len(found) for found in needs]
    users: list[list[int]] = [[] for _ in needs]
    for i, found in enumerate(needs):
        for before in found:
            users[before].append(i)
    ready = [i for i, number in enumerate(waiting) if not number]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for user in users[i]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    return order


def _ring(needs: list[set[int]], done: set[int]) -> list[int]:
    """Positions that form one cycle, in the order in which values flow."""
    path: list[int] = [next(i for i in range(len(needs)) if i not in done)]
    place = {path[0]: 0}
    while True:  # every position that is not done needs another that is not
        before = next(i for i in sorted(needs[path[-1]]) if i not in done)
        if before in place:
            return path[place[before] :][::-1]
        place[before] = len(path)
        path.append(before)
