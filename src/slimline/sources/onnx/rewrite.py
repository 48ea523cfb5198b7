"""Exact rewrites of an ONNX graph before it is traced, into the operators that our methods and the runtimes know.

Exporters write one operator as many: Paddle a hard swish as Add, Clip, Mul, Div; older PyTorch a layer normalisation
as nine nodes; everyone a linear layer as MatMul and Add. `slimline.sources.onnx.patterns` holds the patterns. What
depends on constants only is computed, and what nothing reads any more is dropped at the end, so that a part that has
another reader stays.
"""

from dataclasses import replace

from slimline.sources.onnx.fold import folded
from slimline.sources.onnx.graph import OnnxGraph, OnnxNode
from slimline.sources.onnx.patterns import PATTERNS
from slimline.sources.onnx.site import Site


def rewrite(graph: OnnxGraph) -> OnnxGraph:
    """All rewrites, and nothing left that no output depends on."""
    site = Site(graph)
    nodes = []
    for node in graph.nodes:
        values = folded(site, node)
        if values is not None:
            site.constants.update(values)
            continue
        for pattern in PATTERNS:
            node = pattern(site, node) or node
        nodes.append(node)
        site.add(node)
    nodes = without_identities(nodes, set(graph.outputs))
    return _alive(OnnxGraph(nodes, site.constants, graph.inputs, graph.outputs))


def without_identities(nodes: list[OnnxNode], outputs: set[str]) -> list[OnnxNode]:
    """Identity nodes go, and their readers read what they read; those that write an output stay."""
    alias: dict[str, str] = {}
    kept = []
    for node in nodes:
        node = replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs))
        plain = node.kind == "Identity" and not node.domain and node.outputs[0] not in outputs
        if plain and not any(n.subgraphs() for n in nodes):  # a subgraph reads by name
            alias[node.outputs[0]] = node.inputs[0]
        else:
            kept.append(node)
    return kept


def _alive(graph: OnnxGraph) -> OnnxGraph:
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
            for inner in node.subgraphs():
                needed |= inner.reads()
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    return OnnxGraph(kept[::-1], constants, graph.inputs, graph.outputs)
