"""Reshape and Flatten, with a free batch.

A file that was written for a batch of one says ``[1, 512]`` where one for any batch says ``[-1, 512]``. As every
network here has a free batch, the size that holds the batch is found by comparing with the sizes that one sample has.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.folding import Size, entries, is_concrete, moved
from slimline.sources.onnx.operators.table import on_known, operator
from slimline.sources.onnx.values import Array, Known


@operator("Reshape", known=(1,))
def reshape(node: OnnxNode, x: Tensor, shape: Array) -> Tensor:
    """Reshape; 0 copies a size unless ``allowzero`` says that it is a size."""
    sizes = list(x.shape)
    return reshaped(x, with_batch(sizes, _copied(node, sizes, entries(shape))))


@on_known("Reshape")
def reshape_known(node: OnnxNode, data: Known, shape: Known) -> Any:
    """Reshape numbers that are known."""
    if not is_concrete(shape):
        return NotImplemented
    return moved(node, data.array.reshape(_copied(node, list(data.array.shape), entries(shape.array))), data, shape)


def _copied(node: OnnxNode, sizes: Sequence[Size], target: list[Size]) -> list[Size]:
    if node.get("allowzero", 0):
        return target
    # A symbolic size is never compared with a number: that would bind the batch.
    return [sizes[i] if isinstance(entry, int) and entry == 0 else entry for i, entry in enumerate(target)]


def with_batch(sizes: Sequence[Size], target: list[Size]) -> list[Size]:
    """The target of a Reshape, written so that it holds for every batch.

    Args:
        sizes: of the value that is reshaped, one of them symbolic where it holds the batch.
        target: entries; -1 is the one that is left over.

    Returns:
        The same target with the symbolic size of the batch at its place; unchanged where that place is not clear.
    """
    free = [i for i, size in enumerate(sizes) if isinstance(size, torch.SymInt)]
    if not free:
        return target
    sample = [_of_one_sample(size) for size in sizes]
    given = math.prod(_of_one_sample(entry) for entry in target if not _is_rest(entry))
    total = math.prod(sample)
    if total == 0 or given == 0:
        return target
    if any(isinstance(entry, torch.SymInt) for entry in target):
        return _with_rest(sizes, target, total // given)
    return _with_free_batch(sizes, sample, [entry for entry in target if isinstance(entry, int)], free[0])


def _of_one_sample(size: Size) -> int:
    """A size when the batch is one."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.xreplace(dict.fromkeys(expression.free_symbols, 1)))


def _is_rest(entry: Size) -> bool:
    return isinstance(entry, int) and entry == -1


def _with_rest(sizes: Sequence[Size], target: list[Size], rest: int) -> list[Size]:
    """-1 as the number it is for every batch, if there is one."""
    filled = [rest if _is_rest(entry) else entry for entry in target]
    return filled if statically_known_true(math.prod(filled) == math.prod(sizes)) else target


def _with_free_batch(sizes: Sequence[Size], sample: list[int], target: list[int], first: int) -> list[Size]:
    """A target of plain numbers; ``first`` is the axis of the batch."""
    total, given = math.prod(sample), math.prod(entry for entry in target if entry != -1)
    place = target.index(-1) if -1 in target else None
    batch = 1 if place is not None else given // total  # the batch that the file was written for
    if (total % given if place is not None else given % total) or batch == 0:
        return list(target)  # torch says what does not fit
    filled: list[Size] = [total // given if entry == -1 else entry for entry in target]
    alone = sample[first] == 1  # else the batch shares its axis, as (n * t, c) after (n, t, c)
    kept = filled[:first] == list(sizes[:first]) and filled[first : first + 1] == [batch * sample[first]]
    if place is not None and alone and filled[place] == 1 and math.prod(filled[:place]) == math.prod(sample[:first]):
        filled[place] = sizes[first]
    elif kept and (alone or place is None or place == first or 1 not in filled):
        filled[first] = sizes[first]
    elif place is None:
        filled[0] = -1
    elif place > 0 and 1 in filled:
        filled[filled.index(1)] = -1
    else:
        return list(target)
    return filled


def reshaped(x: Tensor, target: list[Size]) -> Tensor:
    """The value with another shape, by the operator that says most about it: none, flatten, or reshape."""
    sizes = list(x.shape)
    rest = [i for i, entry in enumerate(target) if _is_rest(entry)]
    if len(target) == len(sizes):
        others = [i for i in range(len(sizes)) if i not in rest]
        if len(rest) <= 1 and all(_same(sizes[i], target[i]) for i in others) and not _is_empty(sizes):
            return x
    width = len(sizes) - len(target) + 1
    for first in range(len(target) if width > 1 else 0):
        kept = [*zip(sizes[:first], target[:first], strict=True)]
        kept += zip(sizes[first + width :], target[first + 1 :], strict=True)
        if all(_same(a, b) for a, b in kept) and not _is_empty(a for a, _ in kept):
            return torch.flatten(x, first, first + width - 1)
    symbolic = [i for i, entry in enumerate(target) if isinstance(entry, torch.SymInt)]
    if len(symbolic) == 1 and not rest and not _is_empty(target):
        target = [-1 if i == symbolic[0] else entry for i, entry in enumerate(target)]
    return x.reshape(target)


def _is_empty(sizes: Iterable[Size]) -> bool:
    """Whether a size is certainly zero; then -1 says nothing."""
    return any(isinstance(size, int) and size == 0 for size in sizes)


def _same(a: Size, b: Size) -> bool:
    return a == b if isinstance(a, int) and isinstance(b, int) else statically_known_true(a == b)


@operator("Flatten")
def flatten(node: OnnxNode, x: Tensor) -> Tensor:
    """Two axes: those before ``axis`` and the others."""
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 0:
        return x.reshape(1, -1)
    if axis == 1 and x.ndim == 2:
        return x
    after = torch.flatten(x, axis) if axis < x.ndim else x.unsqueeze(-1)
    return torch.flatten(after, 0, axis - 1) if axis > 1 else after


@on_known("Flatten")
def flatten_known(node: OnnxNode, data: Known) -> Known:
    """Flatten numbers that are known."""
    axis = node.get("axis", 1)
    shape = data.array.shape
    axis = axis + len(shape) if axis < 0 else axis
    return moved(node, np.reshape(data.array, (math.prod(shape[:axis]), -1)), data)
