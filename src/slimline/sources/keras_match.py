"""Which weight of an imported network holds which variable of its Keras model: found by value, undone by rule.

The converter transposes kernels and folds batch norms into the layer before, W = K s and b = beta + s (c - mean) with
s = gamma / sqrt(variance + epsilon). Both are undone when a changed weight goes back: the kernel becomes W, and the
batch norm one that only adds, gamma = 1, mean = 0, variance = 1 - epsilon, beta = b.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Inverse = Callable[[Array], dict[str, Array]]
"""A weight of the network -> the variables that hold it, by path."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Norm:
    """A batch norm: its folder in the variables' paths, and what its config says."""

    path: str
    epsilon: float

    def scale(self, variables: Mapping[str, Array]) -> Array:
        variance = variables[f"{self.path}/moving_variance"]
        gamma = variables.get(f"{self.path}/gamma", np.ones_like(variance))
        return np.asarray(gamma / np.sqrt(variance + self.epsilon), np.float32)

    def shift(self, variables: Mapping[str, Array], bias: Array | None) -> Array:
        mean = variables[f"{self.path}/moving_mean"]
        inner = -mean if bias is None else bias - mean
        return variables.get(f"{self.path}/beta", np.zeros_like(mean)) + self.scale(variables) * inner

    def adding(self, shift: Array, variables: Mapping[str, Array]) -> dict[str, Array]:
        """The batch norm that adds a shift and does nothing else."""
        centred = f"{self.path}/beta" in variables
        values = {
            "gamma": np.ones_like(shift),
            "beta": shift,
            "moving_mean": np.zeros_like(shift) if centred else -shift,
            "moving_variance": np.full_like(shift, 1 - self.epsilon),
        }
        return {f"{self.path}/{k}": v for k, v in values.items() if f"{self.path}/{k}" in variables}


@dataclass
class Match:
    """What was found: for each weight of the network, how it becomes variables."""

    inverses: dict[str, Inverse] = field(default_factory=dict)
    fixed_shape: set[str] = field(default_factory=set)
    """Weights that can only go back in the shape they have, as axes were merged."""


def match(variables: Mapping[str, Array], weights: Mapping[str, Array], norms: list[Norm]) -> Match:
    """Pair variables and weights that hold the same numbers.

    Kernels come first, alone or with a batch norm folded in; the bias of a kernel's weight is what goes with it.
    """
    found = Match()
    free = list(norms)
    folded: dict[str, Norm | None] = {}
    for path in (path for path, value in variables.items() if value.ndim > 1):
        weight, norm = _find_kernel(path, variables, weights, free, found)
        if weight is not None:
            folded[weight] = norm
            free = [other for other in free if other is not norm]
            _match_bias(path, weight, norm, variables, weights, found)
    return found


def _find_kernel(
    path: str, variables: Mapping[str, Array], weights: Mapping[str, Array], norms: list[Norm], found: Match
) -> tuple[str | None, Norm | None]:
    kernel = variables[path]
    for norm in (None, *norms):
        for scaled in [kernel] if norm is None else _scaled(kernel, norm.scale(variables)):
            for name, weight in weights.items():
                back = None if name in found.inverses else _same(scaled, weight)
                if back is not None:
                    inverse, any_shape = back
                    found.inverses[name] = lambda w, path=path, inverse=inverse: {path: inverse(w)}  # type: ignore[misc]
                    if not any_shape:
                        found.fixed_shape.add(name)
                    return name, norm
    return None, None


def _scaled(kernel: Array, scale: Array) -> list[Array]:
    """The kernel with each of its axes that fit scaled."""
    axes = [axis for axis, size in enumerate(kernel.shape) if size == len(scale)]
    return [kernel * np.expand_dims(scale, [a for a in range(kernel.ndim) if a != axis]) for axis in axes]


def _match_bias(
    path: str,
    weight: str,
    norm: Norm | None,
    variables: Mapping[str, Array],
    weights: Mapping[str, Array],
    found: Match,
) -> None:
    layer, name = path.rpartition("/")[0], weight.rpartition(".")[0] + ".bias"
    bias = variables.get(f"{layer}/bias")
    held = weights.get(name)
    if held is None:
        return
    wanted = bias if norm is None else norm.shift(variables, bias)
    if wanted is None or wanted.shape != held.shape or not _close(wanted, held):
        return
    if norm is None:
        found.inverses[name] = lambda b: {f"{layer}/bias": b}
    else:
        zero = {f"{layer}/bias"} if bias is not None else set()
        found.inverses[name] = lambda b: {**norm.adding(b, variables), **{p: np.zeros_like(b) for p in zero}}


def _same(variable: Array, weight: Array) -> tuple[Callable[[Array], Array], bool] | None:
    """How a weight becomes the variable again, and whether in any shape; None when they differ."""
    if variable.size != weight.size:
        return None
    wide = [size for size in weight.shape if size > 1]
    for order in itertools.permutations(range(variable.ndim)):
        moved = variable.transpose(order)
        if [size for size in moved.shape if size > 1] == wide and _close(moved.reshape(weight.shape), weight):
            return _undo(moved.shape, weight.shape, order), True
    if weight.ndim == 2 and _close(variable.reshape(weight.shape), weight):  # heads merged into one axis
        return lambda w: w.reshape(variable.shape), False
    if weight.ndim == 2 and _close(variable.reshape(weight.T.shape), weight.T):
        return lambda w: w.T.reshape(variable.shape), False
    return None


def _undo(moved: tuple[int, ...], weight: tuple[int, ...], order: tuple[int, ...]) -> Callable[[Array], Array]:
    positions = iter([axis for axis, size in enumerate(weight) if size > 1])
    places = [next(positions) if size > 1 else None for size in moved]
    back = np.argsort(order)

    def inverse(w: Array) -> Array:
        shape = [1 if place is None else w.shape[place] for place in places]
        return np.ascontiguousarray(w.reshape(shape).transpose(back))

    return inverse


def _close(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max(initial=0) <= TOLERANCE * np.abs(b).max(initial=1e-30))
