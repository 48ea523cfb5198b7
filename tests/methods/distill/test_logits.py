"""The loss is the one in the paper, and training on it brings a damaged network closer to the original."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill import logits as logits_module
from slimline.methods.distill.logits import (
    TEACHER,
    Distill,
    Matched,
    as_logits,
    class_loss,
    matched_as,
    regression_loss,
)
from slimline.methods.prune.channels import PruneChannels
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.scores import ScoreFunction
from slimline.task import Samples, Task
from slimline.training.recover import Batch
from slimline.training.views import Views
from tests.toys import Toy, patterns, toy, toy_task

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
        ours = regression_loss(torch.from_numpy(scale * student), torch.from_numpy(scale * teacher))
        assert float(ours) == pytest.approx(expected)
    mean = torch.full((4, 2, 5), float(teacher.mean()))  # knowing nothing but the mean costs 1
    assert float(regression_loss(mean, torch.from_numpy(teacher))) == pytest.approx(1, rel=1e-6)


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
    method, axis = Distill(label_weight=0.3), len(shape) - 1
    seen = [
        method.loss((s,), Batch({}, (t,), labels), Matched(True, axis, probabilities))
        for s, t, probabilities in ((student, teacher, False), (student.softmax(axis), teacher.softmax(axis), True))
    ]
    assert float(seen[1]) == pytest.approx(float(seen[0])) and float(seen[0]) > 0.1
    twice = method.loss((student.softmax(axis),), Batch({}, (teacher.softmax(axis),), labels), Matched(True, axis))
    assert float(twice) < 0.9 * float(seen[0])  # what a softmax of probabilities would make of it


def test_a_probability_of_zero_has_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[300.0, 0.0, -5.0]], requires_grad=True)
    loss = class_loss(as_logits(logits.softmax(1)), as_logits(torch.tensor([[0.2, 0.8, 0.0]])), None, 4.0, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


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


# --- the method -------------------------------------------------------------------------------------------------------


def distance(student: Network, teacher: Network) -> float:
    """KL from the teacher's answers, in nats, on images that nobody trained on."""
    images = {"image": torch.from_numpy(patterns(300, seed=9, noise=1.0)[0])}
    p, q = (n.run(images)[0].double().log_softmax(1) for n in (teacher, student))
    return float(F.kl_div(q, p, log_target=True, reduction="batchmean"))


def damaged() -> Network:
    return PruneChannels(keep=0.5, importance="l1", multiple=4).apply(toy()).network


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_teacher_alone_brings_the_student_closer_on_data_it_never_saw(precision: str) -> None:
    teacher, student = toy(), damaged()
    task = toy_task(labels=False).with_original(teacher)
    outcome = Distill(epochs=6.0, batch=32, precision=precision).apply(student, task)
    assert distance(outcome.network, teacher) < 0.4 * distance(student, teacher)
    assert outcome.curve.losses[-1] < 0.5 * outcome.curve.losses[0]


def test_wrong_labels_do_not_count_unless_they_are_asked_for() -> None:
    teacher, student, task = toy(), damaged(), toy_task()
    x, wrong = task.train["image"], 3 - task.train["labels"]
    misled = Task(validate=task.validate, train={"image": x, "labels": wrong}).with_original(teacher)
    deaf = Distill(epochs=4.0, batch=32).apply(student, misled).network
    led = Distill(epochs=4.0, batch=32, label_weight=1.0).apply(student, misled).network
    assert distance(deaf, teacher) < 0.5 * distance(student, teacher) < distance(led, teacher)


def test_views_of_the_images_are_used_when_the_task_allows_them() -> None:
    teacher, student, seen = toy(), damaged(), []
    for augment in ("", "image"):
        task = toy_task(train=64)
        task = Task(validate=task.validate, train=task.train, augment=augment).with_original(teacher)
        Distill(epochs=0.1, batch=32, views=3).apply(student, task)
        seen.append(TEACHER.targets.shape)
    assert seen == [(1, 64, 4), (3, 64, 4)]


def test_the_teacher_answers_once_for_all_candidates_of_a_search() -> None:
    teacher, other, task = toy(), damaged(), toy_task(train=64)
    method = Distill(epochs=0.1, batch=32)
    method.apply(damaged(), task.with_original(teacher))
    first = TEACHER.targets
    method.apply(toy(), task.with_original(teacher))
    assert TEACHER.targets is first
    method.apply(toy(), task.with_original(other))
    assert TEACHER.targets is not first and not torch.equal(TEACHER.targets, first)
    expected = other.run({"image": torch.from_numpy(task.train["image"])})[0]
    torch.testing.assert_close(TEACHER.targets[0], expected, rtol=1e-4, atol=1e-4)


