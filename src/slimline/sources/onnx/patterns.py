"""Patterns of ONNX nodes and the one operator each of them means; all are equal up to rounding.

Each is one small function that looks back from the last node of its pattern and returns the node to put in its place,
or None.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.site import CANONICAL, Site, is_float, near
from slimline.sources.onnx.values import Array


def _product(site: Site, node: OnnxNode) -> tuple[float, list[str]] | None:
    """The node's own result as a number times exactly two values."""
    if node.kind not in ("Mul", "Div") or node.domain:
        return None
    site.add(node)
    scale, parts = site.factors(node.outputs[0])
    del site.producers[node.outputs[0]]
    return (scale, parts) if len(parts) == 2 else None


def hard_swish(site: Site, node: OnnxNode) -> OnnxNode | None:
    """``x * clip(x + 3, 0, 6) / 6``, also with HardSigmoid."""
    product = _product(site, node)
    if product is None:
        return None
    scale, parts = product
    for x, gate_name in (parts, parts[::-1]):
        gate = site.made_by(gate_name, "Clip")
        six = gate is not None and near(scale, 1 / 6) and _clip_range(site, gate) == (0.0, 6.0)
        if six and gate is not None and site.plus(gate.inputs[0], 3.0) == x:
            return OnnxNode("HardSwish", node.name, (x,), node.outputs, {}, node.opset)
        gate = site.made_by(gate_name, "HardSigmoid")
        if gate is not None and near(scale, 1.0) and gate.inputs[0] == x and near(gate.get("alpha", 0.2), 1 / 6):
            return OnnxNode("HardSwish", node.name, (x,), node.outputs, {}, node.opset)
    return None


def _clip_range(site: Site, node: OnnxNode) -> tuple[float | None, float | None]:
    ends = [site.number(name) for name in node.inputs[1:]] + [None, None]
    return node.get("min", ends[0]), node.get("max", ends[1])


def swish(site: Site, node: OnnxNode) -> OnnxNode | None:
    """``x * sigmoid(x)``."""
    product = _product(site, node)
    if product is None or not near(product[0], 1.0):
        return None
    for x, gate_name in (product[1], product[1][::-1]):
        gate = site.made_by(gate_name, "Sigmoid")
        if gate is not None:
            scale, inner = site.factors(gate.inputs[0])
            if (scale == 1.0 and inner == [x]) or gate.inputs[0] == x:
                return OnnxNode("Swish", node.name, (x,), node.outputs, {}, node.opset)
    return None


