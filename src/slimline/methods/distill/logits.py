"""Distillation: the network learns to answer as the original does, with or without labels.

Hinton, Vinyals, Dean (2015). Distilling the Knowledge in a Neural Network. arXiv:1503.02531, section 2.
Finite views of every sample: Beyer et al. (2022), Knowledge distillation: A good teacher is patient and consistent,
arXiv:2106.05237.

    L = (1 - a) T^2 KL( softmax(teacher / T) || softmax(student / T) ) + a CE(student, label)

Ours differs: the teacher sees exactly the view that the student sees, but each of finitely many views is answered only
once and kept (unless the answers would fill the memory: then it is asked again). Maps and sequences of class scores
get the KL of every position and its mean. Of a network that ends in a softmax the logarithms of its probabilities are
its logits, up to a constant that softmax ignores; without that they would pass through a softmax twice.

Outputs that are no class scores, and those that the user compares by cosine or relative error, are regressed as in
Romero et al. (2015), FitNets: Hints for Thin Deep Nets, arXiv:1412.6550, equation 3, with no regressor, since both
have the same shape, and in units of the teacher's variance over the entries of the batch, so that the learning rate
fits outputs of any scale:

    L = mean( (student - teacher)^2 ) / var(teacher)

The output matched is the first that holds floating-point numbers.
Helps: repairs what pruning broke, from the original alone.  Does not: exceed what the smaller network can hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, Progress, needs_data, param, register
from slimline.network.network import Network
from slimline.task import Samples, Task
from slimline.training.recover import Batch, Plan, recover
from slimline.training.teacher import Teacher, teacher_outputs
from slimline.training.views import Views

NextBatch = Callable[[int], Batch]
LARGEST_MEMORY = 2**32
"""Bytes of answers that are kept; an epoch of asking again costs about a third of an epoch of training."""


def class_loss(
    student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float, label_weight: float, axis: int = 1
) -> Tensor:
    """The first L above, of logits.

    Args:
        student, teacher: (batch, classes), or maps whose classes lie on ``axis``; the mean is over all positions.
        labels: (batch,), which count only where there is one position per sample; or None.
    """
    soft = F.kl_div(
        F.log_softmax(student / temperature, axis),
        F.log_softmax(teacher / temperature, axis),
        reduction="sum",
        log_target=True,
    ) / (student.numel() // student.shape[axis])
    if labels is None or label_weight == 0 or student.ndim != 2:
        return temperature**2 * soft
    return (1 - label_weight) * temperature**2 * soft + label_weight * F.cross_entropy(student, labels)


def regression_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The second L above; any shape."""
    return F.mse_loss(student, teacher) / teacher.var(correction=0).clamp_min(1e-8)


def as_logits(probabilities: Tensor) -> Tensor:
    """Logits whose softmax is ``probabilities``; zeros become the smallest number there is."""
    return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


@dataclass(frozen=True)
class Matched:
    """How the student's output is compared with the teacher's."""

    classes: bool
    axis: int = 1
    probabilities: bool = False


def matched_as(task: Task) -> Matched | None:
    """What a decided task says about its first output; None where that holds whole numbers and another is matched."""
    output = task.output
    if output is None or output.integers:
        return None
    return Matched(task.compares_classes, output.axis, output.probabilities)


@register
@dataclass(frozen=True)
class Distill(Method):
    """Train the network against the original's outputs."""

    epochs: float = param(2.0, low=0.0, high=1000.0, doc="passes over the training samples")
    learning_rate: float = param(0.05, low=1e-6, high=10.0, doc="peak learning rate")
    optimizer: str = param("sgd", choices=("sgd", "adamw"), doc="SGD with Nesterov momentum, or AdamW")
    batch: int = param(128, low=2, high=65536, doc="samples per step")
    temperature: float = param(4.0, low=0.1, high=100.0, doc="T: how soft the teacher's answers are")
    label_weight: float = param(0.0, low=0.0, high=1.0, doc="a: share of the loss that comes from labels")
    views: int = param(1, low=1, high=64, doc="views of every sample; more than one needs Task(augment='image')")
    precision: str = param("fp32", choices=("fp32", "bf16"), doc="precision of convolutions and products")
    seed: int = param(0, low=0, doc="order of the samples and which view of each is taken")

    needs = frozenset({"data", "float weights"})
    cites = ("hinton2015distilling", "beyer2022patient", "romero2015fitnets")

    def apply(self, network: Network, task: Task | None = None, progress: Progress | None = None) -> Outcome:
        if task is not None and task.original is None:
            raise SlimlineError(
                "Distill needs the original network: apply it in a Recipe, or pass task.with_original(network)."
            )
        if task is not None and task.original is not None:
            task = task.decided(task.original)
        samples = needs_data("Distillation", task, network)
        assert task is not None and task.original is not None
        views = Views(samples.tensors(), self.views if task.augment else 1)
        targets = TEACHER.answers(task.original, samples, views, self.precision, progress)
        steps = max(1, round(self.epochs * len(samples) / self.batch))
        plan = Plan(steps, self.learning_rate, optimizer=self.optimizer, precision=self.precision)
        loss = partial(self.loss, matched=matched_as(task))
        trained, curve = recover(network, self.batches(views, targets, samples), loss, plan, progress)
        return Outcome(trained, ["all trainable weights"], {}, curve)

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch, matched: Matched | None = None) -> Tensor:
        """The loss of the first of the (floating-point) outputs; without ``matched``, (batch, n) are class scores."""
        student, teacher = outputs[0], batch.targets[0]
        matched = matched or Matched(student.ndim == 2)
        if not matched.classes:
            return regression_loss(student, teacher)
        if matched.probabilities:
            student, teacher = as_logits(student), as_logits(teacher)
        return class_loss(student, teacher, batch.labels, self.temperature, self.label_weight, matched.axis)

    def batches(self, views: Views, targets: Tensor | Teacher, samples: Samples) -> NextBatch:
        """Batch of a step: every sample once per epoch, in an order and with views drawn from the seed.

        ``targets`` are the answers to all views, or the teacher, who is then asked in every step.
        """
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
            inputs = views.batch(index, view)
            target = targets.answer(inputs) if isinstance(targets, Teacher) else targets[torch.from_numpy(view), picked]
            return Batch(inputs, (target,), None if labels is None else labels[picked])

        return next_batch


class _TeacherMemory:
    """The last teacher's answers, so that candidates of one search share them."""

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.targets: Tensor | Teacher = torch.zeros(0)

    def answers(
        self, teacher: Network, samples: Samples, views: Views, precision: str, progress: Progress | None
    ) -> Tensor | Teacher:
        """The answers to all views, or the teacher itself where they would take more than `LARGEST_MEMORY`."""
        key = (id(teacher.module), samples.digest(), views.count, views.seed, precision)
        if key != self.key:
            asked = Teacher(teacher, precision)
            self.targets = torch.zeros(0)  # two sets of answers at once may be too much
            small = asked.bytes_for(views) <= LARGEST_MEMORY
            self.targets = teacher_outputs(teacher, views, precision, progress) if small else asked
            self.key = key
            self.owner = teacher  # keeps the id above from being reused
        return self.targets


TEACHER = _TeacherMemory()
