"""Views of every sample: finitely many, so that the teacher answers each only once, or a fresh one for every number."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimline.network.image_axes import image_axes
from slimline.network.network import Network
from slimline.numerics.augment import MIX, PARTNER, SHARE, Augmenter, Draws, augmentations, mixed, mixtures
from slimline.training.synthetic import rows_indexed

STATISTICS_SAMPLES = 1000
"""How many samples, spread over all, tell the mean and the deviation of an input."""
FRESH_KEPT = 4
"""Endless views whose draws are kept; an epoch that is over never asks for its view again."""

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Views:
    """View 0 of a sample is the sample itself; further ones are mixed with another sample, and their images changed.

    Args:
        inputs: tensors by input name, batch axis first. Floating-point ones of 4 axes (images) are moved and coloured,
            those of one sample together; all inputs are mixed, with the same other sample, unless one holds whole
            numbers, which have nothing between them.
        count: views per sample; 0 for no end of them. The changes of a view are drawn for all samples when it is first
            asked for, so batches of few different views are the fast ones.
        augment: what changes, as in `Task`.
        axes: where the channels of the images lie, as `slimline.network.image_axes` finds it: on axis 1 where nothing
            is said of an input, and None for one that is no image.
    """

    inputs: Mapping[str, Tensor]
    count: int = 1
    seed: int = 0
    augment: str | Iterable[str] = "image"
    axes: Mapping[str, int | None] = field(default_factory=dict)
    _drawn: dict[tuple[int, str | None], Draws] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = augmentations(self.augment) if self.count != 1 else ()
        object.__setattr__(self, "augment", names)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def identity(self) -> str:
        """What the views of given samples follow from, by which a stored training is known."""
        others = {name: self.axes[name] for name in self._candidates if self.axes.get(name, 1) != 1}
        return f"views {self.count} {self.augment} {self.seed}{f' channels {others}' if others else ''}"

    def batch(self, index: Index, view: Index) -> dict[str, Tensor]:
        """Samples ``index``, each in its view ``view``; the same pair always gives the same tensors."""
        batch = {name: x[torch.from_numpy(index)] for name, x in self.inputs.items()}
        changed = np.flatnonzero(view)
        if len(changed):
            rows = torch.from_numpy(changed)
            if self.mixes:
                drawn = self._rows(None, index[changed], view[changed])
                for name, x in self.inputs.items():
                    batch[name][rows] = mixed(batch[name][rows], x[drawn[PARTNER]], drawn[SHARE])
            for name, augmenter in self._augmenters.items():
                draws = self._rows(name, index[changed], view[changed])
                images = augmenter.apply(self._first(name, batch[name][rows]), draws, *self._statistics[name])
                batch[name][rows] = images.movedim(1, self._image_axes[name])
        return batch

    @property
    def mixes(self) -> bool:
        """Whether views are mixtures of two samples."""
        return MIX in self.augment and whole_numbers(self.inputs) is None

    @cached_property
    def _augmenters(self) -> dict[str, Augmenter]:
        names = tuple(name for name in self.augment if name != MIX)
        shapes = {name: self._first(name, self.inputs[name][:1]).shape for name in self._image_axes}
        sizes = {name: (shape[2], shape[3]) for name, shape in shapes.items()}
        return {name: Augmenter(names, size, next(iter(sizes.values()))) for name, size in sizes.items()}

    @cached_property
    def _image_axes(self) -> dict[str, int]:
        """Where the channels lie, by the name of every input whose images are moved or coloured."""
        axes = {name: self.axes.get(name, 1) for name in self._candidates}
        return {name: axis for name, axis in axes.items() if axis is not None}

    @property
    def _candidates(self) -> list[str]:
        """What would be moved or coloured unless ``axes`` says that it holds no images."""
        if not set(self.augment) - {MIX}:
            return []
        return [name for name, x in self.inputs.items() if x.ndim == 4 and x.is_floating_point()]

    def _first(self, name: str, images: Tensor) -> Tensor:
        """Images with their channels on axis 1, as kornia wants them."""
        return images.movedim(self._image_axes[name], 1).contiguous()

    @cached_property
    def _statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of every channel of the images."""
        found = {}
        for name in self._augmenters:
            some = self._first(name, self.inputs[name][:: -(-len(self) // STATISTICS_SAMPLES)])
            some = some if some.dtype == torch.float64 else some.float()
            deviation, mean = torch.std_mean(some, (0, 2, 3), correction=0, keepdim=True)
            found[name] = mean, torch.where(deviation > 0, deviation, 1.0)
        return found

    def _rows(self, name: str | None, index: Index, view: Index) -> Draws:
        """What is drawn for each of the pairs, of mixtures where no input is named; no view is 0."""
        found: Draws = {}
        for number in np.unique(view).tolist():
            place = torch.from_numpy(np.flatnonzero(view == number))
            picked = torch.from_numpy(index)[place]
            for key, values in self._draw(number, name).items():
                if key not in found:
                    found[key] = values.new_empty(len(index), *values.shape[1:])
                found[key][place] = values[picked]
        return found

    def _draw(self, view: int, name: str | None) -> Draws:
        if (view, name) not in self._drawn:
            if self.count == 0 and len(self._drawn) >= FRESH_KEPT * (len(self._augmenters) + self.mixes):
                self._drawn.clear()
            drawn = mixtures if name is None else self._augmenters[name].draw
            self._drawn[view, name] = drawn(len(self), self.seed, view)
        return self._drawn[view, name]


def without_effect(augment: Sequence[str], network: Network) -> dict[str, str]:
    """Those of the names that change no sample of this network, and why."""
    found = {}
    if MIX in augment and (name := nothing_between(network)) is not None:
        found[MIX] = f"the input {name!r} holds whole numbers, and nothing lies between two of them"
    of_images = [name for name in augment if name != MIX]
    if of_images and all(axis is None for axis in image_axes(network).values()):
        found |= dict.fromkeys(of_images, "no input holds images")
    return found


def nothing_between(network: Network) -> str | None:
    """The first input that holds whole numbers or, whatever its type, rows of a table; None where there is no such."""
    tables = (name for name in network.input_names if rows_indexed(network, name) is not None)
    return whole_numbers(network.examples) or next(tables, None)


def whole_numbers(inputs: Mapping[str, Tensor]) -> str | None:
    """The first input that holds no floating-point numbers."""
    return next((name for name, x in inputs.items() if not x.is_floating_point()), None)
