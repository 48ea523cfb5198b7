"""The teacher's answers are what the network says, one sample and one view at a time."""

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.network.trace import trace
from slimline.training.teacher import TEACHER_BATCH, Teacher, teacher_outputs
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


def test_the_answer_is_the_first_output_of_floating_point_numbers() -> None:
    class Several(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x.argmax(1), 2 * x, 3 * x

    numbers = torch.arange(12.0).reshape(4, 3)
    asked = Teacher(trace(Several(), [numbers[:2]]), "fp32")
    assert torch.equal(asked.answer({"x": numbers}), 2 * numbers)
    assert asked.bytes_for(Views({"x": numbers}, 5)) == 5 * numbers.numel() * 4
    assert asked.bytes_for(Views({"x": numbers[:1]})) == 3 * 4


def test_a_network_of_whole_numbers_teaches_nothing() -> None:
    class Answer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.argmax(1)

    views = Views({"x": torch.randn(4, 3)})
    with pytest.raises(SlimlineError, match=r"No output of the network \(output\) holds floating-point numbers"):
        teacher_outputs(trace(Answer(), [torch.randn(2, 3)]), views, "fp32")


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
