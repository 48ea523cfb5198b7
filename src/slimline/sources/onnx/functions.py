"""A model's own functions: their bodies in place of their calls, unless that would never end."""

from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import inliner

from slimline.errors import SlimlineError
from slimline.sources.onnx.limits import LARGEST_PROGRAM, shown

LARGEST_MODEL = 2**31
"""Bytes; protobuf can hold no more in one message."""
Key = tuple[str, str, str]
"""Domain, name and overload of a function."""


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions of its own.

    Raises:
        SlimlineError: a function calls itself, or functions that call each other stand for more nodes than a
            network has.
    """
    if not model.functions:
        return model
    _check(model)
    try:
        result: onnx.ModelProto = inliner.inline_local_functions(model)
    except Exception as error:  # it is C++ and raises several types, those of protobuf among them
        raise SlimlineError(
            "its own functions cannot be put in place of their calls: export it without them."
        ) from error
    return result


def calls(nodes: Iterator[onnx.NodeProto]) -> Counter[Key]:
    """How often each operator or function is called by nodes and the graphs inside them."""
    found: Counter[Key] = Counter()
    for node in nodes:
        found[node.domain, node.op_type, node.overload] += 1
        for attribute in node.attribute:
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                found += calls(iter(graph.node))
    return found


def _check(model: onnx.ModelProto) -> None:
    """Refuse recursion, and bodies that multiply to more nodes or bytes than a model can have."""
    bodies = {(f.domain, f.name, f.overload): f for f in model.functions}
    if len(bodies) != len(model.functions):
        raise SlimlineError("it defines a function twice: the file is damaged.")
    called = {key: calls(iter(f.node)) for key, f in bodies.items()}
    sizes: dict[Key, tuple[int, int]] = {}
    for key in _callees_first({key: [k for k in found if k in bodies] for key, found in called.items()}):
        sizes[key] = _total(called[key], bodies[key].ByteSize(), sizes)
    nodes, size = _total(calls(iter(model.graph.node)), model.graph.ByteSize(), sizes)
    if nodes > LARGEST_PROGRAM or size >= LARGEST_MODEL:
        raise SlimlineError(
            f"its functions stand for {nodes:,} nodes and {size:,} bytes; more than {LARGEST_PROGRAM:,} nodes or 2 GiB "
            "is not plausible."
        )


def _total(called: Counter[Key], size: int, sizes: dict[Key, tuple[int, int]]) -> tuple[int, int]:
    """Nodes and bytes after every call has been replaced."""
    nodes = 0
    for key, times in called.items():
        inner_nodes, inner_size = sizes.get(key, (1, 0))
        nodes += times * inner_nodes
        size += times * inner_size
    return nodes, size


def _callees_first(callees: dict[Key, list[Key]]) -> list[Key]:
    """Functions in an order in which each comes after those it calls; no recursion here, as chains may be long."""
    order: list[Key] = []
    done: set[Key] = set()
    for start in callees:
        path: list[Key] = []
        on_path: set[Key] = set()
        waiting = [(start, False)]
        while waiting:
            key, leaving = waiting.pop()
            if leaving:
                path.pop()
                on_path.remove(key)
                done.add(key)
                order.append(key)
            elif key in on_path:
                ring = " -> ".join(shown(name) for _, name, _ in [*path[path.index(key) :], key][:8])
                raise SlimlineError(f"a function of the model calls itself ({ring}): no runtime can run that.")
            elif key not in done:
                path.append(key)
                on_path.add(key)
                waiting.append((key, True))
                waiting += [(callee, False) for callee in callees[key]]
    return order
