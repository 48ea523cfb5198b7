"""Scores are closed forms, the original always gets exactly 1, and outputs are told apart by the rules of the docs."""

from collections.abc import Callable
from math import cos, pi
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.measure.statistics import paired_drop
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.scores import (
    SCORES,
    FirstOutput,
    accuracy,
    agreement,
    class_axes,
    cosine,
    describe,
    first_output,
    last_operators,
    relative,
)

N = 40
RNG = np.random.default_rng(0)


# --- the scores -------------------------------------------------------------------------------------------------------


def test_accuracy_equals_counting() -> None:
    logits, labels = RNG.standard_normal((200, 7)), RNG.integers(0, 7, 200)
    expected = [float(max(range(7), key=lambda c: row[c]) == label) for row, label in zip(logits, labels, strict=True)]
    assert accuracy([logits], labels).tolist() == expected
    assert 0 < sum(expected) < 200


@pytest.mark.parametrize(("shape", "axis"), [((N, 5), 1), ((N, 9, 5), 2), ((N, 5, 9, 9), 1), ((N, 9, 9, 5), 3)])
def test_agreement_is_the_share_of_positions_with_the_same_largest_class(shape: tuple[int, ...], axis: int) -> None:
    original = RNG.standard_normal(shape)
    ours = original + RNG.standard_normal(shape)
    expected = []
    for pair in zip(ours, original, strict=True):
        a, b = (np.moveaxis(x, axis - 1, 0).reshape(5, -1) for x in pair)
        expected.append(np.mean([np.argmax(a[:, p]) == np.argmax(b[:, p]) for p in range(a.shape[1])]))
    np.testing.assert_allclose(agreement([ours], original), expected, rtol=1e-12)
    assert 0 < np.mean(expected) < 1


def test_the_class_axis_may_be_told() -> None:
    original = np.zeros((2, 3, 4))
    original[0, 2, :] = original[1, 0, :] = 1.0  # classes along axis 1: all positions are 2, then 0
    ours = original.copy()
    ours[0, 2, 3], ours[0, 1, 3] = 0.0, 1.0  # one of four positions moves
    assert agreement([ours], original, axis=1).tolist() == [0.75, 1.0]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_agreement_of_whole_numbers_is_the_share_of_equal_entries(dtype: Any) -> None:
    original = np.array([[1, 0, 1, 1], [0, 0, 0, 0]], dtype)
    ours = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], dtype)
    assert agreement([ours], original).tolist() == [0.75, 0.25]
    assert agreement([ours[:, 0]], original[:, 0]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 180])
def test_cosine_is_that_of_the_angle_whatever_the_length(degrees: int) -> None:
    angle = degrees * pi / 180
    original = np.array([[3.0, 0.0], [0.0, -0.2]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(cosine([7 * original @ turn], original), [cos(angle)] * 2, atol=1e-12)


def test_cosine_is_over_all_numbers_of_a_sample() -> None:
    original, ours = RNG.standard_normal((2, 6, 3, 4))
    expected = [
        float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())) for a, b in zip(ours, original, strict=True)
    ]
    np.testing.assert_allclose(cosine([ours], original), expected, rtol=1e-12)


def test_relative_is_one_less_the_relative_error() -> None:
    original = np.array([[3.0, 4.0]] * 5)
    ours = np.array([[3.0, 4.0], [3.0, 4.5], [3.3, 4.4], [-3.0, -4.0], [0.0, 0.0]])
    np.testing.assert_allclose(relative([ours], original), [1.0, 0.9, 0.9, 0.0, 0.0], atol=1e-12)
    assert relative([np.array([1.9, 3.0])], np.array([2.0, 1.0])).tolist() == pytest.approx([0.95, 0.0])


@pytest.mark.parametrize("score", [cosine, relative])
def test_zeros_agree_with_zeros_alone(score: Any) -> None:
    original, ours = np.array([[0.0, 0], [0, 0], [1, 1]]), np.array([[0.0, 0], [1, 1], [0, 0]])
    assert score([ours], original).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("score", [agreement, cosine, relative])
def test_what_is_not_finite_agrees_with_nothing(score: Any) -> None:
    original = np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    ours = np.array([[1.0, 2.0], [np.nan, 2.0], [np.nan, 0.0]])
    assert score([ours], original).tolist() == [1.0, 0.0, 0.0]
    infinite = np.array([[np.inf, 2.0]])
    if score is not agreement:
        assert score([infinite], original[:1]).tolist() == [0.0]
        with pytest.raises(SlimlineError, match="original's output for sample 1 has NaN or infinity"):
            score([original[1:]], np.array([[1.0, 2.0], [np.inf, 2.0]]))


