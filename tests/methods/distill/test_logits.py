"""The loss is the one in the paper, whatever the output is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.methods.distill.logits import (
    Matched,
    OutputLoss,
    as_logits,
    class_loss,
    matched_as,
    regression_loss,
)
from slimline.network.trace import trace
from slimline.scores import ScoreFunction
from slimline.task import Task
from tests.toys import Toy, toy, toy_task

Floats = NDArray[np.float64]


def softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max(1, keepdims=True))
    result: Floats = e / e.sum(1, keepdims=True)
    return result


def by_the_paper(student: Floats, teacher: Floats, labels: NDArray[np.int64] | None, t: float, a: float) -> float:
    """Sample by sample: (1 - a) T^2 sum_c p_c (log p_c - log q_c) - a log q1_label, then the mean."""
    p, q, plain = softmax(teacher / t), softmax(student / t), softmax(student)
    total = 0.0
    for i in range(len(student)):
        total += (1 - a) * t**2 * sum(p[i, c] * (np.log(p[i, c]) - np.log(q[i, c])) for c in range(p.shape[1]))
        total -= 0.0 if labels is None else a * np.log(plain[i, labels[i]])
    return float(total / len(student))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_the_paper(temperature: float, weight: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher, labels = rng.normal(0, 3, (7, 5)), rng.normal(0, 3, (7, 5)), rng.integers(0, 5, 7)
    ours = class_loss(
        torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels), temperature, weight
    )
    assert float(ours) == pytest.approx(by_the_paper(student, teacher, labels, temperature, weight))


def test_without_labels_only_the_teacher_counts() -> None:
    student, teacher = torch.randn(7, 5), torch.randn(7, 5)
    expected = by_the_paper(student.double().numpy(), teacher.double().numpy(), None, 2.0, 0.0)
    for weight in (0.0, 0.3, 1.0):
        assert float(class_loss(student, teacher, None, 2.0, weight)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_zero_at_equality_and_nowhere_below() -> None:
    logits = torch.randn(64, 10) * 5
    assert float(class_loss(logits, logits, None, 4.0, 0.0)) == pytest.approx(0, abs=1e-5)
    assert float(class_loss(logits, logits + 3, None, 4.0, 0.0)) == pytest.approx(0, abs=1e-5)
    others = [class_loss(logits + torch.randn(64, 10), logits, None, 4.0, 0.0) for _ in range(5)]
    assert min(map(float, others)) > 0.1


def test_at_a_high_temperature_it_is_half_the_squared_distance_of_centred_logits() -> None:
    """T^2 KL -> sum_c (z_c - v_c)^2 / (2 C) for logits of zero mean: Hinton et al. (2015), section 2.1."""
    z, v = (x - x.mean(1, keepdim=True) for x in torch.randn(2, 30, 6).double())
    expected = float((z - v).square().sum(1).mean() / (2 * 6))
    assert float(class_loss(z, v, None, 100.0, 0.0)) == pytest.approx(expected, rel=0.02)


def test_outputs_that_are_no_class_scores_are_matched_in_units_of_the_teachers_variance() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 1, (4, 2, 5)), rng.normal(3, 10, (4, 2, 5))
    expected = np.mean((student - teacher) ** 2) / np.mean((teacher - teacher.mean()) ** 2)
    for scale in (1, 10):
        ours = regression_loss(
            torch.from_numpy(scale * student), torch.from_numpy(scale * teacher), scale**2 * float(teacher.var())
        )
        assert float(ours) == pytest.approx(expected)
    mean = torch.full((4, 2, 5), float(teacher.mean()))  # knowing nothing but the mean costs 1
    assert float(regression_loss(mean, torch.from_numpy(teacher), float(teacher.var()))) == pytest.approx(1, rel=1e-6)


def test_the_variance_is_that_of_many_answers_not_of_the_batch() -> None:
    """So that the parts of a batch add up to it, also where a part holds equal answers."""
    teacher, student = torch.tensor([[1.0], [1.0], [5.0], [9.0]]), torch.zeros(4, 1)
    variance = float(teacher.var(correction=0))
    parts = [float(regression_loss(student[i : i + 2], teacher[i : i + 2], variance)) for i in (0, 2)]
    assert np.mean(parts) == pytest.approx(float(regression_loss(student, teacher, variance)))
    assert np.mean(parts) == pytest.approx((1 + 1 + 25 + 81) / 4 / 11)


def test_answers_that_are_all_alike_cost_a_finite_number() -> None:
    loss = regression_loss(torch.ones(3, 1) + 1e-3, torch.ones(3, 1), 0.0)
    assert torch.isfinite(loss) and float(loss) > 0


@pytest.mark.parametrize(("shape", "axis"), [((3, 6, 5), 2), ((3, 5, 6), 1), ((3, 5, 2, 3), 1), ((3, 2, 3, 5), 3)])
def test_maps_of_class_scores_get_the_loss_of_every_position(shape: tuple[int, ...], axis: int) -> None:
    student, teacher = np.random.default_rng(0).normal(0, 3, (2, *shape))
    rows = [np.moveaxis(x, axis, -1).reshape(-1, 5) for x in (student, teacher)]
    expected = by_the_paper(rows[0], rows[1], None, 2.0, 0.0)
    labels = torch.zeros(3, dtype=torch.int64)  # belong to no position
    for given in (None, labels):
        ours = class_loss(torch.from_numpy(student), torch.from_numpy(teacher), given, 2.0, 0.3, axis)
        assert float(ours) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(7, 5), (3, 6, 5)])
def test_probabilities_cost_what_their_logits_cost(shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).double() * 3
    labels = torch.arange(7) % 5 if len(shape) == 2 else None
    axis = len(shape) - 1
    logits, probabilities = (OutputLoss(Matched(True, axis, known), 4.0, 0.3) for known in (False, True))
    seen = [logits(student, teacher, labels), probabilities(student.softmax(axis), teacher.softmax(axis), labels)]
    assert float(seen[1]) == pytest.approx(float(seen[0])) and float(seen[0]) > 0.1
    twice = logits(student.softmax(axis), teacher.softmax(axis), labels)
    assert float(twice) < 0.9 * float(seen[0])  # what a softmax of probabilities would make of it


def test_a_probability_of_zero_has_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[300.0, 0.0, -5.0]], requires_grad=True)
    loss = class_loss(as_logits(logits.softmax(1)), as_logits(torch.tensor([[0.2, 0.8, 0.0]])), None, 4.0, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


class Ended(nn.Module):
    """The toy with another end."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.toy, self.end = Toy(), end
        weights = {name: x.clone() for name, x in toy().weights().items()}
        self.toy.load_state_dict(weights, strict=False)
        self.toy.eval()

    def forward(self, image: Tensor) -> Any:
        return self.end(self.toy(image))


