"""What a rewrite of an ONNX graph may look at: the nodes before it, the constants, and who reads what."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from slimline.sources.onnx.graph import OnnxGraph, OnnxNode
from slimline.sources.onnx.values import Array

CANONICAL = "slimline"
"""Domain of the operators that ONNX lacks (`slimline.sources.onnx.operators.canonical`)."""
DEEPEST = 4
"""Products that a pattern looks back through; without an end, x * x squared again and again would take forever."""
CLOSE = 1e-4
"""Relative error up to which a constant counts as the one of a formula: exporters print 1.4142135 or 1.41421."""


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
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and is_float(array) else None

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

    def factors(self, name: str, depth: int = DEEPEST) -> tuple[float, list[str]]:
        """A value as a number times other values, looked back through a few Mul and Div."""
        node = self.made_by(name, "Mul", "Div")
        if node is None or depth == 0:
            return 1.0, [name]
        left, right = node.inputs
        if node.kind == "Div":
            divisor = self.number(right)
            if not divisor:
                return 1.0, [name]
            scale, parts = self.factors(left, depth - 1)
            return scale / divisor, parts
        scale, parts = 1.0, []
        for side in (left, right):
            number = self.number(side)
            more, names = (number, []) if number is not None else self.factors(side, depth - 1)
            scale, parts = scale * more, parts + names
        return scale, parts

    def plus(self, name: str, number: float) -> str | None:
        """The other summand when the value is something plus this number."""
        node = self.made_by(name, "Add")
        pair = self.split(node) if node is not None else None
        found = self.number(pair[0]) if pair else None
        return pair[1] if pair and found is not None and near(found, number) else None


def is_float(array: Array) -> bool:
    """Whether the numbers are real, of any width."""
    return array.dtype.kind == "f"


def near(a: float, b: float) -> bool:
    """Whether a constant is the one of a formula."""
    return math.isclose(a, b, rel_tol=CLOSE)
