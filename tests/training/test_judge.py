"""The judge's score is the task's, on the samples that he looks at."""

from typing import Any

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.taps import with_taps
from slimline.task import Array, ScoreFunction, Task
from slimline.training.judge import BATCH, TaskJudge
from tests.toys import patterns, toy


def damaged() -> Network:
    network = toy()
    with torch.no_grad():
        network.weights()["head.weight"].add_(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    return network


def spread(count: int) -> list[int]:
    """Places of so many of 150 samples, from the first to the last."""
    return [i * 149 // (count - 1) for i in range(count)]


def answers(network: Network, places: list[int]) -> Array:
    return network.run({"image": torch.from_numpy(patterns(150, seed=2)[0][places])})[0].numpy()


def margin(outputs: list[Array], labels: Array) -> Array:
    result: Array = outputs[0][np.arange(len(labels)), labels] - outputs[0].mean(1)
    return result


@pytest.mark.parametrize("most", [20, BATCH, 100, 1000])
def test_with_labels_it_is_accuracy_or_the_users_own_score(most: int) -> None:
    images, labels = patterns(150, seed=2)
    places = spread(min(most, 150))
    said = answers(damaged(), places)
    expected: dict[str | ScoreFunction, Any] = {
        "": (said.argmax(1) == labels[places]).mean(),
        margin: margin([said], labels[places]).mean(),
    }
    for score, mean in expected.items():
        task = Task({"image": images, "labels": labels}, score=score).with_original(toy()).decided(toy())
        assert TaskJudge(task, most)(damaged()) == pytest.approx(float(mean), rel=1e-5)
    assert 0 < expected[""] < 1


@pytest.mark.parametrize("labels", [{}, {"labels": np.zeros(150, np.int64)}])
def test_without_labels_it_is_compared_with_the_original(labels: dict[str, Any]) -> None:
    """Also when there are labels, but the score does not want them."""
    said, wanted = answers(damaged(), spread(100)), answers(toy(), spread(100))
    cosines = (said * wanted).sum(1) / np.linalg.norm(said, axis=1) / np.linalg.norm(wanted, axis=1)
    for score, expected in (("agreement", (said.argmax(1) == wanted.argmax(1)).mean()), ("cosine", cosines.mean())):
        task = Task({"image": patterns(150, seed=2)[0], **labels}, score=score).with_original(toy()).decided(toy())
        judge = TaskJudge(task, 100)
        assert judge(damaged()) == pytest.approx(float(expected), rel=1e-5) and 0 < expected < 1
        assert judge(toy()) == pytest.approx(1.0)


def test_values_tapped_inside_are_no_outputs() -> None:
    def only(outputs: list[Array], labels: Array) -> Array:
        assert [output.shape for output in outputs] == [(len(labels), 4)]
        return margin(outputs, labels)

    images, labels = patterns(80, seed=2)
    task = Task({"image": images, "labels": labels}, score=only).with_original(toy()).decided(toy())
    judge, network = TaskJudge(task, 80), damaged()
    assert judge(with_taps(network, ["relu", "mean"])) == judge(network)


def test_judging_changes_nothing() -> None:
    task = Task({"image": patterns(80, seed=2)[0]}).with_original(toy()).decided(toy())
    network, judge = damaged(), TaskJudge(task, 80)
    before = network.digest()
    assert judge(network) == judge(network) and network.digest() == before


def test_samples_sorted_by_class_are_judged_on_all_classes_alike() -> None:
    images, labels = patterns(160, seed=2)
    order, seen = np.argsort(labels, kind="stable"), list[Array]()

    def looking(outputs: list[Array], labels: Array) -> Array:
        seen.append(labels)
        return margin(outputs, labels)

    whole = np.bincount(labels, minlength=4)
    task = Task({"image": images[order], "labels": labels[order]}, score=looking).with_original(toy()).decided(toy())
    TaskJudge(task, 40)(toy())
    judged = np.bincount(seen[-1], minlength=4)
    assert judged.sum() == 40 and np.abs(judged - whole / 4).max() <= 1


def nameless(outputs: list[Array], labels: Array) -> Array:
    """Takes numbers only, and no score above 99."""
    if not np.isfinite(outputs[0]).all() or outputs[0].max() > 99:
        raise ValueError("this score takes numbers up to 99")
    return margin(outputs, labels)


@pytest.mark.parametrize("score", [margin, nameless])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_no_numbers_have_no_score(score: ScoreFunction, bad: float) -> None:
    """Whether the score says so or fails."""
    images, labels = patterns(80, seed=2)
    task = Task({"image": images, "labels": labels}, score=score).with_original(toy()).decided(toy())
    judge, network = TaskJudge(task, 80), toy()
    with torch.no_grad():
        network.weights()["head.bias"][1] = bad
    assert np.isnan(judge(network)) and np.isfinite(judge(toy()))


def test_a_score_that_fails_on_numbers_is_a_failure() -> None:
    images, labels = patterns(80, seed=2)
    task = Task({"image": images, "labels": labels}, score=nameless).with_original(toy()).decided(toy())
    judge, network = TaskJudge(task, 80), toy()
    with torch.no_grad():
        network.weights()["head.bias"][1] = 1000
    with pytest.raises(SlimlineError, match="ValueError: this score takes numbers up to 99"):
        judge(network)
