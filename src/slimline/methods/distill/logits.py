"""Distillation: the network learns to answer as the original does, with or without labels.

Hinton, Vinyals, Dean (2015). Distilling the Knowledge in a Neural Network. arXiv:1503.02531, section 2.

    L = (1 - a) T^2 KL( softmax(teacher / T) || softmax(student / T) ) + a CE(student, label)

Ours differs: maps and sequences of class scores get the KL of every position and its mean. Of a network that ends in a
softmax the logarithms of its probabilities are its logits, up to a constant that softmax ignores; without that they
would pass through a softmax twice.

Outputs that are no class scores, and those that the user compares by cosine or relative error, are regressed as in
Romero et al. (2015), FitNets: Hints for Thin Deep Nets, arXiv:1412.6550, equation 3, with no regressor, since both
have the same shape, and in units of the variance of the teacher's answers, so that the learning rate fits outputs of
any scale:

    L = mean( (student - teacher)^2 ) / var(teacher)

The output matched is the first that holds floating-point numbers.
Helps: repairs what pruning broke, from the original alone.  Does not: exceed what the smaller network can hold.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from slimline.task import Task

LEAST_VARIANCE = 1e-8


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


def regression_loss(student: Tensor, teacher: Tensor, variance: float | Tensor) -> Tensor:
    """The second L above; any shape. The variance is that of many answers, the same for every batch and process."""
    return F.mse_loss(student, teacher) / torch.as_tensor(variance).clamp_min(LEAST_VARIANCE)


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


@dataclass(frozen=True)
class OutputLoss:
    """The loss of the outputs of one distillation."""

    matched: Matched
    temperature: float
    label_weight: float
    variance: float = 1.0
    """Of the teacher's answers; counts where they are regressed."""

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        """L of a batch of outputs of the same shape."""
        if not self.matched.classes:
            return regression_loss(student, teacher, self.variance)
        if self.matched.probabilities:
            student, teacher = as_logits(student), as_logits(teacher)
        return class_loss(student, teacher, labels, self.temperature, self.label_weight, self.matched.axis)