def test_every_sample_comes_once_in_an_epoch_with_its_own_target_and_label() -> None:
    n, size = 20, 5
    samples = Samples({"x": np.arange(n, dtype=np.float32)[:, None]}, np.arange(n) % 3)
    targets = torch.stack([torch.arange(n).float(), 100 + torch.arange(n).float()])[..., None]
    views = Views(samples.tensors(), count=2)
    batches = Distill(batch=size, label_weight=0.5, views=2).batches(views, targets, samples)
    orders, chosen = [], []
    for epoch in range(3):
        taken = [batches(epoch * n // size + place) for place in range(n // size)]
        order = torch.cat([b.inputs["x"][:, 0] for b in taken])
        assert sorted(order.tolist()) == list(range(n))
        target = torch.cat([b.targets[0][:, 0] for b in taken])
        labels = torch.cat([b.labels for b in taken if b.labels is not None])
        assert (target % 100 == order).all() and (labels == order % 3).all()
        orders.append(order.tolist())
        chosen += (target >= 100).tolist()
    assert orders[0] != orders[1] != orders[2] and 0.2 < np.mean(chosen) < 0.8


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


def shrunk(end: Callable[[Tensor], Any]) -> tuple[Network, Network]:
    """The toy with this end, and the same of half the channels."""
    network = trace(Ended(end), {"image": toy().examples["image"]})
    return network, PruneChannels(keep=0.5, importance="l1", multiple=4).apply(network).network


@pytest.mark.parametrize(
    ("end", "score"),
    [
        (lambda x: x.softmax(1), ""),
        (lambda x: torch.stack([x, -x], 1).softmax(2), ""),
        (lambda x: F.normalize(x, dim=1), "cosine"),
        (lambda x: 100 * x[:, 0], "relative"),
    ],
    ids=["probabilities", "a sequence of probabilities", "an embedding", "a number"],
)
def test_other_outputs_are_recovered_too(end: Callable[[Tensor], Any], score: str) -> None:
    teacher, student = shrunk(end)
    data = toy_task(labels=False)
    task = Task(validate=data.validate, train=data.train, score=score).with_original(teacher).decided(teacher)
    outcome = Distill(epochs=6.0, batch=32).apply(student, task)
    unseen = Samples({"image": patterns(200, seed=9, noise=1.0)[0]})
    answers = [[o.numpy() for o in n.run(unseen.tensors())] for n in (teacher, student, outcome.network)]
    before, after = (1 - task.per_sample(a, unseen, answers[0]).mean() for a in answers[1:])
    assert after < 0.5 * before


def test_of_whole_numbers_and_logits_the_logits_are_learned() -> None:
    teacher, student = shrunk(lambda x: (x.argmax(1), x))
    outcome = Distill(epochs=6.0, batch=32).apply(student, toy_task(labels=False).with_original(teacher))
    assert outcome.curve.losses[-1] < 0.5 * outcome.curve.losses[0] and TEACHER.targets.shape == (1, 256, 4)
    teacher, student = shrunk(lambda x: x.argmax(1))
    with pytest.raises(SlimlineError, match=r"No output of the network \(output\) holds floating-point numbers"):
        Distill(epochs=1.0).apply(student, toy_task(labels=False).with_original(teacher))


def test_a_teacher_whose_answers_would_fill_the_memory_is_asked_in_every_step() -> None:
    """To the same end: 64 samples of 4 classes and 3 views are 3072 bytes."""
    task = toy_task(train=64)
    task = Task(validate=task.validate, train=task.train, augment="image")
    trained = []
    for limit, kept in ((3072, True), (3071, False)):
        with patch.object(logits_module, "LARGEST_MEMORY", limit):
            outcome = Distill(epochs=2.0, batch=32, views=3).apply(damaged(), task.with_original(toy()))
        assert isinstance(TEACHER.targets, Tensor) == kept
        trained.append(outcome.network.weights())
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, rtol=1e-3, atol=1e-4)


def losses(batch: int) -> Tensor:
    task = toy_task(train=10).with_original(toy())
    return torch.tensor(Distill(epochs=3.0, batch=batch).apply(damaged(), task).curve.losses)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    assert torch.isfinite(losses(batch=64)).all()


def test_it_needs_the_original() -> None:
    with pytest.raises(SlimlineError, match="Distill needs the original network: apply it in a Recipe"):
        Distill().apply(damaged(), toy_task())