def gelu(site: Site, node: OnnxNode) -> OnnxNode | None:
    """``0.5 x (1 + erf(x / sqrt 2))`` (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    product = _product(site, node)
    if product is None or not near(product[0], 0.5):
        return None
    for x, gate_name in (product[1], product[1][::-1]):
        inner = site.plus(gate_name, 1.0)
        erf = site.made_by(inner, "Erf") if inner is not None else None
        if erf is not None:
            scale, parts = site.factors(erf.inputs[0])
            if parts == [x] and near(scale, 1 / math.sqrt(2)):
                return OnnxNode("Gelu", node.name, (x,), node.outputs, {}, node.opset)
    return None


def layer_norm(site: Site, node: OnnxNode) -> OnnxNode | None:
    """``(x - mean) / sqrt(var + eps) * gamma + beta`` over the last axis (Ba et al. 2016, arXiv:1607.06450, eq. 4)."""
    shift = site.split(node) if node.kind == "Add" and not node.domain else None
    scaled = site.made_by(shift[1], "Mul") if shift else None
    scale = site.split(scaled) if scaled is not None else None
    normed = site.made_by(scale[1], "Div") if scale else None
    if shift is None or scale is None or normed is None:
        return None
    gamma, beta = site.constants[scale[0]], site.constants[shift[0]]
    centred, root = site.made_by(normed.inputs[0], "Sub"), site.made_by(normed.inputs[1], "Sqrt")
    if gamma.ndim != 1 or gamma.shape != beta.shape or gamma.size < 2 or centred is None or root is None:
        return None
    added = site.made_by(root.inputs[0], "Add")
    pair = site.split(added) if added is not None else None
    epsilon = site.number(pair[0]) if pair else None
    if pair is None or epsilon is None or not _is_mean_of_squares(site, pair[1], centred):
        return None
    x, mean = centred.inputs
    averaged = _last_mean(site, mean)
    if averaged != x:
        return None
    attributes = {"axis": -1, "epsilon": epsilon}
    return OnnxNode("LayerNormalization", node.name, (x, scale[0], shift[0]), node.outputs, attributes, node.opset)


def _is_mean_of_squares(site: Site, name: str, centred: OnnxNode) -> bool:
    squares = _last_mean(site, name)
    node = site.made_by(squares, "Pow", "Mul") if squares is not None else None
    if node is None or node.inputs[0] != centred.outputs[0]:
        same = site.made_by(node.inputs[0], "Sub") if node is not None else None  # some exporters subtract twice
        if node is None or same is None or same.inputs != centred.inputs:
            return False
    return site.number(node.inputs[1]) == 2.0 if node.kind == "Pow" else node.inputs[0] == node.inputs[1]


def _last_mean(site: Site, name: str) -> str | None:
    """What is averaged when the value is a mean over the last axis, kept as an axis of one."""
    node = site.made_by(name, "ReduceMean")
    if node is None or not node.get("keepdims", 1):
        return None
    axes = node.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] in site.constants:
        axes = site.constants[node.inputs[1]].tolist()
    return node.inputs[0] if axes == [-1] else None


def linear(site: Site, node: OnnxNode) -> OnnxNode | None:
    """MatMul or Gemm with a constant matrix is a linear layer, whose weight is (out, in)."""
    if node.domain or node.kind not in ("MatMul", "Gemm"):
        return None
    x, matrix, bias = (*node.inputs, "")[:3]
    if x in site.constants:
        return None
    plain = node.kind == "MatMul" or (
        node.get("alpha", 1.0) == 1.0 and node.get("beta", 1.0) == 1.0 and not node.get("transA", 0)
    )
    flipped = site.made_by(matrix, "Transpose")
    if flipped is not None and flipped.inputs[0] in site.constants and flipped.get("perm", [1, 0]) == [1, 0]:
        weight: str | None = flipped.inputs[0] if node.kind == "MatMul" or not node.get("transB", 0) else None
    elif matrix in site.constants and site.constants[matrix].ndim == 2 and is_float(site.constants[matrix]):
        weight = matrix if node.get("transB", 0) else _out_in(site, matrix)
    else:
        weight = None
    if not plain or weight is None or site.constants[weight].ndim != 2:
        return None
    if bias and (bias not in site.constants or site.constants[bias].size != len(site.constants[weight])):
        return None
    if bias:
        bias = _as_vector(site, bias)
    inputs = (x, weight, bias) if bias else (x, weight)
    return OnnxNode("Linear", node.name, inputs, node.outputs, {}, node.opset, CANONICAL)


def _out_in(site: Site, matrix: str) -> str | None:
    """The transpose of a matrix that only products read; a table of embeddings that is also a weight stays one."""
    others = [
        n for n in site.graph.nodes if matrix in n.inputs and n.kind not in ("MatMul", "Gemm") or matrix in n.inputs[:1]
    ]
    return None if others or matrix in site.graph.outputs else site.transposed(matrix)


def _as_vector(site: Site, name: str) -> str:
    array = site.constants[name]
    return name if array.ndim == 1 else site.constant(f"{name}_vector", array.reshape(-1))


def linear_bias(site: Site, node: OnnxNode) -> OnnxNode | None:
    """An Add of a constant vector after a linear layer is its bias."""
    pair = site.split(node) if node.kind == "Add" and not node.domain else None
    layer = site.made_by(pair[1], "Linear") if pair else None
    if pair is None or layer is None or len(layer.inputs) > 2 or site.readers[pair[1]] > 1:
        return None
    if site.constants[pair[0]].shape != (len(site.constants[layer.inputs[1]]),):
        return None
    return replace(layer, inputs=(*layer.inputs, pair[0]), outputs=node.outputs)


def conv_affine(site: Site, node: OnnxNode) -> OnnxNode | None:
    """``a * conv(x) + b`` with a number, or one per channel, is a convolution with other weights."""
    if node.kind not in ("Mul", "Add", "Sub", "Div") or node.domain or len(node.inputs) != 2:
        return None
    pair = site.split(node)
    layer = site.made_by(pair[1], "Conv") if pair else None
    if pair is None or layer is None or site.readers[pair[1]] > 1:
        return None
    if node.kind in ("Sub", "Div") and node.inputs[0] == pair[0]:
        return None  # b - conv(x), a / conv(x)
    weight_name, bias_name = (*layer.inputs, "")[1:3]
    weight, bias = site.constants.get(weight_name), site.constants.get(bias_name)
    if weight is None or not is_float(weight) or (bias_name and bias is None):
        return None
    number = _per_channel(site.constants[pair[0]], weight)
    if number is None:
        return None
    start = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    new_weight, new_bias = weight, start
    if node.kind in ("Mul", "Div"):
        factor = number if node.kind == "Mul" else 1 / number
        new_weight = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(weight.dtype)
        new_bias = start * factor
    else:
        new_bias = start + (number if node.kind == "Add" else -number)
    stem = layer.name or layer.outputs[0]
    names = [weight_name if new_weight is weight else site.constant(f"{stem}.weight", new_weight)]
    if bias is not None or node.kind in ("Add", "Sub"):
        names.append(site.constant(f"{stem}.bias", new_bias.astype(weight.dtype)))
    return replace(layer, inputs=(layer.inputs[0], *names), outputs=node.outputs)


def affine_conv(site: Site, node: OnnxNode) -> OnnxNode | None:
    """``conv(a x + b)`` with two numbers is a convolution of x with other weights, if nothing is padded.

    Padding puts zeros beside ``a x + b``, not beside x, so that b cannot move past a convolution that pads.
    """
    padded = any(node.get("pads", ())) or node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if node.kind not in ("Conv", "Linear") or node.domain not in ("", CANONICAL) or padded:
        return None
    weight_name, bias_name = (*node.inputs, "")[1:3]
    weight, bias = site.constants.get(weight_name), site.constants.get(bias_name)
    scale, shift, x = _affine(site, node.inputs[0])
    if weight is None or not is_float(weight) or (bias_name and bias is None) or x == node.inputs[0]:
        return None
    sums = weight.astype(np.float64).reshape(len(weight), -1).sum(1)
    start = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    stem = node.name or node.outputs[0]
    new_weight = site.constant(f"{stem}.weight", (weight * scale).astype(weight.dtype))
    new_bias = site.constant(f"{stem}.bias", (start + shift * sums).astype(weight.dtype))
    return replace(node, inputs=(x, new_weight, new_bias))


def _affine(site: Site, name: str) -> tuple[float, float, str]:
    """A value as ``scale * x + shift``, looked back through Mul and Add with numbers that nothing else reads."""
    scale, shift = 1.0, 0.0
    while True:
        node = site.made_by(name, "Mul", "Add")
        pair = site.split(node) if node is not None and site.readers[name] == 1 else None
        number = site.number(pair[0]) if pair else None
        if node is None or pair is None or number is None or site.constants[pair[0]].ndim > 1:
            return scale, shift, name
        # what was read so far is scale * v + shift, and v is number * x or x + number
        scale, shift = (scale * number, shift) if node.kind == "Mul" else (scale, shift + scale * number)
        name = pair[1]


def _per_channel(array: Array, weight: Array) -> Array | None:
    """One number per output channel, when the constant is a scalar or has only a channel axis."""
    spatial = weight.ndim - 2
    if array.size == 1 and array.ndim <= weight.ndim:
        return np.full(len(weight), array.reshape(-1)[0], dtype=np.float64)
    shape = (1,) * (weight.ndim - array.ndim) + array.shape
    fits = array.ndim <= weight.ndim and shape == (1, len(weight), *[1] * spatial)
    return array.reshape(-1).astype(np.float64) if fits else None


PATTERNS: tuple[Callable[[Site, OnnxNode], OnnxNode | None], ...] = (
    hard_swish, swish, gelu, layer_norm, linear, linear_bias, conv_affine, affine_conv,
)  # fmt: skip
