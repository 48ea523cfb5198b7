"""Constant folding: what depends on nothing but constants is computed once, when the file is read."""

from typing import Any

import torch

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators import TABLE, call
from slimline.sources.onnx.site import Site, is_float
from slimline.sources.onnx.values import Array, Known, Value, to_tensor

KEPT = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "RandomNormal", "RandomNormalLike",
        "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout",
    }
)  # fmt: skip
"""Integer weights stay integers; random numbers are drawn anew."""
LARGEST_GROWTH = 2**22
"""Elements that a folded result may have more than its inputs: folding must not make a small file large."""


def folded(site: Site, node: OnnxNode) -> dict[str, Array] | None:
    """The values of a node whose inputs are all constants, by output name; None when it stays a node.

    What is made of a weight that something else reads as it is stays too, so that a table of embeddings that is also
    the last weight is stored, and trained, once.
    """
    read = [name for name in node.inputs if name]
    if not read or node.kind in KEPT or node.subgraphs() or (node.domain, node.kind) not in TABLE:
        return None
    if any(name not in site.constants or site.constants[name].dtype.kind in "OSU" for name in read):
        return None
    if any(_is_weight(site.constants[name]) and site.readers[name] > 1 for name in read):
        return None
    values: list[Value] = [_known(site.constants[name]) if name else None for name in node.inputs]
    with torch.no_grad():
        results = call(node, values, _no_graphs)
    arrays = {name: _array(result) for name, result in zip(node.outputs, results, strict=False) if name}
    grown = sum(array.size for array in arrays.values()) - sum(site.constants[name].size for name in read)
    return arrays if grown <= LARGEST_GROWTH else None


def _is_weight(array: Array) -> bool:
    return is_float(array) and array.size > 1


def _known(array: Array) -> Known:
    stored = to_tensor(array)
    return Known(array, stored.dtype, stored)


def _array(value: Value) -> Array:
    result = value.tensor() if isinstance(value, Known) else value
    assert result is not None
    array: Array = result.detach().numpy()
    return array


def _no_graphs(*values: Any) -> list[Value]:
    raise SlimlineError("it has a graph inside that cannot be computed beforehand.")
