"""The teacher's answers are what the network says, one sample and one view at a time."""

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.training.teacher import TEACHER_BATCH, Teacher, teacher_outputs
from slimline.training.views import Views
from tests.toys import patterns, toy
from tests.training.small import state


def some(count: int = 64) -> Views:
    return Views({"image": torch.from_numpy(patterns(count, seed=5)[0])})


def answers_of(network: Network, views: Views, precision: str = "fp32") -> torch.Tensor:
    return teacher_outputs(Teacher(network, precision), views)


@pytest.mark.parametrize("count", [1, 3])
def test_answers_are_those_of_the_network_for_each_view_alone(count: int) -> None:
    network = toy()
    images = torch.from_numpy(patterns(TEACHER_BATCH + 7, seed=5)[0])  # more than one batch
    views = Views({"image": images}, count)
    told: list[tuple[int, int]] = []
    answers = teacher_outputs(Teacher(network, "fp32"), views, lambda done, total: told.append((done, total)))
    assert answers.shape == (count, len(images), 4) and answers.dtype is torch.float32
    for view in range(count):
        for sample in (0, 1, TEACHER_BATCH - 1, TEACHER_BATCH, len(images) - 1):
            alone = network.run(views.batch(np.array([sample]), np.array([view])))[0][0]
            torch.testing.assert_close(answers[view, sample], alone, rtol=1e-4, atol=1e-4)
    assert told[-1] == (count * len(images),) * 2 and told == sorted(told)


def test_the_answer_is_the_first_output_of_floating_point_numbers() -> None:
    class Several(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x.argmax(1), 2 * x, 3 * x

    numbers = torch.arange(12.0).reshape(4, 3)
    asked = Teacher(trace(Several(), [numbers[:2]]), "fp32")
    (answer,) = asked.answer({"x": numbers})
    assert torch.equal(answer, 2 * numbers)
    assert asked.bytes_for(Views({"x": numbers}, 5)) == 5 * numbers.numel() * 4
    assert asked.bytes_for(Views({"x": numbers[:1]})) == 3 * 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_behind_the_answer_come_the_values_inside(precision: str) -> None:
    """Against the layers of the network, one after the other."""
    network, images = toy(), torch.from_numpy(patterns(8, seed=5)[0])
    names = [node.name for node in network.module.graph.nodes if node.target is torch.ops.aten.conv2d.default]
    asked = Teacher(network, precision, [names[2], names[0]])
    answer, outer, stem = asked.answer({"image": images})
    expected = torch.nn.functional.conv2d(images, network.weights()["stem.weight"], padding=1)
    tolerance = 1e-4 if precision == "fp32" else 0.05
    torch.testing.assert_close(stem, expected.detach(), rtol=tolerance, atol=tolerance)
    assert outer.shape == (8, 16, 4, 4) and {answer.dtype, outer.dtype, stem.dtype} == {torch.float32}
    assert not (answer.requires_grad or outer.requires_grad or stem.requires_grad)
    torch.testing.assert_close(answer, network.run({"image": images})[0], rtol=tolerance, atol=5 * tolerance)


def test_a_network_of_whole_numbers_teaches_nothing() -> None:
    class Answer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.argmax(1)

    views = Views({"x": torch.randn(4, 3)})
    with pytest.raises(SlimlineError, match=r"No output of the network \(output\) holds floating-point numbers"):
        answers_of(trace(Answer(), [torch.randn(2, 3)]), views)


def test_bf16_answers_are_nearly_those_of_fp32() -> None:
    exact, rough = (answers_of(toy(), some(), precision) for precision in ("fp32", "bf16"))
    assert rough.dtype is torch.float32 and 0 < float((rough - exact).abs().mean()) < 0.02 * float(exact.abs().mean())


def test_a_teacher_in_training_mode_answers_in_eval_mode_and_stays_as_it_was() -> None:
    network = toy().set_training_(True)
    before = state(network)
    torch.testing.assert_close(answers_of(network, some()), answers_of(toy(), some()))
    assert network.is_training() and all(torch.equal(w, before[name]) for name, w in network.weights().items())
    assert network.weights()["inner.weight"].is_contiguous()
