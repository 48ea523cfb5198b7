"""The teacher's answers are what the network says, one sample and one view at a time."""

import numpy as np
import pytest
import torch

from slimline.training.teacher import TEACHER_BATCH, teacher_outputs
from slimline.training.views import Views
from tests.toys import patterns, toy


@pytest.mark.parametrize("count", [1, 3])
def test_answers_are_those_of_the_network_for_each_view_alone(count: int) -> None:
    network = toy()
    images = torch.from_numpy(patterns(TEACHER_BATCH + 7, seed=5)[0])  # more than one batch
    views = Views({"image": images}, count)
    told: list[tuple[int, int]] = []
    answers = teacher_outputs(network, views, "fp32", lambda done, total: told.append((done, total)))
    assert answers.shape == (count, len(images), 4) and answers.dtype is torch.float32
    for view in range(count):
        for sample in (0, 1, TEACHER_BATCH - 1, TEACHER_BATCH, len(images) - 1):
            alone = network.run(views.batch(np.array([sample]), np.array([view])))[0][0]
            torch.testing.assert_close(answers[view, sample], alone, rtol=1e-4, atol=1e-4)
    assert told[-1] == (count * len(images),) * 2


def test_bf16_answers_are_nearly_those_of_fp32() -> None:
    views = Views({"image": torch.from_numpy(patterns(64, seed=5)[0])})
    exact, rough = (teacher_outputs(toy(), views, precision) for precision in ("fp32", "bf16"))
    assert rough.dtype is torch.float32 and 0 < float((rough - exact).abs().mean()) < 0.02 * float(exact.abs().mean())


def test_a_teacher_in_training_mode_answers_in_eval_mode_and_stays_as_it_was() -> None:
    views = Views({"image": torch.from_numpy(patterns(64, seed=5)[0])})
    network = toy().set_training_(True)
    mean = network.weights()["stem_norm.running_mean"].clone()
    torch.testing.assert_close(teacher_outputs(network, views, "fp32"), teacher_outputs(toy(), views, "fp32"))
    assert network.is_training() and torch.equal(network.weights()["stem_norm.running_mean"], mean)
