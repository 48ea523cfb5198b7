"""An ONNX graph as a torch module: what `torch.export` traces."""

import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import get_tensor
from slimline.network.trace import put_tensor
from slimline.sources.onnx.graph import OnnxGraph, OnnxNode
from slimline.sources.onnx.naming import weight_names
from slimline.sources.onnx.operators import TABLE, call
from slimline.sources.onnx.values import Array, Known, Value, tensor, to_tensor

TRAINABLE = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
STATISTICS = ("running_mean", "running_var")
"""Measured, not trained."""


class OnnxModule(nn.Module):
    """Runs an ONNX graph with torch functions; constants are its parameters and buffers.

    Args:
        graph: its operators have to be in the table (`unsupported` lists those that are not).

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
            if array.dtype.kind in "OSU" or name in self._kept:
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
        outputs = self._run(self.graph, inputs, {})
        return tuple(self._output(value) for value in outputs)

    @staticmethod
    def _output(value: Value) -> Tensor:
        result = tensor(value)
        assert result is not None
        return result

    def _run(self, graph: OnnxGraph, inputs: tuple[Value, ...], outer: dict[str, Value]) -> list[Value]:
        values: dict[str, Value] = {**outer, "": None}
        for name, array in graph.constants.items():
            values[name] = self._constant(array)
        values.update(zip((item.name for item in graph.inputs), inputs, strict=True))
        for node in graph.nodes:
            results = self._call(node, values)
            values.update(zip(node.outputs, results, strict=False))
            values[""] = None
        return [values[name] for name in graph.outputs]

    def _call(self, node: OnnxNode, values: dict[str, Value]) -> tuple[Value, ...]:
        def run_graph(graph: OnnxGraph, *inputs: Value) -> list[Value]:
            return self._run(graph, inputs, values)

        return call(node, [values[name] for name in node.inputs], run_graph)

    def _constant(self, array: Array) -> Known:
        stored: Tensor = get_tensor(self, self._stored[id(array)])
        return Known(array, stored.dtype, stored)


def refuse_unsupported(graph: OnnxGraph) -> None:
    """Raise with every operator that the table lacks, at once."""
    users: dict[str, list[str]] = {}
    for node in graph.all_nodes():
        if (node.domain, node.kind) not in TABLE:
            title = f"{node.domain}::{node.kind}" if node.domain else node.kind
            users.setdefault(title, []).append(node.name or (node.outputs[0] if node.outputs else "?"))
    if users:
        listed = "; ".join(
            f"{kind} ({', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''})"
            for kind, names in sorted(users.items())
        )
        raise SlimlineError(f"it uses {len(users)} operators that are not supported: {listed}.")
