"""A file that was exported for one batch size, made to work for any."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from slimline.sources.onnx.graph import OnnxGraph, OnnxInput, OnnxNode

STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
"""Inputs that hold the state before the first step; it is zero when left out."""


def fixed_batch(inputs: Sequence[OnnxInput]) -> int | None:
    """The batch that the file fixes, or None where it is free.

    A network whose inputs fix different first axes has no batch there; tracing will say so.
    """
    first = {item.shape[0] for item in inputs if item.shape}
    batch = first.pop() if len(first) == 1 else None
    return batch if isinstance(batch, int) else None


def freed(graph: OnnxGraph, batch: int) -> OnnxGraph:
    """The graph with the batch taken from its inputs where constants repeat it.

    Two things hold a batch in practice: the target of a Reshape, whose first entry becomes 0 (copy the size of the
    input), and initial states of zeros in recurrent layers, which are what a missing input means. A batch of 1 in a
    Reshape is left to the operator, which sees what is reshaped (`slimline.sources.onnx.operators.reshape`). Whether
    all of it is right is decided by comparing answers (`slimline.sources.onnx.network`).
    """
    constants = dict(graph.constants)
    nodes = []
    for node in graph.nodes:
        if node.kind == "Reshape" and not node.domain and len(node.inputs) == 2 and batch > 1:
            target = constants.get(node.inputs[1])
            if target is not None and target.ndim == 1 and target.size and target[0] == batch and not _takes_zero(node):
                name = f"{node.inputs[1]}_free_batch"
                constants[name] = np.concatenate([np.zeros(1, target.dtype), target[1:]])
                node = replace(node, inputs=(node.inputs[0], name))
        elif node.kind in STATES and not node.domain:
            node = _without_zero_states(node, graph)
        nodes.append(node)
    inputs = [replace(item, shape=(None, *item.shape[1:])) if item.shape else item for item in graph.inputs]
    return OnnxGraph(nodes, constants, inputs, graph.outputs)


def _takes_zero(node: OnnxNode) -> bool:
    return bool(node.get("allowzero", 0))


def _without_zero_states(node: OnnxNode, graph: OnnxGraph) -> OnnxNode:
    inputs = list(node.inputs)
    for position in STATES[node.kind]:
        state = graph.constants.get(inputs[position]) if len(inputs) > position else None
        if state is not None and not state.any():
            inputs[position] = ""
    return replace(node, inputs=tuple(inputs))
