"""Normalisations."""

import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator

EPSILON = 1e-5


@operator("BatchNormalization")
def batch_normalization(
    node: OnnxNode, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> Tensor | tuple[Tensor, ...]:
    """Batch normalisation with the stored statistics, or with those of the batch where ``training_mode`` says so.

    Before opset 14 a node trained when it had five outputs; it is run for inference all the same, and the outputs after
    the first are the stored statistics.
    """
    epsilon, momentum = node.get("epsilon", EPSILON), node.get("momentum", 0.9)
    if node.opset < 9 and not node.get("spatial", 1):  # statistics for every entry of a sample
        y = (x - mean) * torch.rsqrt(variance + epsilon) * scale + shift
        return (y, mean, variance, mean, variance)[: len(node.outputs)]
    if node.get("training_mode", 0):
        return _with_batch_statistics(x, scale, shift, mean, variance, epsilon, momentum)
    if mean.dtype != scale.dtype:
        mean, variance = mean.to(scale.dtype), variance.to(scale.dtype)
    if x.dtype == torch.float64:  # a file may keep float parameters beside double data
        scale, shift, mean, variance = (value.to(x.dtype) for value in (scale, shift, mean, variance))
    y = F.batch_norm(x, mean, variance, scale, shift, training=False, momentum=1 - momentum, eps=epsilon)
    return (y, mean, variance, mean, variance)[: len(node.outputs)] if len(node.outputs) > 1 else y


def _with_batch_statistics(
    x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, epsilon: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes = [0, *range(2, x.ndim)]
    shape = [-1, *[1] * (x.ndim - 2)]
    batch_mean, batch_variance = x.mean(axes), x.var(axes, correction=0)  # torch's own update divides by n - 1
    y = (x - batch_mean.reshape(shape)) * torch.rsqrt(batch_variance.reshape(shape) + epsilon)
    return (
        (y * scale.reshape(shape) + shift.reshape(shape)).to(x.dtype),
        (mean * momentum + batch_mean * (1 - momentum)).to(mean.dtype),
        (variance * momentum + batch_variance * (1 - momentum)).to(variance.dtype),
    )


@operator("InstanceNormalization")
def instance_normalization(node: OnnxNode, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Each channel of each sample by its own mean and variance."""
    return F.instance_norm(x, weight=scale, bias=shift, use_input_stats=True, eps=node.get("epsilon", EPSILON))


@operator("LayerNormalization")
def layer_normalization(
    node: OnnxNode, x: Tensor, scale: Tensor, shift: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    """Each sample by the mean and variance over the axes from ``axis``; they are outputs two and three, in float."""
    axis, epsilon = node.get("axis", -1) % x.ndim, node.get("epsilon", EPSILON)
    y = _layer_normalised(x, scale, shift, axis, epsilon)
    if len(node.outputs) == 1:
        return y
    axes, wide = list(range(axis, x.ndim)), _stash(node, x)
    mean, variance = wide.mean(axes, keepdim=True), wide.var(axes, correction=0, keepdim=True)
    return (y, mean, torch.rsqrt(variance + epsilon))[: len(node.outputs)]


def _layer_normalised(x: Tensor, scale: Tensor, shift: Tensor | None, axis: int, epsilon: float) -> Tensor:
    if axis == 0:  # the batch is one of the axes, and its size is not known
        centred = x - x.mean()
        y = centred * torch.rsqrt(centred.square().mean() + epsilon)
    elif scale.shape == x.shape[axis:] and (shift is None or shift.shape == scale.shape):
        return F.layer_norm(x, x.shape[axis:], scale, shift, epsilon)
    else:
        y = F.layer_norm(x, x.shape[axis:], eps=epsilon)
    return y * scale if shift is None else y * scale + shift


def _stash(node: OnnxNode, x: Tensor) -> Tensor:
    """The input in the type in which ONNX computes statistics."""
    return x.to(torch.float32) if node.get("stash_type", 1) == 1 and x.dtype.itemsize < 4 else x


@operator("GroupNormalization")
def group_normalization(node: OnnxNode, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Groups of channels by their mean and variance; opset 18 has one scale per group, later ones per channel."""
    groups = node.get("num_groups")
    if node.opset < 21:
        scale, shift = (v.unsqueeze(1).expand(-1, x.shape[1] // groups).reshape(-1) for v in (scale, shift))
    return F.group_norm(x, groups, scale, shift, node.get("epsilon", EPSILON))


@operator("RMSNormalization")
def rms_normalization(node: OnnxNode, x: Tensor, scale: Tensor) -> Tensor:
    """Each sample by the root of its mean square over the axes from ``axis``."""
    axis, epsilon = node.get("axis", -1) % x.ndim, node.get("epsilon", EPSILON)
    if axis > 0 and scale.shape == x.shape[axis:]:
        return F.rms_norm(x, x.shape[axis:], scale, epsilon)
    wide = _stash(node, x)
    square = wide.square().mean(list(range(axis, x.ndim)), keepdim=True)
    return (wide * torch.rsqrt(square + epsilon)).to(x.dtype) * scale


@operator("LpNormalization")
def lp_normalization(node: OnnxNode, x: Tensor) -> Tensor:
    """Divides by the 1-norm or 2-norm along an axis; what is all zeros stays."""
    return F.normalize(x, p=float(node.get("p", 2)), dim=node.get("axis", -1))


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: OnnxNode, x: Tensor) -> Tensor:
    """``(x - mean) / (standard deviation + 1e-9)`` over the axes."""
    axes = node.get("axes", [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@operator("LRN")
def local_response_normalization(node: OnnxNode, x: Tensor) -> Tensor:
    """Divides by the energy of neighbouring channels (Krizhevsky et al. 2012, section 3.3)."""
    size = node.get("size")
    if size < 1:
        raise SlimlineError(f"its size is {size}, and a neighbourhood has at least one channel.")
    before = (size - 1) // 2
    squares = x.square().flatten(2).unsqueeze(1)  # the channels become an axis to pool over
    means = F.avg_pool2d(F.pad(squares, [0, 0, before, size - 1 - before]), [size, 1], stride=1).squeeze(1)
    alpha, beta, bias = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    y: Tensor = x / (means.reshape(x.shape) * alpha + bias).pow(beta)
    return y
