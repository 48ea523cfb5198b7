"""Detection: regions and boxes.

Both operators return as many entries as the data has, so that they run but cannot be traced into a network.
"""

import math

import numpy as np
import torch
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.resize import corners
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import Array


@operator("RoiAlign", known=(1, 2))
def roi_align(node: OnnxNode, x: Tensor, rois: Array, samples: Array) -> Tensor:
    """The mean, or largest term, of bilinear readings in each cell of a grid on each region (He et al. 2017).

    Args:
        x: (batch, channels, height, width).
        rois: (regions, 4), left, top, right and bottom before scaling.
        samples: (regions,), the sample of each region.
    """
    half = node.opset >= 16 and node.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    shape = (node.get("output_height", 1), node.get("output_width", 1))
    regions = []
    for region, sample in zip(rois.astype(np.float64), samples.tolist(), strict=True):
        left, top, right, bottom = region * node.get("spatial_scale", 1.0) - (0.5 if half else 0.0)
        down = _readings(node, top, bottom - top if half else max(bottom - top, 1.0), shape[0])
        across = _readings(node, left, right - left if half else max(right - left, 1.0), shape[1])
        regions.append(_pooled(node, x[sample : sample + 1], down, across))
    return torch.stack(regions) if regions else x.new_zeros(0, x.shape[1], *shape)


def _readings(node: OnnxNode, start: float, length: float, cells: int) -> Array:
    """Where each cell of one axis is read: (cells, readings)."""
    per_cell = node.get("sampling_ratio", 0) or math.ceil(length / cells)
    inner = (np.arange(max(per_cell, 0)) + 0.5) / max(per_cell, 1)
    return start + (np.arange(cells)[:, None] + inner) * length / cells


def _pooled(node: OnnxNode, sample: Tensor, down: Array, across: Array) -> Tensor:
    """One region: (channels, cells down, cells across)."""
    height, width = sample.shape[2:]
    shape = (len(down), down.shape[1], len(across), across.shape[1])
    if 0 in shape:
        return sample.new_zeros(sample.shape[1], shape[0], shape[2])
    y = np.broadcast_to(down[:, :, None, None], shape).reshape(1, -1)
    x = np.broadcast_to(across, shape).reshape(1, -1)
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    places = [torch.from_numpy(place.clip(0, size - 1)).to(sample.dtype) for place, size in ((y, height), (x, width))]
    terms = torch.stack(list(corners(sample, *places))) * torch.from_numpy(inside)
    if node.get("mode", "avg") == "avg":
        return terms.sum(0).reshape(-1, *shape).mean((2, 4))
    return terms.amax(0).reshape(-1, *shape).amax((2, 4))


@operator("NonMaxSuppression", known=(0, 1, 2, 3, 4))
def non_max_suppression(
    node: OnnxNode,
    boxes: Array,
    scores: Array,
    most: Array | None = None,
    overlap: Array | None = None,
    least: Array | None = None,
) -> Tensor:
    """Boxes by falling score, without those that overlap a better one of their class.

    Args:
        boxes: (batch, boxes, 4), two corners, or centre and size with ``center_point_box``.
        scores: (batch, classes, boxes).
        most: boxes to keep per class; none when left out.
        overlap: largest intersection over union with a kept box, 0 when left out.
        least: scores have to be higher.

    Returns:
        (kept, 3): sample, class and box.
    """
    limit = int(_scalar(most, 0))
    kept = []
    for sample, by_class in enumerate(scores):
        corner_boxes = _corners(boxes[sample].astype(np.float64), bool(node.get("center_point_box", 0)))
        for label, values in enumerate(by_class):
            order = [box for box in np.argsort(-values, kind="stable") if values[box] > _scalar(least, -math.inf)]
            chosen = _greedy(corner_boxes, order, limit, _scalar(overlap, 0.0))
            kept += [(sample, label, box) for box in chosen]
    return torch.from_numpy(np.array(kept, dtype=np.int64).reshape(-1, 3))


def _scalar(value: Array | None, default: float) -> float:
    return default if value is None or not value.size else float(value.reshape(-1)[0])


def _corners(boxes: Array, centred: bool) -> Array:
    """(boxes, 4): the two lower and the two upper edges."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if centred:
        first, second = first - second / 2, first + second / 2
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


def _greedy(boxes: Array, order: list[int], limit: int, overlap: float) -> list[int]:
    kept: list[int] = []
    for box in order:
        if len(kept) >= limit:
            break
        if not (_intersection_over_union(boxes[box], boxes[kept]) > overlap).any():
            kept.append(int(box))
    return kept


def _intersection_over_union(box: Array, others: Array) -> Array:
    sides = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0)
    common = sides.prod(1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - common
    ratio: Array = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return ratio
