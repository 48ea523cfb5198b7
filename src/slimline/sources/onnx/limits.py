"""What is too large to be a network: bounds that are checked before memory or time is spent."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.values import LARGEST_KNOWN, Known, Value

LARGEST_RANK = 64
"""Axes; numpy has no more."""
LARGEST_COUNT = 2**48
"""Elements of any tensor; no machine holds more."""
LARGEST_VALUE = 2**31
"""Bytes of one value between two operators, for the batch of the example."""
LARGEST_PROGRAM = 100_000
"""Operators that run for one batch; loops count every turn."""
LARGEST_NUMBER = 2**63
LARGEST_POWER = 8
"""Exponent of a size that is free; a chain of powers would otherwise grow without end."""
LONGEST_NAME = 80


def quoted(text: str) -> str:
    """A name for a sentence: in quotes, on one line, and cut when it is very long."""
    return repr(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}...")


def shown(text: str) -> str:
    """A name for a sentence, in quotes only where it holds something that no operator's name holds."""
    return text if len(text) <= LONGEST_NAME and text.replace(".", "_").isidentifier() else quoted(text)


def one_line(text: str, longest: int = 300) -> str:
    """The first line of a text that others wrote, without what would move the cursor of a terminal."""
    line = next(iter(text.strip().splitlines()), "")[:longest]
    return "".join(character if character.isprintable() else "?" for character in line)


def count(dims: Sequence[int], what: str) -> int:
    """The number of elements of a shape.

    Raises:
        SlimlineError: no tensor can have this shape.
    """
    listed = list(dims[:8])
    if len(dims) > LARGEST_RANK or any(size < 0 for size in dims):
        raise SlimlineError(f"{what} has {len(dims)} axes of the sizes {listed}: the file is damaged.")
    if math.prod(size for size in dims if size) > LARGEST_COUNT:  # numpy counts this way, even next to a size of zero
        raise SlimlineError(f"{what} has the shape {listed}, too large for any machine: the file is damaged.")
    return math.prod(dims)


def hint(size: Any) -> int:
    """A size as a number, for the batch of the example where it is free; nothing is assumed about other batches."""
    if isinstance(size, torch.SymInt):
        found = size.node.hint  # int(size) would make the traced network work for this batch only
        return 1 if found is None else int(found)
    return int(size)


def number_of_bytes(value: Tensor) -> int:
    """Bytes of a tensor, which may be one that is only traced."""
    return math.prod(hint(size) for size in value.shape) * value.element_size()


def refuse_large(what: str, results: Sequence[Any]) -> None:
    """Raise when a result of an operator takes more memory than a network's values plausibly do.

    While a network is traced its tensors have no memory, so that this comes before any is taken.
    """
    for value in results:
        if isinstance(value, Tensor) and number_of_bytes(value) > LARGEST_VALUE:
            shape = [hint(size) for size in value.shape]
            raise SlimlineError(
                f"{what} makes a value of the shape {shape}, which is {number_of_bytes(value) / 2**30:,.1f} GiB; more "
                f"than {LARGEST_VALUE // 2**30} GiB is not plausible: check the file, or give smaller examples."
            )
        if isinstance(value, Known) and value.array.dtype == object:
            for entry in value.array.reshape(-1):
                if isinstance(entry, (int, torch.SymInt)) and abs(hint(entry)) >= LARGEST_NUMBER:
                    raise SlimlineError(f"{what} computes a size that is not plausible: the file is damaged.")


def worth_knowing(kind: str, values: Sequence[Value]) -> bool:
    """Whether an operator on known numbers gives few enough to be computed while tracing.

    Otherwise it is traced as an operator on tensors, which takes no memory.
    """
    arrays = [value.array for value in values if isinstance(value, Known)]
    if sum(array.size for array in arrays) > LARGEST_KNOWN:
        return False
    rank = max((array.ndim for array in arrays), default=0)
    shapes = [(1,) * (rank - array.ndim) + array.shape for array in arrays]
    if math.prod(max(sizes) for sizes in zip(*shapes, strict=True)) > LARGEST_KNOWN:  # as broadcasting would
        return False
    if kind == "Pow" and any(array.dtype == object for array in arrays):
        return len(arrays) == 2 and all(0 <= hint(entry) <= LARGEST_POWER for entry in arrays[1].reshape(-1))
    return _made(kind, arrays) <= LARGEST_KNOWN


def _made(kind: str, arrays: list[Any]) -> float:
    """Elements that an operator makes whose result has another size than its inputs; 0 for others."""
    match kind, arrays:
        case ("ConstantOfShape", [shape]):
            return _product(shape)
        case ("Expand", [_, shape]):
            return int(arrays[0].size) * _product(shape)
        case ("Tile", [x, repeats]):
            return int(x.size) * _product(repeats)
        case ("Range", [start, limit, delta]) if all(a.size == 1 for a in arrays):
            first, last, step = (_number(a.reshape(-1)[0]) for a in (start, limit, delta))
            return abs((last - first) / step) if step else 0
        case ("Pad", [x, pads, *_]):
            widest = max((abs(_number(pad)) for pad in pads.reshape(-1)), default=0.0)
            return float(math.prod(size + 2 * widest for size in x.shape))
        case ("OneHot", [x, depth, *_]):
            return int(x.size) * _product(depth)
        case ("Resize" | "Upsample", [_, *_]):
            return math.inf  # nothing needs a resized constant while tracing
    return 0


def _product(sizes: Any) -> float:
    return float(math.prod(max(1.0, abs(_number(size))) for size in sizes.reshape(-1)))


def _number(entry: Any) -> float:
    return float(hint(entry)) if isinstance(entry, torch.SymInt) else float(entry)
