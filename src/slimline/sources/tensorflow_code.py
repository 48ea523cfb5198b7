"""Which operators of a TensorFlow graph run code, or read or write files: looked for before TensorFlow loads anything.

Takes protobuf messages of TensorFlow (GraphDef, MetaGraphDef) and imports none of it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

CODE = re.compile(
    r".*PyFunc.*|.*PyCall.*|XlaCustomCall.*|RemoteCall|.*Rpc.*|_?(Host)?(Send|Recv)|.*LoadLibrary.*"
    r"|(Read|Write|Append|Delete|Rename|Copy|Matching)Files?|ImmutableConst|.*FromTextFile.*|.*Reader.*|.*Dataset.*"
    r"|PrintV2|.*Summary.*|Debug.*|(Encode|Decode)Proto.*|(Save|Restore)(Slices?)?|TPUReplicate.*|.*Record.*|.*Lmdb.*"
)
"""Refused wherever they stand. PrintV2 can write to files; those on protobuf read a file that describes the message."""
CHECKPOINT = {"SaveV2", "MergeV2Checkpoints"}
"""Every SavedModel holds these, to be trained further; refused only where a signature or the loading reaches them."""


def code_operators(graph: Any) -> list[str]:
    """Operators of a GraphDef that run code or touch files, sorted."""
    found = {node.op for node in nodes(graph)}
    return sorted(op for op in found if CODE.fullmatch(op))


def nodes(graph: Any) -> Iterator[Any]:
    """Every node of a GraphDef and of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def code_of_saved_model(meta: Any) -> list[str]:
    """The same of a MetaGraphDef, with checkpoint writers that calling or loading it would run."""
    roots = [value.name for signature in meta.signature_def.values() for value in signature.outputs.values()]
    roots += [name for entry in meta.collection_def.values() for name in entry.node_list.value]
    roots += [meta.saver_def.restore_op_name]
    reached = reach(meta.graph_def, roots, meta.object_graph_def.concrete_functions)
    return sorted({*code_operators(meta.graph_def), *(reached & CHECKPOINT)})


def reach(graph: Any, roots: Iterable[str], functions: Iterable[str] = ()) -> set[str]:
    """Operators that computing the named nodes, or calling the named functions, may run."""
    by_name = {node.name: node for node in graph.node}
    bodies = {function.signature.name: function.node_def for function in graph.library.function}
    operators: set[str] = set()
    called, seen = list(functions), set()
    waiting = [by_name[_node_name(name)] for name in roots if _node_name(name) in by_name]
    while waiting or called:
        if called:
            name = called.pop()
            if name not in seen:
                seen.add(name)
                for node in bodies.get(name, ()):
                    operators.add(node.op)
                    called += _called(node)
            continue
        node = waiting.pop()
        if "node " + node.name in seen:
            continue
        seen.add("node " + node.name)
        operators.add(node.op)
        called += _called(node)
        waiting += [by_name[_node_name(name)] for name in node.input if _node_name(name) in by_name]
    return operators


def _node_name(name: str) -> str:
    """``^a`` and ``a:1`` -> ``a``."""
    return name.removeprefix("^").partition(":")[0]


def _called(node: Any) -> list[str]:
    """Functions that a node calls; the operator itself may be the name of one."""
    names = [value.func.name for value in node.attr.values() if value.func.name]
    return [node.op, *names, *(function.name for value in node.attr.values() for function in value.list.func)]
