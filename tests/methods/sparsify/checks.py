"""What the tests of this room share: patterns looked at number by number, and zeros counted."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from slimline.network.network import Network

Bools = NDArray[np.bool_]


def chosen(scores: Sequence[float], count: int) -> set[int]:
    """The places of the lowest scores, of equal ones the first: Python's sort is stable."""
    return set(sorted(range(len(scores)), key=lambda i: scores[i])[:count])


def slow_zeros(scores: NDArray[np.float64], share: float, pattern: str) -> Bools:
    """What becomes zero of a matrix of (outputs, inputs), one unit after the other."""
    rows, columns = scores.shape
    mask = np.zeros((rows, columns), bool)
    if ":" in pattern:
        kept, size = map(int, pattern.split(":"))
        going = []
        for r, start in itertools.product(range(rows), range(0, columns, size)):
            going += [(r, start + c) for c in sorted(chosen(list(scores[r, start : start + size]), size - kept))]
        for i in chosen([scores[cell] for cell in going], round(share * rows * columns)):
            mask[going[i]] = True
        return mask
    height, width = (1, 1) if pattern == "any" else map(int, pattern.split("x"))
    blocks = list(itertools.product(range(0, rows, height), range(0, columns, width)))
    sums = [float(scores[r : r + height, c : c + width].sum()) for r, c in blocks]
    for i in chosen(sums, round(share * len(blocks))):
        r, c = blocks[i]
        mask[r : r + height, c : c + width] = True
    return mask


def zero_masks(network: Network) -> dict[str, Bools]:
    """Where the weights of two or more axes are zero."""
    return {name: (w.detach() == 0).numpy() for name, w in network.weights().items() if w.ndim > 1}


def follows(weight: Tensor, pattern: str, inputs: int = 1) -> bool:
    """Whether a weight is zero as a pattern says.

    Args:
        inputs: the axis of the inputs, 0 or 1; the outputs lie on the other one.
    """
    zero = np.moveaxis((weight.detach() == 0).numpy(), (1 - inputs, inputs), (0, -1))
    zero = zero.reshape(len(zero), -1, zero.shape[-1])  # (outputs, places of the kernel, inputs)
    if ":" in pattern:
        kept, size = map(int, pattern.split(":"))
        return all(
            zero[o, k, start : start + size].sum() >= size - kept
            for o, k, start in np.ndindex(*zero.shape[:2], zero.shape[2] // size)
            for start in [start * size]
        )
    height, width = map(int, pattern.split("x"))
    outputs, places, columns = zero.shape
    return all(
        zero[o : o + height, k, c : c + width].sum() in (0, height * width)
        for o in range(0, outputs, height)
        for k in range(places)
        for c in range(0, columns, width)
    )
