"""If, Loop and Scan: traced where their condition or length is known.

A branch is chosen and a loop is unrolled while the network is traced, so its graph holds neither. Without tracing, a
condition may depend on the data.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import SymInt, Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxGraph, OnnxNode
from slimline.sources.onnx.operators.table import RunGraph, operator
from slimline.sources.onnx.values import Known, Value, known, tensor

MOST_STEPS = 10_000
"""Iterations that a loop may be unrolled to."""


@operator("If", raw=True)
def if_(node: OnnxNode, run_graph: RunGraph, condition: Value) -> tuple[Value, ...]:
    """The outputs of the branch that the condition chooses.

    Raises:
        SlimlineError: the network is traced and the condition depends on the data.
    """
    chosen = "then_branch" if truth(condition, "which branch it takes") else "else_branch"
    return tuple(run_graph(node.attributes[chosen]))


@operator("Loop", raw=True)
def loop(
    node: OnnxNode, run_graph: RunGraph, length: Value = None, condition: Value = None, *carried: Value
) -> tuple[Value, ...]:
    """Runs its body up to ``length`` times while the condition holds.

    Returns the last values that were carried, then what each iteration put out, stacked along a new first axis.

    Raises:
        SlimlineError: the network is traced and the number of iterations depends on the data or the batch; or it is
            above 10,000; or there are none, and an output that would be stacked has no shape.
    """
    body: OnnxGraph = node.attributes["body"]
    most = None if length is None else count(length)
    values: list[Value] = list(carried)
    stacked: list[list[Value]] = [[] for _ in body.outputs[len(carried) + 1 :]]
    condition = known(True, torch.bool) if condition is None else condition
    going, step = truth(condition, "how often it runs"), 0
    check_steps(most or 0)
    while going and (most is None or step < most):
        check_steps(step + 1)
        condition, *results = run_graph(body, known(step), condition, *values)
        values, outputs = results[: len(carried)], results[len(carried) :]
        for column, output in zip(stacked, outputs, strict=True):
            column.append(output)
        step += 1
        going = step == most or truth(condition, "how often it runs")
    return (*values, *(stack(column) for column in stacked))


@operator("Scan", raw=True)
def scan(node: OnnxNode, run_graph: RunGraph, *values: Value) -> tuple[Value, ...]:
    """Runs its body once for every slice of its scanned inputs.

    Opset 8 scans axis 1 of every input separately for every sample of axis 0.

    Raises:
        SlimlineError: the network is traced and the scanned axis is the batch; or it is longer than 10,000.
    """
    if node.opset > 8:  # noqa: PLR2004
        return _scan(node, run_graph, values)
    lengths, *given = values
    if lengths is not None:
        raise SlimlineError("sequences of different lengths are not supported.")
    tensors = [_tensor(value) for value in given]
    samples = [_scan(node, run_graph, [x[i] for x in tensors]) for i in range(fixed(tensors[0].shape[0]))]
    return tuple(stack(column) for column in zip(*samples, strict=True))


def _scan(node: OnnxNode, run_graph: RunGraph, values: Sequence[Value]) -> tuple[Value, ...]:
    body: OnnxGraph = node.attributes["body"]
    scanned_count = node.attributes["num_scan_inputs"]
    carried = list(values[: len(values) - scanned_count])
    scanned = [_tensor(value) for value in values[len(carried) :]]
    output_count = len(body.outputs) - len(carried)
    axes = node.get("scan_input_axes") or [0] * scanned_count
    directions = node.get("scan_input_directions", node.get("directions")) or [0] * scanned_count
    length = fixed(scanned[0].shape[axes[0]])
    check_steps(length)
    stacked: list[list[Value]] = [[] for _ in range(output_count)]
    for step in range(length):
        places = [length - 1 - step if backwards else step for backwards in directions]
        slices = [x.select(axis, place) for x, axis, place in zip(scanned, axes, places, strict=True)]
        results = run_graph(body, *carried, *slices)
        carried, outputs = results[: len(carried)], results[len(carried) :]
        for column, output in zip(stacked, outputs, strict=True):
            column.append(output)
    output_axes = node.get("scan_output_axes") or [0] * output_count
    reversed_ = node.get("scan_output_directions") or [0] * output_count
    ordered = [column[::-1] if backwards else column for column, backwards in zip(stacked, reversed_, strict=True)]
    return (*carried, *(stack(column, axis) for column, axis in zip(ordered, output_axes, strict=True)))


def truth(condition: Value, what: str) -> bool:
    """A condition of one element as a bool.

    Raises:
        SlimlineError: the network is traced and the condition depends on the data.
    """
    if isinstance(condition, Known):
        return bool(condition.array.reshape(-1)[0])
    if torch.compiler.is_exporting():
        raise SlimlineError(f"{what} depends on the data, and a network has to do the same for every sample.")
    return bool(_tensor(condition).reshape(()))


def count(length: Value) -> int:
    """A number of iterations as an int."""
    if isinstance(length, Known):
        return fixed(length.array.reshape(-1)[0])
    if torch.compiler.is_exporting():
        raise SlimlineError("how often it runs depends on the data, and a network has to do the same for every sample.")
    return int(_tensor(length).reshape(()))


def fixed(size: Any) -> int:
    """A size as an int.

    Raises:
        SlimlineError: it is the size of the batch, which is free.
    """
    number = size.node.maybe_as_int() if isinstance(size, SymInt) else int(size)
    if number is None:
        raise SlimlineError("it runs once for every sample of the batch, and the size of a batch is free.")
    return int(number)


def check_steps(steps: int) -> None:
    """Raise when a loop runs too often to be unrolled."""
    if steps > MOST_STEPS:
        raise SlimlineError(f"it runs more than {MOST_STEPS:,} times, which is too often to be unrolled.")


def stack(column: Sequence[Value], axis: int = 0) -> Tensor:
    """Results of all iterations along a new axis."""
    if not column:
        raise SlimlineError("it runs zero times, so that the results it collects have no shape: remove the loop.")
    return torch.stack([_tensor(value) for value in column], axis)


def _tensor(value: Value) -> Tensor:
    result = tensor(value)
    assert result is not None
    return result
