"""What the original answers to the training samples: asked once and kept, or asked in every step."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from slimline.network.network import Network, first_floating
from slimline.network.taps import with_taps
from slimline.training.engine import Engine
from slimline.training.layout import channels_last, channels_last_, move_
from slimline.training.lesson import autocast
from slimline.training.views import Views

TEACHER_BATCH = 256


class Teacher:
    """A network that answers and never learns.

    Its answer is its first output of floating-point numbers, and behind it the values of the nodes called ``taps``.
    """

    def __init__(self, network: Network, precision: str, taps: Sequence[str] = ()) -> None:
        self.device = Engine().device
        whole = channels_last_(move_(network.copy().set_training_(False), self.device))
        self.network = with_taps(whole, taps) if taps else whole
        self.own = len(network.output_names)
        self.precision = precision

    def answer(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The answers to a batch, in float32.

        Raises:
            SlimlineError: every output holds whole numbers.
        """
        given = [channels_last(inputs[name].to(self.device)) for name in self.network.input_names]
        with torch.no_grad(), autocast(self.precision, self.device.type):
            outputs = self.network.module(*given)
        answer = first_floating(outputs[: self.own], self.network.output_names[: self.own])
        return (answer.float(), *(tap.float() for tap in outputs[self.own :]))

    def bytes_for(self, views: Views) -> int:
        """Size of the answers to all views."""
        few = np.arange(min(2, len(views)))
        answer = self.answer(views.batch(few, np.zeros_like(few)))[0]
        return answer.numel() * answer.element_size() * len(views) * views.count // len(few)


def teacher_outputs(asked: Teacher, views: Views, progress: Callable[[int, int], None] | None = None) -> Tensor:
    """The answers of a teacher to every view: (views, samples, ...) float32, on the CPU."""
    answers = torch.empty(0)
    for view in range(views.count):
        for start in range(0, len(views), TEACHER_BATCH):
            index = np.arange(start, min(start + TEACHER_BATCH, len(views)))
            answer = asked.answer(views.batch(index, np.full(len(index), view)))[0].cpu()
            if not len(answers):  # room for all of them at once: joining pieces would take twice the memory
                answers = torch.empty(views.count, len(views), *answer.shape[1:])
            answers[view, start : start + len(index)] = answer
            if progress is not None:
                progress(view * len(views) + int(index[-1]) + 1, views.count * len(views))
    return answers