@pytest.mark.parametrize("shape", [(N, 7), (N, 5, 7), (N, 3, 8, 8)])
@pytest.mark.parametrize("score", ["agreement", "cosine", "relative"])
def test_the_original_gets_exactly_one_and_everything_else_at_most(score: str, shape: tuple[int, ...]) -> None:
    original = (1e3 * RNG.standard_normal(shape)).astype(np.float32)
    own = SCORES[score]([original.copy()], original)
    assert own.dtype == np.float64 and own.shape == (N,) and (own == 1.0).all()
    for factor in (1 + 1e-7, 1.5):
        scores = SCORES[score]([original.astype(np.float64) * factor + 1e-6], original)
        assert scores.dtype == np.float64 and scores.shape == (N,) and (scores <= 1.0).all()


@pytest.mark.parametrize("score", ["agreement", "cosine", "relative"])
def test_outputs_of_another_shape_are_one_sentence(score: str) -> None:
    with pytest.raises(SlimlineError, match=r"candidate's output has shape \(4, 3\) and the original's \(4, 2\)"):
        SCORES[score]([np.zeros((4, 3))], np.zeros((4, 2)))


def test_scores_that_say_nothing_are_refused() -> None:
    for shape in ((N,), (N, 1)):
        with pytest.raises(SlimlineError, match=r"agreement needs \(samples, classes\).* use score cosine or relative"):
            agreement([np.zeros(shape)], np.zeros(shape))
        with pytest.raises(SlimlineError, match="one number per sample, .*: use score relative"):
            cosine([np.zeros(shape)], np.zeros(shape))


def test_scores_between_0_and_1_are_certified_by_the_general_form() -> None:
    """The bounds of a paired drop of cosines cover the true mean and are no bounds of proportions."""
    losses = np.random.default_rng(1).exponential(0.004, 400)
    drop = paired_drop(np.ones(400), 1 - losses)
    assert drop.lost is None and drop.drop == pytest.approx(losses.mean())
    half = 1.645 * losses.std(ddof=1) / 20
    assert drop.upper == pytest.approx(losses.mean() + half, abs=0.3 * half)
    assert drop.lower == pytest.approx(losses.mean() - half, abs=0.3 * half)


# --- what the first output is -----------------------------------------------------------------------------------------


class Ends(nn.Module):
    """A linear layer to ``width`` numbers and what comes after it."""

    def __init__(self, after: Callable[[Tensor], Any], width: int = 6, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.after = nn.Linear(4, width), after
        nn.init.normal_(self.layer.weight, 0, scale)

    def forward(self, x: Tensor) -> Any:
        return self.after(self.layer(x))


def seen(
    after: Callable[[Tensor], Any], width: int = 6, scale: float = 3.0, name: str = "output"
) -> tuple[Network, FirstOutput]:
    """What a network with this end is seen to put out."""
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32))
    network = trace(Ends(after, width, scale), [inputs[:2]])
    network.output_names = (name, *network.output_names[1:])
    return network, first_output(network, network.run({"x": inputs})[0].numpy())


def image(x: Tensor) -> Tensor:
    """(N, 60) to (N, 3 classes, 4, 5)."""
    return x.reshape(-1, 3, 4, 5)


def sequence(x: Tensor) -> Tensor:
    """(N, 60) to (N, 4 positions, 15)."""
    return x.reshape(-1, 4, 15)


