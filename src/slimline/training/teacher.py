"""The original's answers to every view of every training sample, computed once."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.training.recover import autocast, channels_last, channels_last_
from slimline.training.views import Views

TEACHER_BATCH = 256


class Teacher:
    """A network that answers and never learns; its answer is its first output of floating-point numbers."""

    def __init__(self, network: Network, precision: str) -> None:
        self.network = channels_last_(network.copy().set_training_(False))
        self.precision = precision

    def answer(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The answer to a batch, in float32.

        Raises:
            SlimlineError: every output holds whole numbers.
        """
        with torch.no_grad(), autocast(self.precision):
            outputs = self.network.module(*(channels_last(inputs[name]) for name in self.network.input_names))
        floating = [output for output in outputs if output.is_floating_point()]
        if not floating:
            raise SlimlineError(
                f"No output of the network ({', '.join(self.network.output_names)}) holds floating-point numbers, so "
                "there is nothing to learn from: take the network without its last step, such as an argmax."
            )
        first: Tensor = floating[0].float()
        return first

    def bytes_for(self, views: Views) -> int:
        """Size of the answers to all views."""
        few = np.arange(min(2, len(views)))
        answer = self.answer(views.batch(few, np.zeros_like(few)))
        return answer.numel() * answer.element_size() * len(views) * views.count // len(few)


def teacher_outputs(
    teacher: Network, views: Views, precision: str, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """The answers of ``teacher`` to every view: (views, samples, ...) float32."""
    asked = Teacher(teacher, precision)
    answers = torch.empty(0)
    for view in range(views.count):
        for start in range(0, len(views), TEACHER_BATCH):
            index = np.arange(start, min(start + TEACHER_BATCH, len(views)))
            answer = asked.answer(views.batch(index, np.full(len(index), view)))
            if not len(answers):  # room for all of them at once: joining pieces would take twice the memory
                answers = torch.empty(views.count, len(views), *answer.shape[1:])
            answers[view, start : start + len(index)] = answer
            if progress is not None:
                progress(view * len(views) + int(index[-1]) + 1, views.count * len(views))
    return answers
