"""Names for the weights of an imported network: by the layer that reads them, as a torch module would have them."""

import keyword
import re
from collections import Counter

from torch import nn

from slimline.sources.onnx.graph import OnnxGraph, OnnxNode

ROLES = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Linear": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "MatMul": ("weight", "weight"),
    "Gather": ("weight",),
    "BatchNormalization": ("", "weight", "bias", "running_mean", "running_var"),
    "LayerNormalization": ("", "weight", "bias"),
    "GroupNormalization": ("", "weight", "bias"),
    "InstanceNormalization": ("", "weight", "bias"),
    "PRelu": ("", "weight"),
}
"""What each input of an operator is called where it is a constant; LSTM and the like keep the file's own names."""
MOST_PARTS = 32
"""Modules inside one another; what lies deeper is joined into one name."""
RESERVED = {*dir(nn.Module()), *keyword.kwlist, "graph"}
SPOKEN = re.compile(r"\.(weight|bias|running_mean|running_var)$")


def weight_names(graph: OnnxGraph) -> dict[int, str]:
    """A dotted name for every constant, by the id of its array.

    A name that ends as torch would end it (``layer1.0.conv.weight``) is kept. Others are called after the layer that
    reads them, as exporters number constants (``Constant_17``) or keep names of another kind (``conv/kernel:0``).
    """
    names: dict[int, str] = {}
    _visit(graph, names, _Taken())
    return names


class _Taken:
    """Names that are given away, none of which is another or lies below another."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.above: set[str] = set()
        """Every prefix of a name, up to a dot."""
        self.numbers: Counter[str] = Counter()

    def free(self, name: str) -> str:
        """The name, or the first like it with a number that is free; it is taken from now on."""
        stem, _, leaf = name.rpartition(".")
        candidate = name
        while candidate in self.names or candidate in self.above or self.names & _prefixes(candidate):
            self.numbers[name] += 1
            number = self.numbers[name] + 1
            candidate = f"{stem}_{number}.{leaf}" if stem else f"{leaf}_{number}"
        self.names.add(candidate)
        self.above |= _prefixes(candidate)
        return candidate


def _prefixes(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def _visit(graph: OnnxGraph, names: dict[int, str], taken: _Taken) -> None:
    roles: dict[str, str] = {}
    for node in graph.nodes:
        for name, role in zip(node.inputs, ROLES.get(node.kind, ()), strict=False):
            if role and name in graph.constants:
                roles.setdefault(name, f"{_layer(node)}.{role}")
    for name, array in graph.constants.items():
        if id(array) not in names:
            wanted = name if SPOKEN.search(name) else roles.get(name, name)
            names[id(array)] = taken.free(dotted(wanted))
    for node in graph.nodes:
        for inner in node.subgraphs():
            _visit(inner, names, taken)


def _layer(node: OnnxNode) -> str:
    return node.name or node.outputs[0]


def dotted(name: str) -> str:
    """A path of plain identifiers: ``/encoder/layer.0/MatMul:0`` -> ``encoder.layer.0.MatMul_0``."""
    parts = [re.sub(r"\W+", "_", part, flags=re.ASCII).strip("_") for part in re.split(r"[./]", name)]
    parts = [*parts[:MOST_PARTS], "_".join(parts[MOST_PARTS:])]
    return ".".join(f"{part}_" if part in RESERVED else part for part in parts if part) or "constant"
