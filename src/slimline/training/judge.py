"""The score of a network on held-out samples while it trains."""

import numpy as np
from torch import Tensor

from slimline.network.network import Network
from slimline.task import Array, Samples, Task

BATCH = 64


class TaskJudge:
    """The task's mean score on its validation samples, or on the first of them.

    Args:
        task: decided, with the original.
        most: samples that are looked at.
    """

    def __init__(self, task: Task, most: int) -> None:
        assert task.original is not None
        self.task = task
        self.samples: Samples = task.validate.take(slice(0, most))
        answers = self._outputs(task.original)
        self.reference: list[Array] = [] if task.labels_decide(self.samples) else answers
        self.original_score = float(task.per_sample(answers, self.samples, answers).mean())
        """The original's, on the same samples."""

    def __call__(self, network: Network) -> float:
        return float(self.task.per_sample(self._outputs(network), self.samples, self.reference).mean())

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
