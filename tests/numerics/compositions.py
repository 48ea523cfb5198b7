"""What two weights make together, written out."""

import torch
from torch import Tensor


def composition(depthwise: Tensor, pointwise: Tensor, rank: int = 1) -> Tensor:
    """The dense weight, written out: W[o, i, k] = sum over r of pointwise[o, (i, r)] depthwise[(i, r), k]."""
    outputs, kernel = len(pointwise), depthwise.shape[2:]
    d = depthwise.reshape(-1, rank, depthwise[0].numel())
    return torch.einsum("oir,irk->oik", pointwise.reshape(outputs, -1, rank), d).reshape(outputs, -1, *kernel)
