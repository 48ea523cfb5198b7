"""How large a rank: fixed, by the energy that is kept, by the noise that is found, or by a budget of multiply-adds.

Energy: the smallest r with  s_1^2 + .. + s_r^2  >=  e (s_1^2 + .. + s_L^2).

VBMF: Nakajima, Sugiyama, Babacan, Tomioka (2013). Global Analytic Solution of Fully-observed Variational Bayesian
Matrix Factorization. JMLR 14:1-37, theorems 2, 4 and corollary 1, the empirical variant without a known noise. For a
matrix of L rows and M >= L columns with singular values s_h, a = L / M and x_h = s_h^2 / (M v) for a noise variance v:

    F(v) = sum_h  x_h - log x_h + [x_h > x'] (log(t_h + 1) + a log(t_h / a + 1) - t_h)
    t_h  = (x_h - (1 + a) + sqrt((x_h - (1 + a))^2 - 4 a)) / 2
    x'   = (1 + t') (1 + a / t'),   f(t') + f(t' / a) = 0,   f(z) = log(z + 1) / z - 1/2

The v that makes F smallest is the noise, and the rank is the number of x_h above x'.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.methods.method import Method, param

CHOICES = ("budget", "energy", "vbmf")
Ranks = tuple[int, ...]
GRID = 512
"""Noise variances at which F is looked at before the best of them is refined: it may have several minima."""
FAINTEST = 1e-20
"""Squared singular values below this share of their sum count as this: they are rounding, and have a logarithm."""


def rank_param() -> Any:
    """The rank itself."""
    return param(0, low=0, high=65536, doc="the rank; 0 chooses one for every layer")


def choose_param() -> Any:
    """What decides where the rank is 0."""
    return param(
        "budget",
        choices=CHOICES,
        doc="how a rank is chosen: the largest within a budget of multiply-adds, the smallest that keeps a share of "
        "the energy, or as many components as stand out of the noise",
    )


def energy_param() -> Any:
    """The share for ``energy``."""
    return param(0.95, low=0.01, high=1.0, doc="share of the squared singular values that choose='energy' keeps")


def budget_param() -> Any:
    """The share for ``budget``."""
    return param(0.5, low=0.001, high=1.0, doc="share of the layer's multiply-adds that choose='budget' spends at most")


def multiple_param() -> Any:
    """What runtimes like."""
    return param(
        8,
        low=1,
        high=64,
        doc="chosen ranks are multiples of this, as runtimes like them, wherever that leaves the layer cheaper",
    )


def layers_param() -> Any:
    """Which layers."""
    return param((), doc="names of the layers to take; none for all that qualify")


@dataclass(frozen=True)
class RankRule:
    """The hyperparameters of those names, together."""

    rank: int = 0
    choose: str = "budget"
    energy: float = 0.95
    budget: float = 0.5
    multiple: int = 1

    @staticmethod
    def of(method: Method) -> "RankRule":
        """Those that a method has; the others keep their default."""
        return RankRule(**{f.name: getattr(method, f.name) for f in fields(RankRule) if hasattr(method, f.name)})

    def ranks(
        self,
        sizes: Sequence[int],
        matrices: Callable[[], Sequence[Tensor]],
        macs: Callable[[Ranks], int],
        whole: int,
    ) -> Ranks:
        """One rank for each axis that gets one; () where no rank fits the budget.

        Args:
            sizes: the largest ranks there can be. One rank for several axes grows in proportion to these.
            matrices: one for each axis, (rows, columns), or several of one shape, (n, rows, columns), that share it.
            macs: multiply-adds of the layers that ranks lead to; larger ranks never cost less.
            whole: multiply-adds of the layer.
        """
        if self.rank:
            return tuple(min(self.rank, size) for size in sizes)
        if self.choose == "budget":
            largest = max(sizes)
            steps = [tuple(-(-n * size // largest) for size in sizes) for n in range(1, largest + 1)]
            n = budget_rank(lambda n: macs(steps[n - 1]), largest, self.budget * whole)
            return tuple(r if r < self.multiple else r - r % self.multiple for r in steps[n - 1]) if n else ()
        rank_of = (lambda m: energy_rank(m, self.energy)) if self.choose == "energy" else vbmf_rank
        found = tuple(min(size, max(1, rank_of(m))) for size, m in zip(sizes, matrices(), strict=True))
        rounded = tuple(min(size, -(-r // self.multiple) * self.multiple) for size, r in zip(sizes, found, strict=True))
        return rounded if macs(rounded) < whole else found


def too_large(method: Method, rank: int, name: str, most: int, named: bool) -> list[str]:
    """Why a layer or table cannot have this rank; [] means it can.

    Raises:
        SlimlineError: it cannot, and it was ``named``.
    """
    if rank <= most:
        return []
    if named:
        check_rank(method, rank, {name: most})
    return [f"has rank {most} at most, fewer than {rank}"]


def check_rank(method: Method, rank: int, largest: Mapping[str, int]) -> None:
    """There is a layer or table that can have this rank, or none at all.

    Args:
        largest: the largest rank of each.

    Raises:
        SlimlineError: there are some and no one can.
    """
    name, most = max(largest.items(), key=lambda item: item[1], default=("", rank))
    if rank > most:
        raise SlimlineError(
            f"{type(method).__name__}(rank={rank}) is too large: the rank of {name} is {most} at most; "
            f"choose 1 to {most}."
        )


def energy_rank(matrix: Tensor, energy: float) -> int:
    """The smallest rank that keeps a share of the squared singular values, over all matrices together.

    Args:
        matrix: (rows, columns), or (n, rows, columns) for n matrices that get the same rank.
    """
    squares = singular_values(matrix).square().sum(0)
    kept = squares.cumsum(0) / squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)
    # rounding must not ask for one more than all
    return min(len(kept), int((kept < energy * (1 - 1e-12)).sum()) + 1)


def vbmf_rank(matrix: Tensor) -> int:
    """The components that stand out of the noise; of several matrices, those of the one with most.

    Args:
        matrix: (rows, columns), or (n, rows, columns).
    """
    rows, columns = sorted(matrix.shape[-2:])
    found = []
    for s in singular_values(matrix):
        squares = s.numpy() ** 2
        found.append(int((squares > columns * noise(squares, columns) * _threshold(rows / columns)).sum()))
    return max(found)


def budget_rank(macs: Callable[[int], int], most: int, limit: float) -> int:
    """The largest rank up to ``most`` whose multiply-adds are at most ``limit``; 0 when there is none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if macs(middle) <= limit else (low, middle - 1)
    return low


