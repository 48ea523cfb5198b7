"""Exact rewrites of an ONNX graph before it is traced, into the operators that our methods and the runtimes know.

Exporters write one operator as many: Paddle a hard swish as Add, Clip, Mul, Div; older PyTorch a layer normalisation as
nine nodes; everyone a linear layer as MatMul and Add. Each pattern here is one small function that looks back from the
last node and returns the node to put in its place. What nothing reads any more is dropped at the end, so that a part that
has another reader stays. All rewrites are equal up to rounding.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from slimline.sources.onnx.graph import OnnxGraph, OnnxNode
from slimline.sources.onnx.values import Array

CANONICAL = "slimline"
"""Domain of the operators that ONNX lacks (`slimline.sources.onnx.operators.canonical`)."""
CLOSE = 1e-4
"""Relative error up to which a constant counts as the one of a formula: exporters print 1.4142135 or 1.41421."""


def rewrite(graph: OnnxGraph) -> OnnxGraph:
    """All rewrites, and nothing left that no output depends on."""
    site = Site(graph)
    nodes = []
    for node in graph.nodes:
        for pattern in PATTERNS:
            node = pattern(site, node) or node
        nodes.append(node)
        site.add(node)
    nodes = without_identities(nodes, set(graph.outputs))
    return _alive(OnnxGraph(nodes, site.constants, graph.inputs, graph.outputs))


@dataclass
class Site:
    """What a pattern may look at: the nodes before it, the constants, and who reads what."""

    graph: OnnxGraph
    constants: dict[str, Array] = field(init=False)
    producers: dict[str, OnnxNode] = field(default_factory=dict)
    readers: Counter[str] = field(default_factory=Counter)
    turned: dict[str, str] = field(default_factory=dict)
    """Name of a matrix -> name of its transpose."""

    def __post_init__(self) -> None:
        self.constants = dict(self.graph.constants)
        self.readers.update(self.graph.outputs)
        for node in self.graph.nodes:
            self.readers.update(node.inputs)
            for inner in node.subgraphs():
                self.readers.update(inner.reads())

    def add(self, node: OnnxNode) -> None:
        for name in node.outputs:
            self.producers[name] = node

    def made_by(self, name: str, *kinds: str) -> OnnxNode | None:
        """The node that writes a value, if it is of one of these kinds."""
        node = self.producers.get(name)
        return node if node is not None and node.kind in kinds and node.domain in ("", CANONICAL) else None

    def number(self, name: str) -> float | None:
        """A constant of one element."""
        array = self.constants.get(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and _is_float(array) else None

    def constant(self, name: str, array: Array) -> str:
        """Store a new constant; its name."""
        fresh, number = name, 1
        while fresh in self.constants:
            number += 1
            fresh = f"{name}_{number}"
        self.constants[fresh] = array
        return fresh

    def transposed(self, name: str) -> str:
        """The name of a constant matrix turned around; asked twice, it is the same constant."""
        if name not in self.turned:
            array = np.ascontiguousarray(self.constants[name].T)
            self.turned[name] = self.constant(f"{name}_transposed", array)
        return self.turned[name]

    def split(self, node: OnnxNode) -> tuple[str, str] | None:
        """(constant, other) of a node with two inputs of which one is a constant."""
        a, b = node.inputs
        if a in self.constants and b not in self.constants:
            return a, b
        return (b, a) if b in self.constants and a not in self.constants else None

    def factors(self, name: str) -> tuple[float, list[str]]:
        """A value as a number times other values, looked back through Mul and Div."""
        node = self.made_by(name, "Mul", "Div")
        if node is None:
            return 1.0, [name]
        left, right = node.inputs
        if node.kind == "Div":
            divisor = self.number(right)
            if not divisor:
                return 1.0, [name]
            scale, parts = self.factors(left)
            return scale / divisor, parts
        scale, parts = 1.0, []
        for side in (left, right):
            number = self.number(side)
            more, names = (number, []) if number is not None else self.factors(side)
            scale, parts = scale * more, parts + names
        return scale, parts

    def plus(self, name: str, number: float) -> str | None:
        """x when the value is ``x + number``."""
        node = self.made_by(name, "Add")
        pair = self.split(node) if node is not None else None
        found = self.number(pair[0]) if pair else None
        return pair[1] if pair and found is not None and _near(found, number) else None


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f"


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE)


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
        if gate is not None and _near(scale, 1 / 6) and _clip_range(site, gate) == (0.0, 6.0):
            if site.plus(gate.inputs[0], 3.0) == x:
                return OnnxNode("HardSwish", node.name, (x,), node.outputs, {}, node.opset)
        gate = site.made_by(gate_name, "HardSigmoid")
        if gate is not None and _near(scale, 1.0) and gate.inputs[0] == x and _near(gate.get("alpha", 0.2), 1 / 6):
            return OnnxNode("HardSwish", node.name, (x,), node.outputs, {}, node.opset)
    return None


def _clip_range(site: Site, node: OnnxNode) -> tuple[float | None, float | None]:
    ends = [site.number(name) for name in node.inputs[1:]] + [None, None]
    return node.get("min", ends[0]), node.get("max", ends[1])


def swish(site: Site, node: OnnxNode) -> OnnxNode | None:
    """``x * sigmoid(x)``."""
    product = _product(site, node)
    if product is None or not _near(product[0], 1.0):
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
    if product is None or not _near(product[0], 0.5):
        return None
    for x, gate_name in (product[1], product[1][::-1]):
        inner = site.plus(gate_name, 1.0)
        erf = site.made_by(inner, "Erf") if inner is not None else None
        if erf is not None:
            scale, parts = site.factors(erf.inputs[0])
            if parts == [x] and _near(scale, 1 / math.sqrt(2)):
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
    """x when the value is its mean over the last axis, kept as an axis of one."""
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
    elif matrix in site.constants and site.constants[matrix].ndim == 2 and _is_float(site.constants[matrix]):
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
    if weight is None or not _is_float(weight) or (bias_name and bias is None):
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


def _per_channel(array: Array, weight: Array) -> Array | None:
    """One number per output channel, when the constant is a scalar or has only a channel axis."""
    spatial = weight.ndim - 2
    if array.size == 1 and array.ndim <= weight.ndim:
        return np.full(len(weight), array.reshape(-1)[0], dtype=np.float64)
    shape = (1,) * (weight.ndim - array.ndim) + array.shape
    fits = array.ndim <= weight.ndim and shape == (1, len(weight), *[1] * spatial)
    return array.reshape(-1).astype(np.float64) if fits else None


PATTERNS: tuple[Callable[[Site, OnnxNode], OnnxNode | None], ...] = (
    hard_swish, swish, gelu, layer_norm, linear, linear_bias, conv_affine,
)  # fmt: skip


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
