"""Affine quantisation: real = scale * (integer - zero_point).

Jacob et al. (2018), Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
arXiv:1712.05877, equations 1 and 11.
"""

import torch
from torch import Tensor

from slimline.numerics.formats import IntFormat

SMALLEST_SCALE = 1e-12
"""A tensor of zeros still needs a scale that can be divided by."""


def affine_parameters(low: float, high: float, fmt: IntFormat) -> tuple[float, int]:
    """Scale and zero point that map [low, high] onto a format; zero is always represented exactly.

    Zero has to be exact because convolutions pad with it.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / (fmt.high - fmt.low), SMALLEST_SCALE)
    zero_point = round(fmt.low - low / scale)
    return scale, min(max(zero_point, fmt.low), fmt.high)


def symmetric_scales(weight: Tensor, fmt: IntFormat) -> Tensor:
    """One scale per output channel (axis 0) so that the largest magnitude maps to the largest integer.

    Args:
        weight: (out, ...).

    Returns:
        (out,) float32 scales.
    """
    largest = weight.detach().flatten(1).abs().amax(1) if weight.ndim > 1 else weight.detach().abs()
    return (largest.float() / fmt.high).clamp_min(SMALLEST_SCALE)


def quantize_symmetric(weight: Tensor, scales: Tensor, fmt: IntFormat) -> Tensor:
    """Round ``weight`` (out, ...) to integers of ``fmt`` with one scale per output channel."""
    shape = (-1, *[1] * (weight.ndim - 1))
    rounded = torch.round(weight.detach().double() / scales.double().view(shape))
    return rounded.clamp(fmt.low, fmt.high).to(fmt.dtype)
