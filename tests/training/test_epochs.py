"""Every sample comes once in an epoch, with its own view, answer and label, however a batch is shared."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from slimline.task import Samples
from slimline.training.batch import shares
from slimline.training.epochs import Epochs, first_answers
from slimline.training.teacher import Teacher, teacher_outputs
from slimline.training.views import Views
from tests.toys import patterns, toy

COUNT = 20


def numbered(size: int = 5, views: int = 2, seed: int = 0) -> Epochs:
    """Sample i holds i; the answer to its view v is 100 v + i, its label i modulo 3."""
    inputs = {"x": torch.arange(COUNT).float()[:, None]}
    answers = torch.stack([100 * v + torch.arange(COUNT).float() for v in range(views)])[..., None]
    labels = torch.arange(COUNT) % 3
    return Epochs(Views(inputs, views), answers, "data", size, labels, seed)


@pytest.mark.parametrize("size", [4, 5, 6])
def test_every_sample_comes_once_in_an_epoch_with_its_own_target_and_label(size: int) -> None:
    batches = numbered(size)
    whole = COUNT // size
    assert (batches.size, batches.per_epoch) == (size, whole)
    orders, chosen = [], []
    for epoch in range(3):
        taken = [batches.batch(epoch * whole + place, slice(0, size)) for place in range(whole)]
        order = torch.cat([b.inputs["x"][:, 0] for b in taken])
        assert len(set(order.tolist())) == len(order) == whole * size
        target = torch.cat([b.targets[0][:, 0] for b in taken])
        labels = torch.cat([b.labels for b in taken if b.labels is not None])
        assert (target % 100 == order).all() and (labels == order % 3).all()
        orders.append(order.tolist())
        chosen += (target >= 100).tolist()
    assert orders[0] != orders[1] != orders[2] and 0.2 < np.mean(chosen) < 0.8


def test_the_batch_of_a_step_follows_from_the_seed_and_the_step_alone() -> None:
    def order(batches: Epochs, step: int) -> list[float]:
        found: list[float] = batches.batch(step, slice(0, 5)).targets[0].flatten().tolist()
        return found

    forwards, backwards = numbered(), numbered()
    ahead = [order(forwards, step) for step in range(12)]
    assert ahead == [order(backwards, step) for step in reversed(range(12))][::-1]
    assert ahead != [order(numbered(seed=1), step) for step in range(12)]


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_the_shares_of_a_batch_are_the_batch(parts: int) -> None:
    batches = numbered()
    whole = batches.batch(7, slice(0, 5))
    pieces = [batches.batch(7, share) for share in shares(5, parts)]
    for (name, tensor), *others in zip(*(b.tensors() for b in (whole, *pieces)), strict=True):
        assert torch.equal(torch.cat([piece for _, piece in others]), tensor), name


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    batches = numbered(size=64)
    assert (batches.size, batches.per_epoch) == (COUNT, 1)
    for step in range(3):
        assert sorted(batches.batch(step, slice(0, COUNT)).inputs["x"].flatten().tolist()) == list(range(COUNT))


def test_there_are_no_labels_without_labels() -> None:
    assert replace(numbered(), labels=None).batch(0, slice(0, 5)).labels is None


def images(count: int, views: int) -> Views:
    return Views({"image": torch.from_numpy(patterns(count, seed=5)[0])}, views)


def test_a_teacher_who_is_asked_in_every_step_says_what_was_kept() -> None:
    asked, views = Teacher(toy(), "fp32"), images(24, 3)
    kept = Epochs(views, teacher_outputs(asked, views), "data", 8)
    live = Epochs(views, asked, "data", 8)
    for step in range(6):
        ours, theirs = (b.batch(step, slice(1, 7)) for b in (kept, live))
        assert torch.equal(ours.inputs["image"], theirs.inputs["image"])
        torch.testing.assert_close(ours.targets[0], theirs.targets[0], rtol=1e-4, atol=1e-4)


def test_endless_views_are_new_in_every_epoch_and_the_answers_are_to_them() -> None:
    asked, views = Teacher(toy(), "fp32"), images(16, 0)
    batches, seen = Epochs(views, asked, "data", 16), list[Tensor]()
    for epoch in range(6):
        batch = batches.batch(epoch, slice(0, 16))
        torch.testing.assert_close(batch.targets[0], toy().run(batch.inputs)[0], rtol=1e-4, atol=1e-4)
        order = batch.inputs["image"].abs().sum((1, 2, 3)).argsort()  # shifting moves the sums a little
        seen.append(batch.inputs["image"][order])
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert all(not torch.equal(x, views.inputs["image"]) for x in seen)


def test_whatever_changes_the_batches_changes_what_they_are_known_by() -> None:
    first = Samples({"image": patterns(8, seed=5)[0]})
    second = Samples({"image": patterns(8, seed=6)[0]})

    def known(samples: Samples = first, count: int = 2, augment: str = "image", view: int = 0, seed: int = 0) -> str:
        views = Views(samples.tensors(), count, view, augment)
        return Epochs(views, torch.zeros(count, 8, 4), samples.digest(), 4, None, seed).identity

    changed = [known(second), known(count=3), known(augment="mirror"), known(view=1), known(seed=1)]
    assert known() == known() and len({known(), *changed}) == 6


def test_the_first_answers_are_those_of_the_first_batch() -> None:
    batches = numbered()
    assert torch.equal(first_answers(batches, 3)[0], batches.batch(0, slice(0, 5)).targets[0][:3])
    assert len(first_answers(batches, 100)[0]) == 5
