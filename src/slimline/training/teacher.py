"""The original's answers to every view of every training sample, computed once."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from slimline.network.network import Network
from slimline.training.recover import autocast, channels_last, channels_last_
from slimline.training.views import Views

TEACHER_BATCH = 256


def teacher_outputs(
    teacher: Network, views: Views, precision: str, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """First output of ``teacher`` for every view: (views, samples, ...) float32."""
    network = channels_last_(teacher.copy().set_training_(False))
    answers = []
    for view in range(views.count):
        for start in range(0, len(views), TEACHER_BATCH):
            index = np.arange(start, min(start + TEACHER_BATCH, len(views)))
            inputs = views.batch(index, np.full(len(index), view))
            with torch.no_grad(), autocast(precision):
                outputs = network.module(*(channels_last(inputs[name]) for name in network.input_names))
            answers.append(outputs[0].float())
            if progress is not None:
                progress(view * len(views) + int(index[-1]) + 1, views.count * len(views))
    flat = torch.cat(answers)
    return flat.view(views.count, len(views), *flat.shape[1:])
