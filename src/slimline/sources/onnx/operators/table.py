"""The table from ONNX operator to torch function.

An operator's function takes the node and one argument per input, and returns its output or a tuple of outputs::

    @operator("Reshape", known=(1,))
    def reshape(node: OnnxNode, x: Tensor, shape: Array) -> Tensor: ...

Inputs arrive as tensors (None when left out). Those at the positions in ``known`` arrive as numpy arrays instead, as
they have to be numbers while the network is traced. With ``scalars=True`` a constant of one element arrives as a Python
number, which keeps ``x * 0.5`` one operator without a weight. Attributes are read with ``node.get(name, default)``, and
``node.opset`` tells versions apart: older files hold as attributes what newer ones hold as inputs.

`on_known` gives an operator a second form on numpy arrays, which is taken when every input is known and the result is
small; that is how a shape with a free batch axis is computed without becoming a tensor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.limits import one_line, worth_knowing
from slimline.sources.onnx.values import Known, Value, numbers, tensor

Function = Callable[..., Any]
RunGraph = Callable[..., list[Value]]
"""(subgraph, *values) -> its outputs, with the names of the outer graph in reach."""
EVERY = tuple(range(64))


@dataclass(frozen=True)
class Operator:
    """How one operator is run."""

    function: Function
    known: tuple[int, ...] = ()
    scalars: bool = False
    raw: bool = False
    """Inputs arrive as they are, tensors or `Known`, after a function that runs subgraphs."""


TABLE: dict[tuple[str, str], Operator] = {}
"""(domain, operator) -> how it is run."""
KNOWN_TABLE: dict[str, Callable[..., Known | tuple[Known, ...]]] = {}


def operator(
    *kinds: str, known: tuple[int, ...] = (), scalars: bool = False, raw: bool = False, domain: str = ""
) -> Callable[[Function], Function]:
    """Make a function the meaning of these operators."""

    def add(function: Function) -> Function:
        for kind in kinds:
            assert (domain, kind) not in TABLE, f"{kind} is in the table already"
            TABLE[domain, kind] = Operator(function, known, scalars, raw)
        return function

    return add


def on_known(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function of (node, `Known` or None, ...) the meaning of these operators on numbers known while tracing."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        KNOWN_TABLE.update(dict.fromkeys(kinds, function))
        return function

    return add


def call(node: OnnxNode, values: Sequence[Value], run_graph: RunGraph) -> tuple[Value, ...]:
    """Run one node.

    Raises:
        SlimlineError: the operator does not fit its inputs; the sentence names the node.
    """
    try:
        result = _call(node, values, run_graph)
    except Exception as error:  # numbers from a damaged file lead to any of them
        if type(error).__module__.startswith("torch."):
            raise  # the tracer's own signals
        raise SlimlineError(f"the node {node} cannot be run: {_reason(error)}") from error
    outputs = result if isinstance(result, tuple) else (result,)
    return tuple(outputs)


def _reason(error: Exception) -> str:
    text = one_line(str(error))
    telling = isinstance(error, (SlimlineError, RuntimeError, ValueError, TypeError, IndexError))
    return text if telling and text else f"{type(error).__name__} {text}".strip()


def _call(node: OnnxNode, values: Sequence[Value], run_graph: RunGraph) -> Any:
    small = node.domain == "" and node.kind in KNOWN_TABLE and all(v is None or _small(v) for v in values)
    if small and worth_knowing(node.kind, values):
        result = KNOWN_TABLE[node.kind](node, *values)
        if result is not NotImplemented:
            return result
    entry = TABLE[node.domain, node.kind]
    if entry.raw:
        return entry.function(node, run_graph, *values)
    return entry.function(node, *[_argument(entry, node, i, value, values) for i, value in enumerate(values)])


SMALL = 4096
"""Elements up to which arithmetic on constants is done in numpy while tracing."""


def _small(value: Value) -> bool:
    return isinstance(value, Known) and value.array.size <= SMALL


def _argument(entry: Operator, node: OnnxNode, position: int, value: Value, values: Sequence[Value]) -> Any:
    if value is None:
        return None
    if position in entry.known:
        return numbers(value, f"input {position}")
    if entry.scalars and isinstance(value, Known) and value.array.size == 1:
        ranks = [other.ndim for other in values if isinstance(other, Tensor)]
        if ranks and max(ranks) >= value.array.ndim:
            entry_value = value.array.reshape(-1)[0]
            return entry_value.item() if isinstance(entry_value, np.generic) else entry_value
    return tensor(value)


def optional(values: Sequence[Any], position: int) -> Any:
    """The input at a position, or None when the node has fewer."""
    return values[position] if len(values) > position else None
