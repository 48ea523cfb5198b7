"""An ONNX graph as plain data: nodes in order, constants by name, subgraphs as attributes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from slimline.errors import SlimlineError
from slimline.sources.onnx.limits import quoted, shown
from slimline.sources.onnx.order import in_order
from slimline.sources.onnx.schema import DOMAINS, check_node, opsets_of
from slimline.sources.onnx.schema import label as node_label
from slimline.sources.onnx.tensors import array_of, dense
from slimline.sources.onnx.values import Array


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
        return f"{shown(self.domain) + '::' if self.domain else ''}{shown(self.kind)} {quoted(label)}"

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
    """The main graph of a model, with every node checked against the definition of its operator.

    Nodes are put into the order in which they can run. Training information, metadata, quantisation annotations and the
    shapes said of inner values are not read: they change no output.

    Raises:
        SlimlineError: the graph is damaged: a cycle, a value that nothing or two nodes write, a node that does not
            fit its operator, a tensor that does not fit its shape, or operators of a version that is not known.
    """
    graph = _graph(model.graph, opsets_of(model), set())
    twice = [name for name in graph.outputs if graph.outputs.count(name) > 1]
    if twice or not graph.outputs:
        raise SlimlineError(f"it has the output {quoted(twice[0])} twice." if twice else "it has no outputs.")
    return graph


def _graph(proto: onnx.GraphProto, opsets: dict[str, int], outer: set[str]) -> OnnxGraph:
    constants = _initializers(proto)
    inputs = [_input(value) for value in proto.input if value.name not in constants]
    defined = {*outer, *constants, *(value.name for value in inputs), ""}
    _refuse_names([*constants, *(value.name for value in inputs)], proto)
    nodes = []
    for node in in_order(proto.node, defined):
        check_node(node, opsets[""])
        attributes = {a.name: attribute(a, opsets, defined) for a in node.attribute}
        defined.update(node.output)
        if node.op_type == "Constant" and node.domain in DOMAINS and len(node.output) == 1:
            value = constant_value(attributes)
            if value is not None:
                constants[node.output[0]] = value
                continue
        domain = "" if node.domain in DOMAINS else node.domain
        names = tuple(node.input), tuple(node.output)
        nodes.append(OnnxNode(node.op_type, node.name, *names, attributes, opsets.get(domain, 0), domain))
    outputs = [value.name for value in proto.output]
    absent = [name for name in outputs if name not in defined or not name]
    if absent:
        raise SlimlineError(f"no node writes the output {quoted(absent[0])}: the graph is damaged.")
    return OnnxGraph(nodes, constants, inputs, outputs)


def _initializers(proto: onnx.GraphProto) -> dict[str, Array]:
    """Stored weights by name; old files list them among the inputs, which makes them no less constant."""
    constants: dict[str, Array] = {}
    for name, stored in [(t.name, t) for t in proto.initializer] + [
        (s.values.name, s) for s in proto.sparse_initializer
    ]:
        if name in constants:
            raise SlimlineError(f"the weight {quoted(name)} is stored twice: the graph is damaged.")
        constants[name] = array_of(stored) if isinstance(stored, onnx.TensorProto) else dense(stored)
    return constants


def _refuse_names(given: list[str], proto: onnx.GraphProto) -> None:
    """Raise when a value has two sources or none: each is an input, a weight, or written by exactly one node."""
    if "" in given:
        raise SlimlineError("an input or a weight has no name: the graph is damaged.")
    seen: set[str] = set()
    for name in given:
        if name in seen:
            raise SlimlineError(f"two inputs are called {quoted(name)}: the graph is damaged.")
        seen.add(name)
    for node in proto.node:
        for name in node.output:
            if name and name in seen:
                raise SlimlineError(
                    f"{node_label(node)} writes {quoted(name)}, which has a value already: it is damaged."
                )
            seen.add(name)


def _input(value: onnx.ValueInfoProto) -> OnnxInput:
    kind = value.type.WhichOneof("value")
    if kind not in ("tensor_type", None):
        what = kind.removesuffix("_type").replace("_", " ")
        raise SlimlineError(f"the input {quoted(value.name)} is a {what}; only tensors can be read.")
    tensor_type = value.type.tensor_type
    shape: tuple[int | str | None, ...] | None = None
    if tensor_type.HasField("shape"):
        # MXNet writes 0, and some exporters -1, for an axis that is free.
        shape = tuple(
            (d.dim_value if d.dim_value > 0 else None) if d.HasField("dim_value") else (d.dim_param or None)
            for d in tensor_type.shape.dim
        )
    return OnnxInput(value.name, tensor_type.elem_type, shape)


def constant_value(attributes: dict[str, Any]) -> Array | None:
    """The value of a Constant node, or None when it holds text."""
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, value in attributes.items():
        if name in ("value", "sparse_value"):
            return np.asarray(value)
        if name in types:
            return np.array(value, dtype=types[name])
    return None


def attribute(proto: onnx.AttributeProto, opsets: dict[str, int], outer: set[str]) -> Any:
    """The value of an attribute: text decoded, tensors as arrays, graphs as `OnnxGraph`.

    Types that no operator in the table has are left as they are, so that the sentence about the operator comes first.
    """
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
        case kinds.UNDEFINED:
            raise SlimlineError(f"the attribute {quoted(proto.name)} has no type: the file is damaged.")
    return proto
