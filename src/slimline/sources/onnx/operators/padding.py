"""Pad and CenterCropPad."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.folding import Size, axes_of, entries, integers
from slimline.sources.onnx.operators.shape import refuse_absurd
from slimline.sources.onnx.operators.slicing import part
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import Array

TORCH_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
Pairs = list[tuple[Size, Size]]


@operator("Pad", known=(1, 2, 3))
def pad(
    node: OnnxNode, x: Tensor, pads: Array | None = None, value: Array | None = None, axes: Array | None = None
) -> Tensor:
    """Padding before and after axes; a negative amount cuts. Amounts and value are attributes before opset 11."""
    amounts = node.get("pads") if pads is None else entries(pads)
    chosen = axes_of(integers(axes) or list(range(x.ndim)), x.ndim)
    if len(amounts) != 2 * len(chosen):
        raise SlimlineError(f"it has {len(amounts)} amounts of padding for {len(chosen)} axes.")
    pairs: Pairs = [(0, 0)] * x.ndim
    for i, axis in enumerate(chosen):
        pairs[axis] = amounts[i], amounts[i + len(chosen)]
    refuse_absurd([size + before + after for size, (before, after) in zip(x.shape, pairs, strict=True)], x.dtype)
    mode = node.get("mode", "constant")
    if mode != "constant":
        return _pad_with_own(x, mode, pairs)
    number = node.get("value", 0.0) if value is None else value.reshape(-1)[0].item() if value.size else 0.0
    return pad_constant(x, pairs, number)


def pad_constant(x: Tensor, pairs: Pairs, number: float) -> Tensor:
    """Constant padding of the axes, as one operator that names the last axes only."""
    padded = [d for d, pair in enumerate(pairs) if not _is_zero(pair)]
    if not padded:
        return x
    flat = [amount for pair in reversed(pairs[padded[0] :]) for amount in pair]
    return F.pad(x, flat, "constant", number) if number else F.pad(x, flat)  # type: ignore[arg-type]


def _is_zero(pair: tuple[Size, Size]) -> bool:
    return all(isinstance(amount, int) and amount == 0 for amount in pair)


def _pad_with_own(x: Tensor, mode: str, pairs: Pairs) -> Tensor:
    """Padding with entries of the value itself: one torch operator for images, else one index per axis."""
    padded = [d for d, pair in enumerate(pairs) if not _is_zero(pair)]
    if not padded:
        return x
    last = x.ndim - padded[0]
    if last <= 3 and x.ndim - last in (1, 2) and x.is_floating_point() and _fits(x, mode, pairs[padded[0] :], last):
        flat = [amount for pair in reversed(pairs[padded[0] :]) for amount in pair]
        return F.pad(x, flat, TORCH_MODES[mode])  # type: ignore[arg-type]
    for axis in padded:
        before, after = pairs[axis]
        x = torch.index_select(x, axis, _source(x.shape[axis], mode, int(before), int(after)))
    return x


def _fits(x: Tensor, mode: str, pairs: Pairs, last: int) -> bool:
    """Whether torch's own padding takes these amounts: none negative, and no more than the value has."""
    for size, pair in zip(x.shape[-last:], pairs, strict=True):
        for amount in pair:
            if not isinstance(amount, int) or not isinstance(size, int) or amount < 0:
                return False
            if (mode == "reflect" and amount >= size) or (mode == "wrap" and amount > size):
                return False
    return True


def _source(length: int, mode: str, before: int, after: int) -> Tensor:
    """Which entry stands at each position of a padded axis."""
    places = np.arange(-before, length + after)
    if mode == "edge" or length == 1:
        places = places.clip(0, length - 1)
    elif mode == "wrap":
        places = places % length
    elif mode == "reflect":
        places = places % (2 * (length - 1))
        places = np.minimum(places, 2 * (length - 1) - places)
    else:
        raise SlimlineError(f"it pads in the mode {mode!r}, which ONNX does not have.")
    return torch.from_numpy(places)


@operator("CenterCropPad", known=(1,))
def center_crop_pad(node: OnnxNode, x: Tensor, shape: Array) -> Tensor:
    """Cut or zero-pad axes to a size, around the centre; an odd rest goes to the end."""
    chosen = axes_of(node.get("axes") or list(range(x.ndim)), x.ndim)
    pairs: Pairs = [(0, 0)] * x.ndim
    for axis, want in zip(chosen, integers(shape) or [], strict=True):
        have = int(x.shape[axis])
        if want < have:
            start = (have - want) // 2
            x = part(x, axis, start, start + want)
        else:
            pairs[axis] = (want - have) // 2, (want - have + 1) // 2
    refuse_absurd([size + before + after for size, (before, after) in zip(x.shape, pairs, strict=True)], x.dtype)
    return pad_constant(x, pairs, 0)
