"""Files in 16-bit floating point, widened to 32 bits: weights that are to be trained need the precision."""

from dataclasses import replace

import numpy as np
import onnx

from slimline.sources.onnx.graph import OnnxGraph, OnnxNode
from slimline.sources.onnx.values import VIEWED, Array

HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
TYPE_ATTRIBUTES = ("to", "dtype", "stash_type", "output_dtype", "precision", "softmax_precision")
"""Attributes that name a type of tensor."""


def widened(graph: OnnxGraph) -> tuple[OnnxGraph, list[str]]:
    """The graph with 32-bit numbers in place of 16-bit ones, and a note when there were any."""
    halves = any(item.elem_type in HALVES for item in graph.inputs) or any(
        _is_half(value) for value in [*graph.constants.values(), *_arrays(graph)]
    )
    casts = any(node.kind == "Cast" and node.get("to") in HALVES for node in graph.all_nodes())
    if not halves and not casts:
        return graph, []
    return _widened(graph), ["16-bit numbers widened to 32 bits"]


def _arrays(graph: OnnxGraph) -> list[Array]:
    return [
        value
        for node in graph.all_nodes()
        for value in [
            *node.attributes.values(),
            *(array for inner in node.subgraphs() for array in inner.constants.values()),
        ]
        if isinstance(value, np.ndarray)
    ]


def _is_half(array: Array) -> bool:
    return bool(array.dtype == np.float16 or (array.dtype in VIEWED and array.dtype.name == "bfloat16"))


def _wide(array: Array) -> Array:
    return array.astype(np.float32) if _is_half(array) else array


def _widened(graph: OnnxGraph) -> OnnxGraph:
    return OnnxGraph(
        [
            replace(node, attributes={k: _attribute(node, k, v) for k, v in node.attributes.items()})
            for node in graph.nodes
        ],
        {name: _wide(array) for name, array in graph.constants.items()},
        [replace(i, elem_type=onnx.TensorProto.FLOAT) if i.elem_type in HALVES else i for i in graph.inputs],
        graph.outputs,
    )


def _attribute(node: OnnxNode, name: str, value: object) -> object:
    if isinstance(value, OnnxGraph):
        return _widened(value)
    if isinstance(value, np.ndarray):
        return _wide(value)
    return onnx.TensorProto.FLOAT if name in TYPE_ATTRIBUTES and value in HALVES else value
