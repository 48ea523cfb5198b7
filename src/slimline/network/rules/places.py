"""Operators over places (height, width, time): channels stay, space shrinks, grows or turns into channels."""

import numpy as np
import torch
from torch.fx import Node

from slimline.network.calls import argument, called
from slimline.network.ids import Axes
from slimline.network.propagation import Propagation
from slimline.network.rules.rule import rule

aten = torch.ops.aten


@rule(
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec,
    aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec, aten._upsample_nearest_exact2d.vec, aten.upsample_nearest2d.default,
    aten.upsample_bilinear2d.default, aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec,
    aten.upsample_bicubic2d.default, aten.upsample_nearest1d.default, aten.upsample_linear1d.default,
    aten.grid_sampler.default, aten.grid_sampler_2d.default,
    aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.replication_pad1d.default,
    aten.replication_pad2d.default,
)  # fmt: skip
def pooling(walk: Propagation, node: Node) -> Axes:
    """Channels lie on axis 1 and stay what they are."""
    x = walk.of(node.args[0])
    walk.keep_places(node, x[2:])
    return [x[0], x[1], *[None] * (len(walk.shapes[node.name]) - 2)]


@rule(
    aten.max_pool1d_with_indices.default, aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default,
    aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default,
)  # fmt: skip
def pooling_with_places(walk: Propagation, node: Node) -> Axes:
    """The largest values, and where they were found."""
    x = walk.of(node.args[0])
    walk.keep_places(node, x[2:])
    axes: Axes = [x[0], x[1], *[None] * (len(x) - 2)]
    walk.parts[node.name] = [axes, list(axes)]
    return []


@rule(aten.pixel_shuffle.default)
def pixel_shuffle(walk: Propagation, node: Node) -> Axes:
    """Each r x r neighbouring channels become the places of one."""
    x, factor = list(walk.of(node.args[0])), int(argument(node, 1, "upscale_factor"))
    ids, axis = x[-3], len(x) - 3
    walk.keep_places(node, x[-2:])
    x[-2:] = [None, None]
    if ids is not None:
        reason = f"becomes places in {called(node)}"
        x[axis], inner = walk.grid(ids, (len(ids) // factor**2, factor**2), reason)
        walk.freeze([inner], reason)
    return x


@rule(aten.pixel_unshuffle.default)
def pixel_unshuffle(walk: Propagation, node: Node) -> Axes:
    """The r x r places of one channel become channels beside each other."""
    x, factor = list(walk.of(node.args[0])), int(argument(node, 1, "downscale_factor"))
    walk.keep_places(node, x[-2:])
    x[-2:] = [None, None]
    x[-3] = None if x[-3] is None else np.repeat(x[-3], factor**2)
    return x


@rule(aten.im2col.default)
def patches(walk: Propagation, node: Node) -> Axes:
    """The places under a kernel become channels beside each other: (batch, channels x kernel, positions)."""
    x, kernel = walk.of(node.args[0]), list(argument(node, 1))
    walk.keep_places(node, x[2:])
    return [x[0], None if x[1] is None else np.repeat(x[1], int(np.prod(kernel))), None]


@rule(aten.col2im.default)
def from_patches(walk: Propagation, node: Node) -> Axes:
    """The other way round: all places of a kernel that belong to one channel come together again."""
    x, kernel = walk.of(node.args[0]), int(np.prod(list(argument(node, 2))))
    ids = x[1]
    walk.keep_places(node, x[2:])
    if ids is None:
        return [x[0], None, None, None]
    channels, inside = walk.grid(ids, (len(ids) // kernel, kernel), f"becomes places in {called(node)}")
    walk.freeze([inside], f"becomes places in {called(node)}")
    return [x[0], channels, None, None]


@rule(aten.unfold.default)
def windows(walk: Propagation, node: Node) -> Axes:
    """Windows along an axis become an axis of their own, the last one."""
    x = list(walk.of(node.args[0]))
    axis = int(argument(node, 1)) % len(x)
    walk.freeze([x[axis]], f"is cut into windows by {called(node)}")
    x[axis] = None
    return [*x, None]
