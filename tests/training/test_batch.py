"""Batches know what they hold, and shares cover every sample once."""

import math

import pytest
import torch

from slimline.errors import SlimlineError
from slimline.training.batch import Batch, shares


def batch(samples: int = 4) -> Batch:
    return Batch({"x": torch.zeros(samples, 2), "y": torch.ones(samples)}, (torch.zeros(samples, 3),), torch.arange(4))


def test_every_tensor_has_a_name_and_is_changed() -> None:
    whole = batch()
    assert [name for name, _ in whole.tensors()] == ["x", "y", "target 1", "labels"] and len(whole) == 4
    half = whole.moved(lambda x: x[1:3])
    assert [tuple(x.shape) for _, x in half.tensors()] == [(2, 2), (2,), (2, 3), (2,)] and len(half) == 2
    assert half.labels is not None and half.labels.tolist() == [1, 2]
    without = Batch(whole.inputs, ()).moved(lambda x: x + 1)
    assert [name for name, _ in without.tensors()] == ["x", "y"] and without.labels is None


@pytest.mark.parametrize("samples", [3, 5, 0])
def test_other_numbers_of_samples_than_labels_are_told_with_the_step(samples: int) -> None:
    whole = batch()
    assert whole.check(0) is whole
    with pytest.raises(
        SlimlineError, match=rf"training step 8 .*x {samples}, y {samples}, target 1 {samples}, labels 4"
    ):
        batch(samples).check(7)


def test_a_batch_without_samples_is_refused() -> None:
    with pytest.raises(SlimlineError, match=r"training step 1 .*.x 0, target 1 0."):
        Batch({"x": torch.zeros(0, 2)}, (torch.zeros(0),)).check(0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_tensor_with_a_number_that_is_none_is_named(bad: float) -> None:
    assert batch().not_finite() == ""
    target = torch.zeros(4, 3)
    target[2, 1] = bad
    assert Batch({"x": torch.zeros(4), "n": torch.arange(4)}, (torch.zeros(4), target)).not_finite() == "target 2"
    assert Batch({"x": torch.zeros(4), "z": torch.full((4,), bad)}, (target,)).not_finite() == "z"


@pytest.mark.parametrize("size", [1, 2, 5, 32, 33])
@pytest.mark.parametrize("parts", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("start", [None, 0, 7])
def test_shares_cover_every_sample_once_and_evenly(size: int, parts: int, start: int | None) -> None:
    found = shares(size, parts) if start is None else shares(0, parts, slice(start, start + size))
    every = [i for share in found for i in range(share.start, share.stop)]
    lengths = [share.stop - share.start for share in found]
    assert every == list(range(start or 0, (start or 0) + size))
    assert len(found) == min(parts, size) and min(lengths) >= 1 and max(lengths) - min(lengths) <= 1