def singular_values(matrix: Tensor) -> Tensor:
    """In float64, largest first, (n, min(rows, columns)); n is 1 for a single matrix."""
    values: Tensor = torch.linalg.svdvals(matrix.detach().double())
    return values.reshape(-1, values.shape[-1])


def noise(squares: NDArray[np.float64], columns: int) -> float:
    """v, the variance of the noise in every entry of a matrix with no more rows than columns.

    Args:
        squares: of its singular values, one for every row, largest first.
    """
    total, rows = float(squares.sum()), len(squares)
    if total == 0:
        return 0.0
    squares, ratio = np.maximum(squares, FAINTEST * total), rows / columns
    threshold = _threshold(ratio)

    def energy(log_noise: NDArray[np.float64]) -> NDArray[np.float64]:
        x = squares / (columns * np.exp(log_noise)[..., None])
        above = x - (1 + ratio)
        t = (above + np.sqrt(np.maximum(above**2 - 4 * ratio, 0.0))) / 2
        t = np.where(x > threshold, t, 1.0)
        signal = np.log(t + 1) + ratio * np.log(t / ratio + 1) - t
        result: NDArray[np.float64] = (x - np.log(x) + np.where(x > threshold, signal, 0.0)).sum(-1)
        return result

    most = math.ceil(rows / (1 + ratio)) - 1
    least_noise = max(squares[most] / (columns * threshold), squares[most:].mean() / columns)
    bounds = math.log(least_noise), max(math.log(least_noise), math.log(total / (rows * columns)))
    grid = np.linspace(*bounds, GRID)
    best = int(energy(grid).argmin())
    around = grid[max(0, best - 1)], grid[min(GRID - 1, best + 1)]
    log_noise = grid[best]
    if around[1] > around[0]:
        refined = minimize_scalar(lambda v: float(energy(np.asarray(v))), bounds=around, method="bounded").x
        log_noise = min((log_noise, refined), key=lambda v: float(energy(np.asarray(v))))
    return math.exp(log_noise)


def _threshold(ratio: float) -> float:
    """x', which what is no noise lies above."""

    def f(z: float) -> float:
        return math.log(z + 1) / z - 0.5

    t = brentq(lambda t: f(t) + f(t / ratio), 1e-9, 10.0)  # about 2.5 sqrt(ratio)
    return float((1 + t) * (1 + ratio / t))
