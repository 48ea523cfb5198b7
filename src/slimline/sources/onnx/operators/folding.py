"""Moving numbers that are known while a network is traced, without losing that some of them are weights."""

from typing import TypeAlias

import numpy as np
import torch

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import TABLE
from slimline.sources.onnx.values import Array, Known, known

Size: TypeAlias = int | torch.SymInt


def moved(node: OnnxNode, array: Array, *values: Known | None, part: int = 0) -> Known:
    """The result of an operator that only moves numbers.

    The numbers stay known, as the next operator may need them as a shape or as axes. Where one of the inputs is a
    weight the tensor form runs as well, so that the result is computed from that weight and can still be trained.

    Args:
        array: what the operator does to the arrays of its inputs.
        part: which output of the operator this is.
    """
    first = next(value for value in values if value is not None)
    result = known(array, first.dtype) if array.dtype == object else Known(array, first.dtype)
    if not any(value is not None and is_weight(value) for value in values):
        return result
    entry = TABLE["", node.kind]
    arguments = [
        None if value is None else value.array if position in entry.known else value.tensor()
        for position, value in enumerate(values)
    ]
    outputs = entry.function(node, *arguments)
    return Known(result.array, result.dtype, outputs[part] if isinstance(outputs, tuple) else outputs)


def is_weight(value: Known) -> bool:
    """Whether a known value is, or is computed from, something that can be trained."""
    return value.stored is not None and value.dtype.is_floating_point and value.array.size > 1


def is_concrete(value: Known | None) -> bool:
    """Whether a known value holds plain numbers only; one that was left out does."""
    return value is None or value.array.dtype != object


def entries(array: Array) -> list[Size]:
    """The entries of an array of sizes; a symbolic size that can only be one number becomes that number."""
    return [entry_of(entry) for entry in array.reshape(-1).tolist()]


def entry_of(entry: object) -> Size:
    """One size, as a plain number where it is one.

    Raises:
        SlimlineError: the entry is no whole number.
    """
    if isinstance(entry, torch.SymInt):
        number = entry.node.maybe_as_int()
        return entry if number is None else int(number)
    if isinstance(entry, (int, np.integer, float)) and entry == int(entry):
        return int(entry)
    raise SlimlineError(f"{entry!r} is no size")


def integers(array: Array | None) -> list[int]:
    """The entries of an array that has to hold plain whole numbers, such as axes; none for an input that was left out.

    Raises:
        SlimlineError: an entry depends on the batch.
    """
    found = []
    for entry in [] if array is None else entries(array):
        if not isinstance(entry, int):
            raise SlimlineError("an axis or an index depends on the batch size")
        found.append(entry)
    return found


def axes_of(axes: list[int], rank: int) -> list[int]:
    """Axes counted from the front.

    Raises:
        SlimlineError: there is no such axis.
    """
    if any(not -rank <= axis < rank for axis in axes):
        raise SlimlineError(
            f"there is no axis {next(a for a in axes if not -rank <= a < rank)} in a value of {rank} axes"
        )
    return [axis % rank for axis in axes]
