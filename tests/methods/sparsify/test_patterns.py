"""Masks against a sort in plain Python, counts against closed forms, and refusals that say what is allowed."""

import re

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.methods.recipe import Recipe
from slimline.methods.sparsify.patterns import (
    EXAMPLES,
    Pattern,
    lowest,
    pattern_of,
    unit_scores,
    weights_of,
    zeros,
    zeros_of_all,
    zeros_of_rows,
)
from slimline.methods.sparsify.wanda import Wanda
from tests.methods.sparsify.checks import chosen, slow_zeros

ALL = ("any", "1:2", "2:4", "3:4", "1:4", "4:8", "1x4", "4x1", "2x4", "4x4", "8x8")


def scores(seed: int, rows: int = 8, columns: int = 24, levels: int = 6) -> torch.Tensor:
    """Of few levels, so that many are equal."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, levels, (rows, columns)).astype(np.float64))


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_masks_are_those_of_the_slow_twin_also_where_scores_are_equal(text: str, seed: int) -> None:
    pattern, found = pattern_of(text), scores(seed)
    for share in (0.0, 0.1, 0.25, 1 / 3, pattern.largest_share):
        mask = zeros(found, min(share, pattern.largest_share), pattern)
        expected = slow_zeros(found.numpy(), min(share, pattern.largest_share), text)
        np.testing.assert_array_equal(mask.numpy(), expected)


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.29, 0.3, 0.5, 0.77, 0.999, 1.0])
def test_the_number_of_zeros_is_what_was_asked_for(text: str, share: float) -> None:
    pattern = pattern_of(text)
    if share > pattern.largest_share:
        return
    units = 8 * 24 // pattern.unit
    for found in (scores(1), torch.zeros(8, 24), torch.randn(8, 24)):
        assert int(zeros(found, share, pattern).sum()) == pattern.unit * round(share * units)
        by_row = zeros_of_rows(found, share, pattern)
        each = 24 // (1 if pattern.kept else pattern.columns)
        assert (by_row.sum(1) == round(share * each) * (1 if pattern.kept else pattern.columns)).all()


@pytest.mark.parametrize("text", ALL)
def test_more_zeros_hold_the_fewer(text: str) -> None:
    """So that a mask can grow; on the way every group of N:M keeps at least N."""
    pattern, found = pattern_of(text), scores(4, levels=1000)
    masks = [zeros(found, share * pattern.largest_share, pattern) for share in np.linspace(0, 1, 12)]
    for fewer, more in zip(masks, masks[1:], strict=False):
        assert bool((more | ~fewer).all())
    if pattern.kept:
        left = (~masks[-1]).reshape(8, -1, pattern.columns).sum(-1)
        assert bool((left == pattern.kept).all())


def test_of_several_layers_all_units_are_compared() -> None:
    several = [scores(5, 4, 8), scores(6, 8, 12)]
    masks = zeros_of_all(several, 0.4, pattern_of("2x4"))
    sums = [m.reshape(len(m) // 2, 2, -1, 4).sum((1, 3)).flatten() for m in several]
    together = torch.cat(sums).tolist()
    expected = chosen(together, round(0.4 * len(together)))
    units = torch.cat([m.reshape(len(m) // 2, 2, -1, 4).all(3).all(1).flatten() for m in masks])
    assert {i for i, gone in enumerate(units.tolist()) if gone} == expected
    assert zeros_of_all([], 0.5, pattern_of("any")) == []


def test_in_every_row_the_lowest_go() -> None:
    found = scores(7)
    mask = zeros_of_rows(found, 0.3, pattern_of("any"))
    for row, gone in zip(found.tolist(), mask.tolist(), strict=True):
        assert {i for i, g in enumerate(gone) if g} == chosen(row, round(0.3 * 24))


def test_blocks_by_hand() -> None:
    found = torch.tensor([[1.0, 1.0, 0.0, 9.0], [1.0, 1.0, 0.0, 0.0]])
    assert unit_scores(found, Pattern(2, 2)).tolist() == [[4.0, 9.0]]
    mask = zeros(found, 0.5, pattern_of("2x2"))
    assert mask.tolist() == [[True, True, False, False]] * 2
    assert weights_of(torch.tensor([[True, False]]), Pattern(2, 2)).tolist() == mask.tolist()


def test_two_of_four_by_hand() -> None:
    found = torch.tensor([[5.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]])
    assert zeros(found, 0.5, pattern_of("2:4")).tolist() == [[False, True, True, False, True, True, False, False]]
    # of a part, those that the whole pattern has too
    assert zeros(found, 0.25, pattern_of("2:4")).tolist() == [[False, False, False, False, True, True, False, False]]


def test_the_lowest_of_equal_ones_are_the_first() -> None:
    assert lowest(torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]), 3).tolist() == [False, True, True, False, True]
    assert lowest(torch.zeros(2, 5), 2).tolist() == [[True, True, False, False, False]] * 2
    assert not lowest(torch.zeros(4), 0).any() and lowest(torch.zeros(4), 4).all()


@pytest.mark.parametrize(
    "wrong",
    ["", "Any", "5:4", "4:4", "0:4", "0x4", "4x0", "4x", "x4", "-1:4", "2:4:8", "2 : 4", "02:4", "1.5x4", "²:4"],
)
def test_what_is_no_pattern_is_refused_in_a_sentence_that_says_what_is_one(wrong: str) -> None:
    expected = rf"^{re.escape(repr(wrong))} is no pattern of zeros: use 'any'; 'N:M' with 0 < N < M, such as '2:4'"
    with pytest.raises(SlimlineError, match=expected):
        Wanda(pattern=wrong)


def test_yaml_takes_a_time_of_day_for_a_number() -> None:
    """2:4 without quotes is 124 there."""
    with pytest.raises(SlimlineError, match="124 is no pattern of zeros: .* YAML needs the quotes"):
        Recipe.from_yaml("- Wanda: {pattern: 2:4}")
    assert Recipe.from_yaml("- Wanda: {pattern: '2:4'}") == Recipe([Wanda(pattern="2:4")])
    assert Recipe.from_yaml(Recipe([Wanda(pattern="2:4")]).to_yaml()) == Recipe([Wanda(pattern="2:4")])


def test_patterns_are_read() -> None:
    assert pattern_of("any") == Pattern(1, 1) and pattern_of("2x16") == Pattern(2, 16)
    assert (
        pattern_of("2:4") == Pattern(1, 4, 2) and pattern_of("2:4").share(0.9) == 0.5 == pattern_of("2:4").largest_share
    )
    assert pattern_of("1x4").share(0.9) == 0.9 and [pattern_of(e) for e in EXAMPLES]


def test_why_a_layer_cannot_have_a_pattern() -> None:
    assert pattern_of("2:4").unsuited(3, 8) == [] and pattern_of("any").unsuited(3, 7) == []
    assert pattern_of("2:4").unsuited(3, 6) == ["6 inputs are no multiple of 4"]
    assert pattern_of("2x4").unsuited(3, 6) == ["3 outputs are no multiple of 2", "6 inputs are no multiple of 4"]


def test_a_sparsity_without_effect_is_told() -> None:
    assert pattern_of("2:4").without_effect(0.5) == {} and pattern_of("any").without_effect(0.7) == {}
    assert pattern_of("1:4").without_effect(0.5) == {"sparsity": "1:4 zeroes 75% of a layer whatever it says"}
