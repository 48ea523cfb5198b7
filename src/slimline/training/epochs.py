"""The batches of a training run: every sample once per epoch, each in a view of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from slimline.training.batch import Batch
from slimline.training.teacher import Teacher
from slimline.training.views import Index, Views


@dataclass
class Epochs:
    """Batches in an order and with views that are drawn from the seed.

    Args:
        views: the samples and their views.
        answers: what the teacher said to every view, (views, samples, ...), or the teacher, who is then asked in every
            step.
        data: says which samples these are, such as their digest.
        wanted: samples per step; all of them where there are fewer.
        labels: (samples,), or None.
    """

    views: Views
    answers: Tensor | Teacher
    data: str
    wanted: int
    labels: Tensor | None = None
    seed: int = 0
    _order: tuple[int, Index, Index] = field(default=(-1, np.zeros(0, np.int64), np.zeros(0, np.int64)), repr=False)

    @property
    def size(self) -> int:
        return min(self.wanted, len(self.views))

    @property
    def per_epoch(self) -> int:
        """Steps in which every sample comes once, but for those that do not fill a batch."""
        return max(1, len(self.views) // self.size)

    @property
    def identity(self) -> str:
        return f"{self.data} {self.views.identity} seed {self.seed}"

    def batch(self, step: int, rows: slice) -> Batch:
        """These samples of a step's batch."""
        epoch, place = divmod(step, self.per_epoch)
        order, view_of = self._drawn(epoch)
        index = order[place * self.size : (place + 1) * self.size][rows]
        view = view_of[index]
        picked = torch.from_numpy(index)
        inputs = self.views.batch(index, view)
        targets = (
            self.answers.answer(inputs)
            if isinstance(self.answers, Teacher)
            else (self.answers[torch.from_numpy(view), picked],)
        )
        return Batch(inputs, targets, None if self.labels is None else self.labels[picked])

    def _drawn(self, epoch: int) -> tuple[Index, Index]:
        """The order of an epoch and every sample's view in it; endless views are new in every epoch."""
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(len(self.views))
            count = self.views.count
            view = rng.integers(0, count, len(order)) if count else np.full(len(order), epoch + 1)
            self._order = (epoch, order, view)
        return self._order[1:]


def first_answers(batches: Epochs, most: int) -> Sequence[Tensor]:
    """What the teacher says to the first samples, at most so many."""
    return batches.batch(0, slice(0, min(most, batches.size))).targets
