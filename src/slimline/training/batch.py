"""What a training step reads, and how processes and parts of a step share it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from slimline.errors import SlimlineError


@dataclass(frozen=True)
class Batch:
    """Inputs by name and what the loss compares the outputs with; all with the samples on the first axis."""

    inputs: Mapping[str, Tensor]
    targets: tuple[Tensor, ...]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name."""
        yield from self.inputs.items()
        yield from ((f"target {i + 1}", target) for i, target in enumerate(self.targets))
        if self.labels is not None:
            yield "labels", self.labels

    def moved(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch, every tensor changed."""
        return Batch(
            {name: change(x) for name, x in self.inputs.items()},
            tuple(change(t) for t in self.targets),
            None if self.labels is None else change(self.labels),
        )

    def check(self, step: int) -> "Batch":
        """This batch, if all of its tensors hold equally many samples.

        Raises:
            SlimlineError: they do not.
        """
        lengths = {name: len(x) for name, x in self.tensors()}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise SlimlineError(
                f"The batch of training step {step + 1} holds unequal or no numbers of samples ({told}): give as many "
                "targets and labels as inputs."
            )
        return self

    def not_finite(self) -> str:
        """The name of the first tensor that holds NaN or infinity; empty if none does."""
        for name, x in self.tensors():
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                return name
        return ""


class Batches(Protocol):
    """The batch of every step. The same step always gives the same batch, so that a run can be continued anywhere."""

    @property
    def size(self) -> int:
        """Samples of a step, those of all processes together."""

    @property
    def identity(self) -> str:
        """Says which data these are and in which order: a run is only continued with the same."""

    def batch(self, step: int, rows: slice) -> Batch:
        """These samples of a step's batch."""


def shares(size: int, parts: int, whole: slice | None = None) -> list[slice]:
    """Consecutive slices of ``whole`` (or of 0 to ``size``) whose lengths differ by at most one; none is empty."""
    start, size = (0, size) if whole is None else (whole.start, whole.stop - whole.start)
    parts = min(parts, size)
    edges = [start + size * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
