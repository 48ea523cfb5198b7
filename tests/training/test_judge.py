"""The judge's score is the task's, on the samples that he looks at."""

from typing import Any

import numpy as np
import pytest
import torch

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


def answers(network: Network, count: int) -> Array:
    return network.run({"image": torch.from_numpy(patterns(150, seed=2)[0][:count])})[0].numpy()


def margin(outputs: list[Array], labels: Array) -> Array:
    result: Array = outputs[0][np.arange(len(labels)), labels] - outputs[0].mean(1)
    return result


@pytest.mark.parametrize("most", [20, BATCH, 100, 1000])
def test_with_labels_it_is_accuracy_or_the_users_own_score(most: int) -> None:
    images, labels = patterns(150, seed=2)
    count = min(most, 150)
    said = answers(damaged(), count)
    expected: dict[str | ScoreFunction, Any] = {
        "": (said.argmax(1) == labels[:count]).mean(),
        margin: margin([said], labels[:count]).mean(),
    }
    for score, mean in expected.items():
        task = Task({"image": images, "labels": labels}, score=score).with_original(toy()).decided(toy())
        assert TaskJudge(task, most)(damaged()) == pytest.approx(float(mean), rel=1e-5)
    assert 0 < expected[""] < 1


@pytest.mark.parametrize("labels", [{}, {"labels": np.zeros(150, np.int64)}])
def test_without_labels_it_is_compared_with_the_original(labels: dict[str, Any]) -> None:
    """Also when there are labels, but the score does not want them."""
    said, wanted = answers(damaged(), 100), answers(toy(), 100)
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
