"""Resize, grid sampling and what samples between pixels.

What torch's ``interpolate`` computes exactly becomes one call of it. Every other form is separable: one axis after the
other, each entry of the result is a weighted sum of a few entries of the input, which numpy works out beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import Array, numpy_type

LINEAR_IN_TORCH = {3: "linear", 4: "bilinear", 5: "trilinear"}


@dataclass(frozen=True)
class Line:
    """How one axis is resized."""

    axis: int
    size: int
    """Entries before."""
    count: int
    """Entries after."""
    scale: float
    """What the node says; ``count / size`` up to rounding."""
    roi: tuple[float, float] = (0.0, 1.0)
    """Start and end of what is read, with ``tf_crop_and_resize``."""


@operator("Resize", known=(1, 2, 3))
def resize(
    node: OnnxNode,
    x: Tensor,
    second: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
) -> Tensor:
    """Resampling along any axes; opset 10 has the scales where later ones have the region of interest."""
    return _resized(node, x, None, second, None) if node.opset < 11 else _resized(node, x, second, scales, sizes)


@operator("Upsample", known=(1,))
def upsample(node: OnnxNode, x: Tensor, scales: Array | None = None) -> Tensor:
    """The forerunner of Resize, which opset 10 retired: nearest (rounded down) or linear, from the first entry on."""
    as_resize = replace(node, opset=10, attributes={"mode": node.get("mode", "nearest")})
    return _resized(as_resize, x, None, np.array(node.get("scales")) if scales is None else scales, None)


def _resized(node: OnnxNode, x: Tensor, roi: Array | None, scales: Array | None, sizes: Array | None) -> Tensor:
    lines = _lines(node, x, roi, scales, sizes)
    mode = node.get("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise SlimlineError(f"its mode is {mode!r}; there are nearest, linear and cubic.")
    places = {line.axis: positions(node, line) for line in lines}
    in_torch = _in_torch(node, x, lines, places)
    if in_torch is not None:
        return in_torch
    y = x if mode == "nearest" or x.is_floating_point() else x.to(torch.float32)
    for line in lines:
        y = _along(node, y, line, places[line.axis])
    return y if y.dtype == x.dtype else _as_integers(y, x.dtype)


def _lines(node: OnnxNode, x: Tensor, roi: Array | None, scales: Array | None, sizes: Array | None) -> list[Line]:
    """The axes that change."""
    axes = [axis % x.ndim for axis in node.get("axes") or range(x.ndim)]
    scales = None if scales is None or not len(scales) else scales
    if scales is None and (sizes is None or not len(sizes)):
        raise SlimlineError("it has neither scales nor sizes.")
    wanted = scales if scales is not None else sizes
    assert wanted is not None
    crops = node.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    lines = []
    for i, axis in enumerate(axes):
        entry, size = wanted[i], x.shape[axis]
        if isinstance(size, torch.SymInt) or isinstance(entry, (torch.SymInt, torch.SymFloat)):
            continue  # the batch stays as it is
        scale = float(str(np.float32(entry))) if scales is not None else int(entry) / size  # 0.6, not 0.6000000238
        count = int(np.float32(size) * np.float32(scale)) if scales is not None else int(entry)
        region = (float(roi[i]), float(roi[len(axes) + i])) if crops and roi is not None and len(roi) else (0.0, 1.0)
        lines.append(Line(axis, size, count, scale, region))
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if scales is None and policy != "stretch":
        scale = (min if policy == "not_larger" else max)(line.scale for line in lines)
        lines = [Line(n.axis, n.size, int(scale * n.size + 0.5), scale, n.roi) for n in lines]
    return [n for n in lines if n.count != n.size or n.scale != 1.0 or n.roi != (0.0, 1.0)]


def positions(node: OnnxNode, line: Line) -> Array:
    """Where each entry of the result lies on the axis of the input (ONNX, Resize, coordinate_transformation_mode)."""
    y = np.arange(line.count, dtype=np.float64)
    default = "half_pixel" if node.opset >= 11 else "asymmetric"
    mode = node.get("coordinate_transformation_mode", default)
    length = line.scale * line.size
    centre = (y + 0.5) / line.scale - 0.5
    match mode:
        case "half_pixel":
            return centre
        case "pytorch_half_pixel":
            return centre if length > 1 else np.full(line.count, -0.5)
        case "half_pixel_symmetric":
            return centre + line.size / 2 * (1 - line.count / length)
        case "asymmetric":
            return y / line.scale
        case "tf_half_pixel_for_nn":
            return (y + 0.5) / line.scale
        case "align_corners":
            return y * (line.size - 1) / (length - 1) if length != 1 else np.zeros(line.count)
        case "tf_crop_and_resize":
            start, end = (edge * (line.size - 1) for edge in line.roi)
            return start + y * (end - start) / (length - 1) if line.count > 1 else np.full(1, (start + end) / 2)
    raise SlimlineError(f"its coordinate_transformation_mode is {mode!r}, which ONNX does not define.")


def _in_torch(node: OnnxNode, x: Tensor, lines: list[Line], places: dict[int, Array]) -> Tensor | None:
    """The result of ``interpolate`` where it reads the same places with the same weights; None where it does not."""
    rank = x.ndim - 2
    if not lines:
        return x
    crops = node.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if rank not in (1, 2, 3) or any(line.axis < 2 for line in lines) or node.get("antialias", 0) or crops:
        return None
    if not (x.is_floating_point() or (x.dtype == torch.uint8 and node.get("mode", "nearest") == "nearest")):
        return None
    by_factor = all(_is_factor(line) for line in lines)
    scales = [line.scale if by_factor else line.count / line.size for line in lines]
    found = _mode_in_torch(node, x.ndim, lines, places, scales)
    if found is None:
        return None
    mode, corners = found
    by_axis = {line.axis: line for line in lines}
    if by_factor:
        factors = [by_axis[axis].scale if axis in by_axis else 1.0 for axis in range(2, x.ndim)]
        return F.interpolate(x, scale_factor=factors, mode=mode, align_corners=corners)
    sizes = [by_axis[axis].count if axis in by_axis else x.shape[axis] for axis in range(2, x.ndim)]
    return F.interpolate(x, size=sizes, mode=mode, align_corners=corners)


def _is_factor(line: Line) -> bool:
    """Whether the scale gives the size, as it is and rounded to single precision, in which ONNX files hold it."""
    return int(line.scale * line.size) == int(float(np.float32(line.scale)) * line.size) == line.count


def _mode_in_torch(
    node: OnnxNode, rank: int, lines: list[Line], places: dict[int, Array], scales: list[float]
) -> tuple[str, bool | None] | None:
    """The mode and ``align_corners`` of ``interpolate``, by comparing places with those that torch reads."""
    mode = node.get("mode", "nearest")
    ranges = [np.arange(line.count, dtype=np.float64) for line in lines]
    centres = [(y + 0.5) / scale - 0.5 for y, scale in zip(ranges, scales, strict=True)]
    if mode == "nearest":
        indices = [_nearest(node, places[line.axis], line) for line in lines]
        steps = [np.float32(1 / scale) for scale in scales]  # torch multiplies in single precision
        starts = [np.floor(y.astype(np.float32) * step) for y, step in zip(ranges, steps, strict=True)]
        if all(map(np.array_equal, indices, starts)):
            return "nearest", None
        exact = [
            np.floor((y.astype(np.float32) + np.float32(0.5)) * step) for y, step in zip(ranges, steps, strict=True)
        ]
        return ("nearest-exact", None) if all(map(np.array_equal, indices, exact)) else None
    if mode == "cubic" and (rank != 4 or node.get("cubic_coeff_a", -0.75) != -0.75 or node.get("exclude_outside", 0)):
        return None
    name = "bicubic" if mode == "cubic" else LINEAR_IN_TORCH[rank]
    corners = [y * (line.size - 1) / max(line.count - 1, 1) for y, line in zip(ranges, lines, strict=True)]
    for theirs, aligned in ((centres, False), (corners, True)):
        if all(np.allclose(places[line.axis], there, atol=1e-6) for line, there in zip(lines, theirs, strict=True)):
            return name, aligned
    return None


def _nearest(node: OnnxNode, places: Array, line: Line) -> Array:
    """The entry that each place takes; before opset 11 ONNX left it open, and ONNX Runtime rounds up to shrink."""
    old = "floor" if line.scale >= 1 else "ceil"
    mode = node.get("nearest_mode", "round_prefer_floor" if node.opset >= 11 else old)
    near: Array = np.round(places, 9)  # 2.9999999996 is 3
    match mode:
        case "round_prefer_floor":
            entries = np.ceil(near - 0.5)
        case "round_prefer_ceil":
            entries = np.floor(near + 0.5)
        case "floor":
            entries = np.floor(near)
        case "ceil":
            entries = np.ceil(near)
        case _:
            raise SlimlineError(f"its nearest_mode is {mode!r}, which ONNX does not define.")
    indices: Array = entries.clip(0, line.size - 1).astype(np.int64)
    return indices


def _along(node: OnnxNode, x: Tensor, line: Line, places: Array) -> Tensor:
    """One axis resized."""
    shape = [-1 if axis == line.axis else 1 for axis in range(x.ndim)]
    if node.get("mode", "nearest") == "nearest":
        y = x.index_select(line.axis, torch.from_numpy(_nearest(node, places, line)))
    else:
        indices, weights = _taps(node, line, places)
        read = x.index_select(line.axis, torch.from_numpy(indices.reshape(-1)))
        read = read.reshape(*x.shape[: line.axis], *indices.shape, *x.shape[line.axis + 1 :])
        weight = weights.reshape(*weights.shape, *[1] * (x.ndim - line.axis - 1))
        y = (read * constant(weight, x.dtype)).sum(line.axis)
    outside = (places < 0) | (places > line.size - 1)
    if node.get("coordinate_transformation_mode") == "tf_crop_and_resize" and outside.any():
        y = y.masked_fill(torch.from_numpy(outside).reshape(shape), node.get("extrapolation_value", 0.0))
    return y


def _taps(node: OnnxNode, line: Line, places: Array) -> tuple[Array, Array]:
    """Which entries each place reads, and with which weights: two arrays (taps, places)."""
    stretch = max(1.0, 1 / line.scale) if node.get("antialias", 0) else 1.0  # the kernel covers what is averaged away
    a = node.get("cubic_coeff_a", -0.75)
    reach = (1 if node.get("mode") == "linear" else 2) * stretch
    first = np.floor(places - reach).astype(np.int64) + 1
    indices = first + np.arange(int(np.ceil(2 * reach)) + 1)[:, None]
    distance = np.abs(indices - places) / stretch
    weights = (1 - distance).clip(0) if node.get("mode") == "linear" else _cubic(distance, a)
    if node.get("exclude_outside", 0):
        weights = np.where((indices >= 0) & (indices < line.size), weights, 0.0)
    if node.get("exclude_outside", 0) or stretch > 1:
        weights = weights / weights.sum(0)
    used = np.abs(weights).max(1) > 0
    return indices[used].clip(0, line.size - 1), weights[used]


def constant(array: Array, dtype: torch.dtype) -> Tensor:
    """An array as a tensor of a type, without a cast in the traced graph where numpy has the type."""
    made = torch.from_numpy(array.astype(numpy_type(dtype)))
    return made if made.dtype == dtype else made.to(dtype)


def _cubic(distance: Array, a: float) -> Array:
    """The kernel of Keys (1981) with a free slope."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _as_integers(y: Tensor, dtype: torch.dtype) -> Tensor:
    limits = torch.iinfo(dtype)
    return y.round().clamp(limits.min, limits.max).to(dtype)


