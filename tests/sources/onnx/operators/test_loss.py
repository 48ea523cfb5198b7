"""Losses against their definition, written out sample by sample."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from tests.sources.onnx.models import eager, one

RNG = np.random.default_rng(0)
SHAPES = [(5, 4), (3, 4, 2), (2, 4, 2, 3, 2)]


def by_definition(
    log_p: np.ndarray, labels: np.ndarray, weight: Sequence[float], ignored: int | None, reduction: str
) -> np.ndarray | float:
    """Per sample and position: minus the weight of the label times its log-probability, zero where it is ignored."""
    losses, used = np.zeros(labels.shape), 0.0
    for place in itertools.product(*map(range, labels.shape)):
        label = int(labels[place])
        if label != ignored:
            losses[place] = -weight[label] * log_p[(place[0], label, *place[1:])]
            used += weight[label]
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / used}[reduction]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, 1, -7])
def test_both_losses(shape: tuple[int, ...], reduction: str, weighted: bool, ignored: int | None) -> None:
    scores = RNG.standard_normal(shape).astype("f4")
    labels = RNG.integers(0, 4, (shape[0], *shape[2:])).astype("i4" if weighted else "i8")
    labels.reshape(-1)[:2] = [0, 1 if ignored is None else ignored]
    weight = RNG.random(4).astype("f4")
    arrays = [scores, labels, weight] if weighted else [scores, labels]
    attributes = {"reduction": reduction} | ({} if ignored is None else {"ignore_index": ignored})
    log_p = scores.astype("f8") - np.log(np.exp(scores.astype("f8")).sum(1, keepdims=True))

    def expected(log_p: np.ndarray) -> np.ndarray | float:
        return by_definition(log_p, labels, weight.tolist() if weighted else [1.0] * 4, ignored, reduction)

    (found,) = eager(one("NegativeLogLikelihoodLoss", arrays, 13, **attributes), *arrays)
    np.testing.assert_allclose(found, expected(scores.astype("f8")), rtol=1e-4, atol=1e-6)
    found, log_found = eager(one("SoftmaxCrossEntropyLoss", arrays, 13, outputs=2, **attributes), *arrays)
    np.testing.assert_allclose(found, expected(log_p), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(log_found, log_p, rtol=1e-4, atol=1e-5)


def test_the_mean_is_the_default_and_one_output_is_enough() -> None:
    scores, labels = np.zeros((2, 8), "f4"), np.array([3, 5])
    (found,) = eager(one("SoftmaxCrossEntropyLoss", [scores, labels], 13), scores, labels)
    assert found == pytest.approx(np.log(8))
