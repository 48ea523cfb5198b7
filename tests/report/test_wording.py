"""Numbers as a person reads them, against expectations written by hand and against Decimal."""

import random
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest

from slimline.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.112, "0.112"),
        (0.01118, "0.0112"),
        (4.9345, "4.93"),
        (9.996, "10.0"),
        (99.96, "100"),
        (11.4, "11.4"),
        (1281.4, "1,280"),
        (0.0, "0"),
        (-0.0, "0"),
        (-0.5, "\N{MINUS SIGN}0.500"),
        (float("inf"), "unbounded"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert wording.significant(value) == text


def test_significant_agrees_with_decimal_rounding() -> None:
    context = Context(prec=3, rounding=ROUND_HALF_EVEN)
    for _ in range(500):
        value = random.uniform(0.1, 10) * 10 ** random.randint(-5, 5)
        shown = Decimal(wording.significant(value).replace(",", ""))
        assert shown == context.create_decimal(Decimal(value)), value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (432, "432 B"), (999, "999 B"), (61_240, "61.2 kB"), (999_600, "1.00 MB"), (4_931_204, "4.93 MB")],
)
def test_sizes_are_decimal(value: int, text: str) -> None:
    assert wording.size(value) == text


def test_counts_and_ratios() -> None:
    assert [wording.count(n) for n in (960, 304_120, 40_814_592)] == ["960", "304 k", "40.8 M"]
    assert wording.ratio(11.398) == "11.4\N{MULTIPLICATION SIGN}"
    assert wording.milliseconds(0.112) == "0.112 ms"


def test_scores_that_are_shares_are_in_per_cent_and_points() -> None:
    assert wording.score(0.9109, "accuracy") == "91.09%"
    assert wording.drop(0.0021, "agreement") == "0.21 points"
    assert wording.drop(0.01, "accuracy") == "1.00 point"
    assert wording.drop(-0.0032, "accuracy") == "\N{MINUS SIGN}0.32 points"
    assert wording.drop(-0.00001, "accuracy") == "0.00 points"


def test_other_scores_keep_their_own_scale() -> None:
    assert wording.score(-0.013424, "custom") == "\N{MINUS SIGN}0.01342"
    assert wording.drop(12.5, "custom") == "12.50"


@pytest.mark.parametrize("kind", ["agreement", "cosine", "relative"])
def test_scores_without_labels_are_in_points_and_say_what_they_compare_with(kind: str) -> None:
    assert wording.score(0.99873, kind) == "99.87%" and wording.drop(0.00127, kind) == "0.13 points"
    assert wording.score_name(kind).endswith("to the original" if kind != "agreement" else "with the original")
    assert wording.score_name("accuracy") == "accuracy" and wording.score_name("custom") == "custom"


def test_what_was_not_measured_says_so() -> None:
    for shown in (wording.milliseconds, wording.size, wording.count, wording.ratio):
        assert shown(None) == "not measured"
    assert wording.score(None, "accuracy") == wording.drop(None, "accuracy") == "not measured"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.14, "3.1 s"), (48.2, "48 s"), (581.2, "9 min 41 s"), (600, "10 min"), (59.7, "1 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_shapes() -> None:
    assert (
        wording.shape([64, 32, 3, 3])
        == "64 \N{MULTIPLICATION SIGN} 32 \N{MULTIPLICATION SIGN} 3 \N{MULTIPLICATION SIGN} 3"
    )
    assert wording.shape(None) == "removed"
    assert wording.shape([]) == "no weights"
