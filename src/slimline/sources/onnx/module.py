"""An ONNX graph as a torch module: what `torch.export` traces."""

import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import get_tensor
from slimline.network.trace import put_tensor
from slimline.sources.onnx.graph import OnnxGraph, OnnxNode
from slimline.sources.onnx.limits import LARGEST_PROGRAM, quoted, refuse_large, shown
from slimline.sources.onnx.naming import weight_names
from slimline.sources.onnx.operators import TABLE, call
from slimline.sources.onnx.values import Array, Known, Value, tensor, to_tensor

TRAINABLE = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
STATISTICS = ("running_mean", "running_var")
"""Measured, not trained."""
TEXT = "OSU"
"""Kinds of numpy types that hold text."""


class OnnxModule(nn.Module):
    """Runs an ONNX graph with torch functions; constants are its parameters and buffers.

    Args:
        graph: its operators have to be in the table.

    Raises:
        SlimlineError: operators are not supported; all of them are listed, by name, with the nodes that use them.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        refuse_unsupported(graph)
        self.graph = graph
        self._stored = weight_names(graph)
        self._kept: set[str] = set()
        self._store(graph)

    def _store(self, graph: OnnxGraph) -> None:
        for array in graph.constants.values():
            name = self._stored[id(array)]
            if array.dtype.kind in TEXT or name in self._kept:
                continue
            self._kept.add(name)
            value = to_tensor(array)
            trainable = value.dtype in TRAINABLE and value.numel() > 1 and not name.endswith(STATISTICS)
            put_tensor(self, name, nn.Parameter(value) if trainable else value)
        for node in graph.nodes:
            for inner in node.subgraphs():
                self._store(inner)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the order of the graph."""
        outputs = Run(self).graph(self.graph, inputs, {})
        return tuple(_output(name, value) for name, value in zip(self.graph.outputs, outputs, strict=True))

    def constants(self, graph: OnnxGraph) -> dict[str, Value]:
        """The numbers that a graph stores, by name; it may also store text, which nothing computes with."""
        arrays = graph.constants.items()
        return {name: self._constant(array) for name, array in arrays if array.dtype.kind not in TEXT}

    def _constant(self, array: Array) -> Known:
        stored: Tensor = get_tensor(self, self._stored[id(array)])
        return Known(array, stored.dtype, stored)


class Run:
    """One pass through a graph and those inside its nodes, which counts what it does."""

    def __init__(self, module: OnnxModule) -> None:
        self.module = module
        self.done = 0

    def graph(self, graph: OnnxGraph, inputs: tuple[Value, ...], outer: dict[str, Value]) -> list[Value]:
        """The outputs of a graph.

        Args:
            outer: values of the graph around it, by name.
        """
        self.done += 1 + len(graph.nodes)
        if self.done > LARGEST_PROGRAM:
            raise SlimlineError(
                f"its loops run more than {LARGEST_PROGRAM:,} operators for one batch, which is not plausible."
            )
        if len(inputs) != len(graph.inputs):
            raise SlimlineError(f"a graph of {len(graph.inputs)} inputs is given {len(inputs)}: the file is damaged.")
        values = {**outer, "": None, **self.module.constants(graph)}
        values.update(zip((item.name for item in graph.inputs), inputs, strict=True))
        for node in graph.nodes:
            results = self._call(node, values)
            refuse_large(f"the node {node}", results)
            values.update(zip(node.outputs, results, strict=False))
            values[""] = None
        return [_value(name, values, "an output") for name in graph.outputs]

    def _call(self, node: OnnxNode, values: dict[str, Value]) -> tuple[Value, ...]:
        def run_graph(graph: OnnxGraph, *inputs: Value) -> list[Value]:
            return self.graph(graph, inputs, values)

        return call(node, [_value(name, values, f"the node {node}") for name in node.inputs], run_graph)


def _value(name: str, values: dict[str, Value], reader: str) -> Value:
    if name not in values:
        raise SlimlineError(
            f"{reader} reads {quoted(name)}, which is text or an output that its operator does not make."
        )
    return values[name]


def _output(name: str, value: Value) -> Tensor:
    result = tensor(value)
    if result is None:
        raise SlimlineError(f"the output {quoted(name)} has no value: the file is damaged.")
    return result


def refuse_unsupported(graph: OnnxGraph) -> None:
    """Raise with every operator that the table lacks, at once."""
    users: dict[str, list[str]] = {}
    for node in graph.all_nodes():
        if (node.domain, node.kind) not in TABLE:
            title = f"{shown(node.domain)}::{shown(node.kind)}" if node.domain else shown(node.kind)
            users.setdefault(title, []).append(shown(node.name or (node.outputs[0] if node.outputs else "?")))
    if users:
        listed = "; ".join(
            f"{kind} ({', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''})"
            for kind, names in sorted(users.items())
        )
        number = "an operator that is" if len(users) == 1 else f"{len(users)} operators that are"
        raise SlimlineError(f"it uses {number} not supported: {listed}.")