@operator("GridSample")
def grid_sample(node: OnnxNode, x: Tensor, grid: Tensor) -> Tensor:
    """Reads an image at the places of a grid that has -1 and 1 at its edges."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(given := node.get("mode", "bilinear"), given)
    return F.grid_sample(
        x, grid, mode, node.get("padding_mode", "zeros"), align_corners=bool(node.get("align_corners", 0))
    )


@operator("AffineGrid", known=(1,))
def affine_grid(node: OnnxNode, theta: Tensor, size: Array) -> Tensor:
    """The grid that an affine map per sample makes of images of ``size`` (batch, channels, *sizes)."""
    sizes = [theta.shape[0], *size.tolist()[1:]]  # a file may state a batch of one
    return F.affine_grid(theta, sizes, align_corners=bool(node.get("align_corners", 0)))


def corners(maps: Tensor, y: Tensor, x: Tensor) -> Sequence[Tensor]:
    """The four terms of bilinear reading; entries outside the image are zeros.

    Args:
        maps: (batch, channels, height, width).
        y: (batch, places), in pixels from the centre of the first.
        x: (batch, places).

    Returns:
        four tensors (batch, channels, places); their sum is the value between the pixels.
    """
    height, width = maps.shape[2:]
    terms = []
    for down in (0, 1):
        for right in (0, 1):
            row, column = y.floor() + down, x.floor() + right
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - (y - row).abs()) * (1 - (x - column).abs()) * inside
            index = row.clamp(0, height - 1).to(torch.int64) * width + column.clamp(0, width - 1).to(torch.int64)
            read = maps.flatten(2).gather(2, index.unsqueeze(1).expand(-1, maps.shape[1], -1))
            terms.append(read * weight.unsqueeze(1))
    return terms
