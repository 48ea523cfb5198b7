"""Names for the weights of an imported network: by the layer that reads them, as a torch module would have them."""

import keyword
import re

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
RESERVED = {*dir(nn.Module()), *keyword.kwlist, "graph"}
SPOKEN = re.compile(r"\.(weight|bias|running_mean|running_var)$")


def weight_names(graph: OnnxGraph) -> dict[int, str]:
    """A dotted name for every constant, by the id of its array.

    A name that ends as torch would end it (``layer1.0.conv.weight``) is kept. Others are called after the layer that
    reads them, as exporters number constants (``Constant_17``) or keep names of another kind (``conv/kernel:0``).
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    _visit(graph, names, taken)
    return names


def _visit(graph: OnnxGraph, names: dict[int, str], taken: set[str]) -> None:
    roles: dict[str, str] = {}
    for node in graph.nodes:
        for name, role in zip(node.inputs, ROLES.get(node.kind, ()), strict=False):
            if role and name in graph.constants:
                roles.setdefault(name, f"{_layer(node)}.{role}")
    for name, array in graph.constants.items():
        if id(array) not in names:
            wanted = name if SPOKEN.search(name) else roles.get(name, name)
            names[id(array)] = _free(dotted(wanted), taken)
    for node in graph.nodes:
        for inner in node.subgraphs():
            _visit(inner, names, taken)


def _layer(node: OnnxNode) -> str:
    return node.name or node.outputs[0]


def dotted(name: str) -> str:
    """A path of plain identifiers: ``/encoder/layer.0/MatMul:0`` -> ``encoder.layer.0.MatMul_0``."""
    parts = [re.sub(r"\W+", "_", part, flags=re.ASCII).strip("_") for part in re.split(r"[./]", name)]
    return ".".join(f"{part}_" if part in RESERVED else part for part in parts if part) or "constant"


def _free(name: str, taken: set[str]) -> str:
    """The name, or one like it that is neither taken nor a prefix of a taken one nor below one."""
    stem, _, leaf = name.rpartition(".")
    candidate, number = name, 1
    while any(c == candidate or c.startswith(candidate + ".") or candidate.startswith(c + ".") for c in taken):
        number += 1
        candidate = f"{stem}_{number}.{leaf}" if stem else f"{leaf}_{number}"
    taken.add(candidate)
    return candidate
