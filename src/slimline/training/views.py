"""A finite set of views of every sample, so that the teacher has to answer each only once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SHIFT_SHARE = 14
"""Images are shifted by up to 1/14 of their side: 2 pixels of 28."""

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Views:
    """View 0 of a sample is the sample itself; further views mirror (half of them) and shift its images.

    Args:
        inputs: tensors by input name, batch axis first; only those of 4 axes (images) differ between views.
        count: views per sample.
    """

    inputs: Mapping[str, Tensor]
    count: int = 1
    seed: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batch(self, index: Index, view: Index) -> dict[str, Tensor]:
        """Samples ``index``, each in its view ``view``; the same pair always gives the same tensors."""
        if self.count == 1:
            return {name: x[torch.from_numpy(index)] for name, x in self.inputs.items()}
        return {
            name: self._images(x, index, view) if x.ndim == 4 else x[torch.from_numpy(index)]
            for name, x in self.inputs.items()
        }

    def _images(self, images: Tensor, index: Index, view: Index) -> Tensor:
        n, (height, width) = len(images), images.shape[2:]
        reach = max(1, min(height, width) // SHIFT_SHARE)
        rng = np.random.default_rng(self.seed)
        mirror = rng.random((self.count, n)) < 0.5
        dy, dx = rng.integers(0, 2 * reach + 1, (2, self.count, n))
        mirror[0], dy[0], dx[0] = False, reach, reach
        picked = images[torch.from_numpy(index)]
        picked = torch.where(torch.from_numpy(mirror[view, index])[:, None, None, None], picked.flip(3), picked)
        padded = F.pad(picked, (reach,) * 4)
        rows = (torch.from_numpy(dy[view, index])[:, None] + torch.arange(height))[:, None, :, None]
        columns = (torch.from_numpy(dx[view, index])[:, None] + torch.arange(width))[:, None, None, :]
        sample = torch.arange(len(index))[:, None, None, None]
        channel = torch.arange(images.shape[1])[None, :, None, None]
        return padded[sample, channel, rows, columns]
