"""Distillation: the network learns to answer as the original does, with or without labels.

Hinton, Vinyals, Dean (2015). Distilling the Knowledge in a Neural Network. arXiv:1503.02531, section 2.
Finite views of every sample: Beyer et al. (2022), Knowledge distillation: A good teacher is patient and consistent,
arXiv:2106.05237.

    L = (1 - a) T^2 KL( softmax(teacher / T) || softmax(student / T) ) + a CE(student, label)

Ours differs: the teacher sees exactly the view that the student sees, but each of finitely many views is answered
only once and kept. Outputs
that are not class scores are matched by their mean squared error, in units of the teacher's variance.
Helps: repairs what pruning broke, from the original alone.  Does not: exceed what the smaller network can hold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, Progress, needs_data, param, register
from slimline.network.network import Network
from slimline.task import Samples, Task
from slimline.training.recover import Batch, Plan, recover
from slimline.training.teacher import teacher_outputs
from slimline.training.views import Views

NextBatch = Callable[[int], Batch]


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float, label_weight: float
) -> Tensor:
    """L of the equation above; student and teacher (batch, classes), labels (batch,) or None."""
    if student.ndim != 2:
        return F.mse_loss(student, teacher) / teacher.var().clamp_min(1e-8)
    soft = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.log_softmax(teacher / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    loss = (1 - label_weight) * temperature**2 * soft
    return loss if labels is None or label_weight == 0 else loss + label_weight * F.cross_entropy(student, labels)


@register
@dataclass(frozen=True)
class Distill(Method):
    """Train the network against the original's outputs."""

    epochs: float = param(2.0, low=0.0, high=1000.0, doc="passes over the training samples")
    learning_rate: float = param(0.05, low=1e-6, high=10.0, doc="peak learning rate of SGD with Nesterov momentum")
    batch: int = param(128, low=2, high=65536, doc="samples per step")
    temperature: float = param(4.0, low=0.1, high=100.0, doc="T: how soft the teacher's answers are")
    label_weight: float = param(0.0, low=0.0, high=1.0, doc="a: share of the loss that comes from labels")
    views: int = param(1, low=1, high=64, doc="views of every sample; more than one needs Task(augment='image')")
    precision: str = param("fp32", choices=("fp32", "bf16"), doc="precision of convolutions and products")
    seed: int = param(0, low=0, doc="order of the samples and which view of each is taken")

    needs = frozenset({"data", "float weights"})
    cites = ("hinton2015distilling", "beyer2022patient")

    def apply(self, network: Network, task: Task | None = None, progress: Progress | None = None) -> Outcome:
        samples = needs_data("Distillation", task, network)
        assert task is not None
        if task.original is None:
            raise SlimlineError(
                "Distill needs the original network: apply it in a Recipe, or pass task.with_original(network)."
            )
        views = Views(samples.tensors(), self.views if task.augment else 1)
        targets = TEACHER.answers(task.original, samples, views, self.precision, progress)
        steps = max(1, round(self.epochs * len(samples) / self.batch))
        plan = Plan(steps, self.learning_rate, precision=self.precision)
        trained, curve = recover(network, self.batches(views, targets, samples), self.loss, plan, progress)
        return Outcome(trained, ["all trainable weights"], {}, curve)

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return distillation_loss(outputs[0], batch.targets[0], batch.labels, self.temperature, self.label_weight)

    def batches(self, views: Views, targets: Tensor, samples: Samples) -> NextBatch:
        """Batch of a step: every sample once per epoch, in an order and with views drawn from the seed."""
        labels = (
            None
            if samples.labels is None or not self.label_weight
            else torch.from_numpy(samples.labels.astype(np.int64))
        )
        size = min(self.batch, len(samples))
        per_epoch = max(1, len(samples) // size)

        def next_batch(step: int) -> Batch:
            epoch, place = divmod(step, per_epoch)
            rng = np.random.default_rng((self.seed, epoch))
            index = rng.permutation(len(samples))[place * size : (place + 1) * size]
            view = rng.integers(0, views.count, len(samples))[index]
            picked = torch.from_numpy(index)
            target = targets[torch.from_numpy(view), picked]
            return Batch(views.batch(index, view), (target,), None if labels is None else labels[picked])

        return next_batch


class _TeacherMemory:
    """The last teacher's answers, so that candidates of one search share them."""

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.targets = torch.zeros(0)

    def answers(
        self, teacher: Network, samples: Samples, views: Views, precision: str, progress: Progress | None
    ) -> Tensor:
        key = (id(teacher.module), samples.digest(), views.count, views.seed, precision)
        if key != self.key:
            self.targets = teacher_outputs(teacher, views, precision, progress)
            self.key = key
            self.owner = teacher  # keeps the id above from being reused
        return self.targets


TEACHER = _TeacherMemory()