def test_the_loss_follows_the_score_and_the_output() -> None:
    images = toy_task(labels=False)

    def matched(end: Callable[[Tensor], Tensor], score: str | ScoreFunction = "") -> Matched | None:
        network = trace(Ended(end), {"image": toy().examples["image"]})
        return matched_as(Task(validate=images.validate, score=score).decided(network))

    assert matched(lambda x: x) == Matched(True)
    assert matched(lambda x: x, "cosine") == matched(lambda x: x, "relative") == Matched(False)
    assert matched(lambda x: x.softmax(1)) == Matched(True, 1, True)
    assert matched(lambda x: x.softmax(1), lambda outputs, labels: labels[:, 0]) == Matched(True, 1, True)
    assert matched(lambda x: x[:, :, None].expand(-1, -1, 3).softmax(1)) == Matched(True, 1, True)
    assert matched(lambda x: x[:, 0]) == Matched(False)
    assert matched(lambda x: x.argmax(1)) is None


def test_the_loss_of_an_output_is_that_of_its_kind() -> None:
    student, teacher, labels = torch.randn(7, 5), torch.randn(7, 5), torch.arange(7) % 5
    known = OutputLoss(Matched(True), 2.0, 0.3, variance=7.0)(student, teacher, labels)
    assert torch.equal(known, class_loss(student, teacher, labels, 2.0, 0.3))
    other = OutputLoss(Matched(False), 2.0, 0.3, variance=7.0)(student, teacher, labels)
    assert float(other) == pytest.approx(float((student - teacher).square().mean()) / 7)