Rule = tuple[Callable[[Tensor], Any], dict[str, Any], str, int, bool, str]
RULES: dict[str, Rule] = {
    "softmax": (lambda x: x.softmax(1), {}, "agreement", 1, True, "sum to one"),
    "softmax by hand": (lambda x: x.exp() / x.exp().sum(1, True), {}, "agreement", 1, True, "sum to one"),
    "log softmax": (lambda x: x.log_softmax(1), {}, "agreement", 1, False, "sum to one"),
    "a sequence": (lambda x: sequence(x).softmax(2), {"width": 60}, "agreement", 2, True, "sum to one"),
    "a sequence, classes first": (lambda x: sequence(x).softmax(1), {"width": 60}, "agreement", 1, True, "sum to one"),
    "a map": (lambda x: image(x).softmax(1), {"width": 60}, "agreement", 1, True, "sum to one"),
    "a map, classes last": (
        lambda x: image(x).softmax(1).permute(0, 2, 3, 1), {"width": 60}, "agreement", 3, True, "sum to one",
    ),
    "a small map of many classes": (
        lambda x: x.reshape(-1, 15, 2, 2).softmax(1), {"width": 60}, "agreement", 1, True, "sum to one",
    ),
    "logits of a map": (image, {"width": 60}, "agreement", 1, False, "last layer is linear"),
    "logits": (lambda x: x, {}, "agreement", 1, False, "last layer is linear"),
    "logits by a matrix": (lambda x: (x @ torch.eye(6)) + 0.5, {}, "agreement", 1, False, "last layer is linear"),
    "named logits": (lambda x: x, {"scale": 0.01, "name": "logits_1"}, "agreement", 1, False, "'logits_1'"),
    "a named probability": (lambda x: x.sigmoid(), {"name": "ClassProb"}, "agreement", 1, False, "'ClassProb'"),
    "a named embedding": (lambda x: x, {"name": "sentence_embedding"}, "cosine", 1, False, "speaks of an embedding"),
    "hidden states": (sequence, {"width": 60, "name": "last_hidden_state"}, "cosine", 2, False, "of an embedding"),
    "unit rows": (lambda x: F.normalize(x, dim=1), {}, "cosine", 1, False, "length one"),
    "a projection, nearly uniform": (lambda x: x, {"width": 64, "scale": 0.1}, "cosine", 1, False, "vectors of 64"),
    "always the same largest": (lambda x: x + 99 * torch.eye(6)[2], {"width": 6}, "relative", 1, False, "neither"),
    "a normalised vector": (lambda x: F.layer_norm(x, (64,)), {"width": 64}, "cosine", 1, False, "vectors of 64"),
    "many vectors": (lambda x: x.reshape(-1, 3, 20).tanh(), {"width": 60}, "cosine", 2, False, "vectors of 20"),
    "a picture": (lambda x: image(x).sigmoid(), {"width": 60}, "relative", 1, False, "neither"),
    "a few numbers": (lambda x: x, {"width": 3, "scale": 0.1}, "relative", 1, False, "neither"),
    "one number": (lambda x: x, {"width": 1, "name": "logit"}, "relative", 1, False, "neither"),
    "one number, no axis": (lambda x: x[:, 0], {"name": "probability"}, "relative", 1, False, "neither"),
    "whole numbers": (lambda x: x.argmax(1), {"name": "embedding"}, "agreement", 1, False, "whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES)
def test_what_the_first_output_is(case: str) -> None:
    after, made, score, axis, probabilities, why = RULES[case]
    _, output = seen(after, **made)
    assert (output.score, output.axis, output.probabilities) == (score, axis, probabilities)
    assert why in output.why and output.integers == (case == "whole numbers")


def test_rounded_probabilities_count_where_the_graph_ends_in_a_softmax() -> None:
    coarse = np.round(np.full((4, 6), 1 / 6), 2)  # 0.17 six times is 1.02
    assert first_output(seen(lambda x: x.softmax(1))[0], coarse).probabilities
    assert not first_output(seen(lambda x: x)[0], coarse).probabilities


def test_the_last_operators_are_found_behind_those_that_hand_numbers_on() -> None:
    found = {
        case: last_operators(seen(RULES[case][0], **RULES[case][1])[0])
        for case in ("a map, classes last", "log softmax", "logits of a map", "logits by a matrix", "unit rows")
    }
    assert found == {
        "a map, classes last": {"softmax.int"}, "log softmax": {"log_softmax.int"}, "unit rows": {"div.Tensor"},
        "logits of a map": {"linear.default"}, "logits by a matrix": {"matmul.default"},
    }  # fmt: skip


def test_an_original_that_says_nan_is_one_sentence() -> None:
    with pytest.raises(SlimlineError, match="output 'output' is NaN for some of the samples"):
        seen(lambda x: (x - 1e3).sqrt())


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((9,), []), ((9, 1), []), ((9, 5), [1]), ((9, 4, 5), [2, 1]), ((9, 4, 1), [1]), ((9, 21, 64, 64), [1, 3]),
     ((9, 64, 64, 21), [3, 1]), ((9, 8, 8, 8), [1, 3]), ((9, 8, 4, 4, 2), [4, 1])],
)  # fmt: skip
def test_where_classes_may_lie(shape: tuple[int, ...], axes: list[int]) -> None:
    assert class_axes(shape) == axes


def test_scores_in_words() -> None:
    one, several = seen(lambda x: x)[1], seen(lambda x: (x, x, x))[1]
    many, whole = seen(sequence, width=60)[1], seen(lambda x: x.argmax(1))[1]
    original = "agreement with the original network"
    assert describe("agreement", one) == describe("agreement") == f"{original} (share of equal argmax), not accuracy"
    assert describe("agreement", many) == f"{original} (share of positions with equal argmax), not accuracy"
    assert describe("agreement", whole) == f"{original} (share of equal entries), not accuracy"
    assert describe("cosine", one) == f"{original} (cosine similarity of the outputs), not accuracy"
    assert describe("relative", one) == f"{original} (1 - relative error of the outputs), not accuracy"
    assert describe("accuracy", one) == "accuracy on labels"
    assert describe("cosine", several).endswith("not accuracy, of 'output', the first of 3 outputs")
    assert describe("accuracy", several) == "accuracy on labels, of 'output', the first of 3 outputs"
