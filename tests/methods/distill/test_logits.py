"""The loss is the one in the paper, and training on it brings a damaged network closer to the original."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill.logits import TEACHER, Distill, distillation_loss
from slimline.methods.prune.channels import PruneChannels
from slimline.network.network import Network
from slimline.task import Samples, Task
from slimline.training.views import Views
from tests.toys import patterns, toy, toy_task

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
    ours = distillation_loss(
        torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels), temperature, weight
    )
    assert float(ours) == pytest.approx(by_the_paper(student, teacher, labels, temperature, weight))


def test_without_labels_only_the_teacher_counts() -> None:
    student, teacher = torch.randn(7, 5), torch.randn(7, 5)
    expected = by_the_paper(student.double().numpy(), teacher.double().numpy(), None, 2.0, 0.3)
    assert float(distillation_loss(student, teacher, None, 2.0, 0.3)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_zero_at_equality_and_nowhere_below() -> None:
    logits = torch.randn(64, 10) * 5
    assert float(distillation_loss(logits, logits, None, 4.0, 0.0)) == pytest.approx(0, abs=1e-5)
    assert float(distillation_loss(logits, logits + 3, None, 4.0, 0.0)) == pytest.approx(0, abs=1e-5)
    others = [distillation_loss(logits + torch.randn(64, 10), logits, None, 4.0, 0.0) for _ in range(5)]
    assert min(map(float, others)) > 0.1


def test_at_a_high_temperature_it_is_half_the_squared_distance_of_centred_logits() -> None:
    """T^2 KL -> sum_c (z_c - v_c)^2 / (2 C) for logits of zero mean: Hinton et al. (2015), section 2.1."""
    z, v = (x - x.mean(1, keepdim=True) for x in torch.randn(2, 30, 6).double())
    expected = float((z - v).square().sum(1).mean() / (2 * 6))
    assert float(distillation_loss(z, v, None, 100.0, 0.0)) == pytest.approx(expected, rel=0.02)


def test_outputs_that_are_no_class_scores_are_matched_in_units_of_the_teachers_variance() -> None:
    student, teacher = torch.randn(4, 2, 5), 10 * torch.randn(4, 2, 5)
    expected = float((student - teacher).square().mean() / teacher.var())
    assert float(distillation_loss(student, teacher, None, 4.0, 0.5)) == pytest.approx(expected)
    assert float(distillation_loss(10 * student, 10 * teacher, None, 4.0, 0.0)) == pytest.approx(expected)


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


def losses(batch: int) -> Tensor:
    task = toy_task(train=10).with_original(toy())
    return torch.tensor(Distill(epochs=3.0, batch=batch).apply(damaged(), task).curve.losses)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    assert torch.isfinite(losses(batch=64)).all()


def test_it_needs_the_original() -> None:
    with pytest.raises(SlimlineError, match="Distill needs the original network: apply it in a Recipe"):
        Distill().apply(damaged(), toy_task())
