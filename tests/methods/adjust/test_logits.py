"""The bias moves by the logarithm of how often a class is answered, and nothing else moves."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods.adjust.logits import AdjustLogits, class_frequencies, rarity, scores_by_strength
from slimline.methods.recipe import Recipe
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task


class Tagger(nn.Module):
    """(N, 6, 8) -> scores of 5 classes for each of six positions; class 0 is common, class 4 is never answered."""

    def __init__(self, end: str = "softmax", bias: bool = True) -> None:
        super().__init__()
        self.end, self.last = end, nn.Linear(8, 5, bias=bias)
        with torch.no_grad():
            self.last.weight *= 3
            if bias:
                self.last.bias.copy_(torch.tensor([0.8, 0.0, 0.0, -0.2, -40.0]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(x)
        if self.end == "softmax":
            return F.softmax(logits, -1)
        return F.log_softmax(logits, -1) if self.end == "log_softmax" else logits


class Mapper(nn.Module):
    """(N, 3, 4, 4) -> class scores on axis 1 for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.last(x), 1)


def samples(shape: tuple[int, ...] = (6, 8), count: int = 90, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def made(module: nn.Module, shape: tuple[int, ...] = (6, 8), **task: Any) -> tuple[Network, Task]:
    torch.manual_seed(0)
    x = samples(shape)
    network = trace(module.eval(), {"x": torch.from_numpy(x[:2])})
    return network, Task(validate={"x": x, **task.pop("more", {})}, **task).with_original(network)


def counted(answers: np.ndarray[Any, Any], classes: int) -> np.ndarray[Any, Any]:
    return np.bincount(answers.argmax(-1).ravel(), minlength=classes) / answers[..., 0].size


@pytest.mark.parametrize("end", ["softmax", "log_softmax", "none"])
def test_the_answers_are_those_of_the_paper(end: str) -> None:
    """Against numpy: log-probabilities minus t log pi, renormalised."""
    network, task = made(Tagger(end), score="agreement")
    outcome = AdjustLogits(strength=0.7).apply(network, task)
    assert outcome.changed == ["last"] and not outcome.skipped
    x = samples(seed=1)
    before = network.run({"x": torch.from_numpy(x)})[0].double().numpy()
    logits = np.log(before) if end == "softmax" else before
    shares = counted(network.run({"x": torch.from_numpy(samples())})[0].numpy(), 5)
    assert shares[0] > 0.3 and shares[4] == 0
    shift = np.array([-0.7 * np.log(s / shares.max()) if s else 0.0 for s in shares])
    expected = logits + shift
    if end != "none":
        expected -= np.log(np.exp(expected).sum(-1, keepdims=True))
    expected = np.exp(expected) if end == "softmax" else expected
    got = outcome.network.verify().run({"x": torch.from_numpy(x)})[0].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_class_on_axis_one_and_a_layer_without_bias() -> None:
    network, task = made(Mapper(), (3, 4, 4), score="agreement")
    outcome = AdjustLogits(strength=1.0).apply(network, task)
    before, after = (n.run({"x": torch.from_numpy(samples((3, 4, 4)))})[0] for n in (network, outcome.network))
    shares = torch.bincount(before.argmax(1).flatten(), minlength=5) / before[:, 0].numel()
    rare, common = int(shares.where(shares > 0, torch.tensor(2.0)).argmin()), int(shares.argmax())
    moved = (after / before).log().mean((0, 2, 3))
    assert float(moved[rare] - moved[common]) == pytest.approx(float((shares[common] / shares[rare]).log()), rel=1e-4)
    bare, task = made(Tagger("none", bias=False), score="agreement")
    added = set(AdjustLogits().apply(bare, task).network.weights()) - set(bare.weights())
    assert len(added) == 1 and "bias" in added.pop()


def test_classes_that_are_equally_common_or_never_answered_do_not_move() -> None:
    assert rarity(torch.tensor([0.5, 0.5, 0.0])).tolist() == [0.0, 0.0, 0.0]
    assert rarity(torch.tensor([0.8, 0.2])).tolist() == pytest.approx([0.0, np.log(4)])


def test_frequencies_are_counted_over_all_positions() -> None:
    network, task = made(Tagger(), score="agreement")
    output = task.decided(network).output
    assert output is not None
    read = task.read(("x",)).validate
    shares = counted(network.run({"x": torch.from_numpy(samples())})[0].numpy(), 5)
    np.testing.assert_allclose(class_frequencies(network, read, output).numpy(), shares)


def test_it_repairs_what_was_taken_from_rare_classes() -> None:
    """The network's common class was raised; the strength that scores best brings most of the answers back."""
    network, task = made(Tagger(), score="agreement")
    worse = network.copy()
    with torch.no_grad():
        worse.weights()["last.bias"][0] += 1.5
    scores = scores_by_strength(worse, task, (0.0, 0.1, 0.2, 0.3, 0.5, 1.0))
    best = max(scores, key=lambda s: scores[s])
    assert best > 0 and scores[best] > scores[0.0] + 0.02
    whole = scores_by_strength(network, task, (0.0, 0.5))
    assert whole[0.0] == 1 > whole[0.5]
    outcome = AdjustLogits(strength=best).apply(worse, task)
    x = torch.from_numpy(samples())
    answers = [n.run({"x": x})[0].argmax(-1) for n in (network, outcome.network)]
    assert float((answers[0] == answers[1]).float().mean()) == pytest.approx(scores[best], abs=1e-6)


@pytest.mark.parametrize("score", ["labels", "accuracy of a function", "agreement"])
def test_the_scores_are_those_of_the_adjusted_network(score: str) -> None:
    labels = np.random.default_rng(5).integers(0, 5, (90, 6))

    def hits(outputs: list[Any], truth: Any) -> Any:
        return (outputs[0].argmax(-1) == truth).mean(1)

    values: dict[str, Any] = {"score": "agreement"}
    if score != "agreement":
        values = {"score": hits, "more": {"labels": labels}}
    network, task = made(Tagger(), **values)
    found = scores_by_strength(network, task, (0.0, 0.4))
    for strength, value in found.items():
        adjusted = AdjustLogits(strength=strength).apply(network, task).network
        outputs = [o.numpy() for o in adjusted.run({"x": torch.from_numpy(samples())})]
        reference = [o.numpy() for o in network.run({"x": torch.from_numpy(samples())})]
        decided = task.decided(network)
        assert decided.per_sample(outputs, decided.validate, reference).mean() == pytest.approx(value, abs=1e-6)


class Scaled(nn.Module):
    """A product stands behind the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.last(x) * 2.0, -1)


class Regressor(nn.Module):
    """No class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(x)
        return result


@pytest.mark.parametrize(
    ("module", "score", "reason"),
    [
        (Scaled(), "agreement", "mul stands between its last layer and the class scores"),
        (Regressor(), "relative", "its first output holds no class scores"),
    ],
)
def test_where_it_does_not_apply_it_says_why(module: nn.Module, score: str, reason: str) -> None:
    network, task = made(module, score=score)
    outcome = AdjustLogits().apply(network, task)
    assert not outcome.changed and outcome.skipped == {"output": reason}
    assert all(torch.equal(outcome.network.weights()[n], t) for n, t in network.weights().items())


def test_it_needs_the_original() -> None:
    network, _ = made(Tagger())
    with pytest.raises(SlimlineError, match="AdjustLogits needs the original network: apply it in a Recipe"):
        AdjustLogits().apply(network, Task(validate={"x": samples()}))
    assert Recipe([AdjustLogits()]).apply(network, Task(validate={"x": samples()})).changed == ["last"]
