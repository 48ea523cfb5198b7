"""An ONNX graph as plain data: nodes in order, constants by name, subgraphs as attributes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
from onnx import numpy_helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.values import Array

DOMAINS = ("", "ai.onnx")
"""Both are the default domain."""


@dataclass(frozen=True)
class OnnxNode:
    """One operator call."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    """Names of values; an empty name is an input that was left out."""
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    """ints, floats, strings, lists of them, numpy arrays, or `OnnxGraph`."""
    opset: int = 0
    domain: str = ""

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default of the operator's definition given by the caller."""
        return self.attributes.get(name, default)

    def __str__(self) -> str:
        label = self.name or (self.outputs[0] if self.outputs else "")
        return f"{self.domain + '::' if self.domain else ''}{self.kind} {label!r}"

    def subgraphs(self) -> list["OnnxGraph"]:
        return [value for value in self.attributes.values() if isinstance(value, OnnxGraph)]


@dataclass(frozen=True)
class OnnxInput:
    """An input of the graph."""

    name: str
    elem_type: int
    shape: tuple[int | str | None, ...] | None
    """A number, the name of a free axis, or None for an axis without a name; None altogether when the rank is free."""


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes in the order they run, the constants they read, and the names of what goes in and out."""

    nodes: list[OnnxNode]
    constants: dict[str, Array]
    inputs: list[OnnxInput]
    outputs: list[str]

    def with_nodes(self, nodes: list[OnnxNode]) -> "OnnxGraph":
        return replace(self, nodes=nodes)

    def all_nodes(self) -> Iterator[OnnxNode]:
        """Nodes of this graph and of the graphs inside its nodes."""
        for node in self.nodes:
            yield node
            for graph in node.subgraphs():
                yield from graph.all_nodes()

    def reads(self) -> set[str]:
        """Every name that a node here or in a subgraph reads, and the outputs."""
        found = set(self.outputs)
        for node in self.nodes:
            found.update(node.inputs)
            for graph in node.subgraphs():
                found |= graph.reads()
        return found


def build_graph(model: onnx.ModelProto) -> OnnxGraph:
    """The main graph of a model that has been read and checked (`slimline.sources.onnx.file`)."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if "ai.onnx" in opsets:
        opsets.setdefault("", opsets["ai.onnx"])
    return _graph(model.graph, opsets, frozenset())


def _graph(proto: onnx.GraphProto, opsets: dict[str, int], outer: frozenset[str]) -> OnnxGraph:
    constants = {tensor.name: array_of(tensor) for tensor in proto.initializer}
    for sparse in proto.sparse_initializer:
        constants[sparse.values.name] = dense(sparse)
    inputs = [_input(value) for value in proto.input if value.name not in constants]
    nodes = []
    defined = set(outer) | set(constants) | {value.name for value in inputs} | {""}
    for node in proto.node:
        absent = [name for name in node.input if name not in defined]
        if absent:
            raise SlimlineError(
                f"the node {node.op_type} {node.name or (list(node.output) or [''])[0]!r} reads {absent[0]!r}, which "
                "nothing before it writes: the graph has a cycle or is damaged."
            )
        attributes = {a.name: attribute(a, opsets, frozenset(defined | set(node.output))) for a in node.attribute}
        if node.op_type == "Constant" and node.domain in DOMAINS and len(node.output) == 1:
            value = constant_value(attributes)
            if value is not None:
                constants[node.output[0]] = value
                defined.add(node.output[0])
                continue
        domain = "" if node.domain in DOMAINS else node.domain
        nodes.append(
            OnnxNode(
                node.op_type,
                node.name,
                tuple(node.input),
                tuple(node.output),
                attributes,
                opsets.get(node.domain, opsets.get(domain, 0)),
                domain,
            )
        )
        defined |= set(node.output)
    outputs = [value.name for value in proto.output]
    absent = [name for name in outputs if name not in defined]
    if absent:
        raise SlimlineError(f"no node writes the output {absent[0]!r}: the graph is damaged.")
    return OnnxGraph(nodes, constants, inputs, outputs)


def _input(value: onnx.ValueInfoProto) -> OnnxInput:
    kind = value.type.WhichOneof("value")
    if kind not in ("tensor_type", None):
        raise SlimlineError(f"the input {value.name!r} is a {kind.removesuffix('_type')}; only tensors can be read.")
    tensor_type = value.type.tensor_type
    shape: tuple[int | str | None, ...] | None = None
    if tensor_type.HasField("shape"):
        # MXNet writes 0, and some exporters -1, for an axis that is free.
        shape = tuple(
            (d.dim_value if d.dim_value > 0 else None) if d.HasField("dim_value") else (d.dim_param or None)
            for d in tensor_type.shape.dim
        )
    return OnnxInput(value.name, tensor_type.elem_type, shape)


def array_of(tensor: onnx.TensorProto) -> Array:
    """The numbers of a tensor whose size has been checked."""
    array: Array = numpy_helper.to_array(tensor)
    return array


def dense(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse constant with its zeros written out."""
    import numpy as np

    values, indices = array_of(sparse.values), array_of(sparse.indices)
    full = np.zeros(int(np.prod(sparse.dims)), values.dtype)
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims))
    full[flat] = values
    return full.reshape(tuple(sparse.dims))


def constant_value(attributes: dict[str, Any]) -> Array | None:
    """The value of a Constant node, or None when it holds text."""
    import numpy as np

    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, value in attributes.items():
        if name in ("value", "sparse_value"):
            return np.asarray(value)
        if name in types:
            return np.array(value, dtype=types[name])
    return None


def attribute(proto: onnx.AttributeProto, opsets: dict[str, int], outer: frozenset[str]) -> Any:
    """The value of an attribute: text decoded, tensors as arrays, graphs as `OnnxGraph`."""
    kinds = onnx.AttributeProto
    match proto.type:
        case kinds.TENSOR:
            return array_of(proto.t)
        case kinds.SPARSE_TENSOR:
            return dense(proto.sparse_tensor)
        case kinds.GRAPH:
            return _graph(proto.g, opsets, outer)
        case kinds.STRING:
            return proto.s.decode("utf-8", "replace")
        case kinds.STRINGS:
            return [text.decode("utf-8", "replace") for text in proto.strings]
        case kinds.INT:
            return proto.i
        case kinds.FLOAT:
            return proto.f
        case kinds.INTS:
            return list(proto.ints)
        case kinds.FLOATS:
            return list(proto.floats)
    raise SlimlineError(f"the attribute {proto.name!r} has a type that cannot be read ({proto.type}).")
