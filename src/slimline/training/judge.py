"""The score of a network on held-out samples while it trains."""

import math

import numpy as np
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.task import Array, Samples, Task

BATCH = 64


class TaskJudge:
    """The task's mean score on its validation samples, or on so many of them, evenly spread.

    Args:
        task: decided, with the original.
        most: samples that are looked at.

    Raises:
        SlimlineError: the original has no score on these samples.
    """

    def __init__(self, task: Task, most: int) -> None:
        assert task.original is not None
        self.task = task
        # The first samples of data that are sorted by class would be of few classes.
        index = np.unique(np.linspace(0, len(task.validate) - 1, min(most, len(task.validate))).astype(np.int64))
        self.samples: Samples = task.validate.take(index)
        answers = self._outputs(task.original)
        self.reference: list[Array] = [] if task.labels_decide(self.samples) else answers
        self.original_score = float(task.per_sample(answers, self.samples, answers).mean())
        """The original's, on the same samples."""

    def __call__(self, network: Network) -> float:
        """The mean score; NaN for a network that answers with numbers that are none, if it has no score for that.

        Raises:
            SlimlineError: the score fails on finite numbers.
        """
        outputs = self._outputs(network)
        try:
            return float(self.task.per_sample(outputs, self.samples, self.reference).mean())
        except SlimlineError:
            if all(np.isfinite(output).all() for output in outputs):
                raise
            return math.nan

    def _outputs(self, network: Network) -> list[Array]:
        """Without the taps that stand behind the outputs."""
        assert self.task.original is not None
        own = len(self.task.original.output_names)
        device = next((w.device for w in network.weights().values()), None)
        parts: list[tuple[Tensor, ...]] = []
        for start in range(0, len(self.samples), BATCH):
            few = self.samples.take(slice(start, start + BATCH)).tensors()
            inputs = {name: x if device is None else x.to(device) for name, x in few.items()}
            parts.append(network.run(inputs)[:own])
        return [np.concatenate([o.float().cpu().numpy() if o.is_floating_point() else o.cpu().numpy() for o in outputs])
                for outputs in zip(*parts, strict=True)]  # fmt: skip
