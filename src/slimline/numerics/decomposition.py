"""A matrix, or the kernel of a convolution, as the product of two smaller ones that comes closest to it.

Eckart, Young (1936). The approximation of one matrix by another of lower rank. doi:10.1007/BF02288367. For kernels:
Guo et al. (2018). Network Decoupling. arXiv:1808.05517, section 3.
"""

import torch
from torch import Tensor


def split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """sqrt(S) V^T, (rank, inputs), and U sqrt(S), (outputs, rank): their product is closest to the matrix.

    Args:
        matrix: (outputs, inputs), or several of them, (n, outputs, inputs).
    """
    u, s, v = torch.linalg.svd(matrix.detach().double(), full_matrices=False)
    root = s[..., :rank].sqrt()
    first, last = root[..., :, None] * v[..., :rank, :], u[..., :, :rank] * root[..., None, :]
    # the decomposition leaves the signs open: the largest entry of every row of the first factor is positive
    sign = torch.where(first.gather(-1, first.abs().argmax(-1, keepdim=True)) < 0, -1.0, 1.0).to(first.dtype)
    return first * sign, last * sign.transpose(-1, -2)


def channel_matrices(weight: Tensor) -> Tensor:
    """W_i of every input channel, (inputs, outputs, positions)."""
    return weight.flatten(2).transpose(0, 1)


def depthwise_and_pointwise(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The weights (inputs * rank, 1, *kernel) and (outputs, inputs * rank, 1, ...) whose composition is closest."""
    outputs, inputs, *kernel = weight.shape
    depthwise, pointwise = split(channel_matrices(weight), rank)
    pointwise = pointwise.permute(1, 0, 2).reshape(outputs, inputs * rank, *[1] * len(kernel))
    return depthwise.reshape(inputs * rank, 1, *kernel), pointwise
