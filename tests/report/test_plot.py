"""Axes, thinning and labels, against closed forms, scipy and slow twins."""

import random
from math import log, log1p

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from slimline.report.plot import (
    LABEL_HEIGHT,
    LONGEST_SHIFT,
    NEAR_TICKS,
    Axis,
    Box,
    Place,
    decades,
    number,
    round_number,
    spread,
    steps,
    thin,
)


def test_each_axis_is_its_formula() -> None:
    assert Axis(10, 20).share(12.5) == pytest.approx(0.25)
    assert Axis(0.01, 100, logarithmic=True).share(3) == pytest.approx(log(300) / log(10_000))
    assert Axis(0, 900, bend=20).share(50) == pytest.approx(log1p(50 / 20) / log1p(900 / 20))
    assert Axis(0, 900, bend=20).share(0) == 0.0


@pytest.mark.parametrize("axis", [Axis(1, 9), Axis(1, 9, logarithmic=True), Axis(0, 9, bend=1), Axis(3, 3)])
def test_what_lies_outside_is_put_on_the_edge(axis: Axis) -> None:
    assert all(0.0 <= axis.share(v) <= 1.0 for v in (-1e100, -1, 0, 3, 9, 1e100))


def test_ticks_lie_inside_and_are_not_many() -> None:
    for _ in range(300):
        low = random.uniform(0.1, 1) * 10 ** random.randint(-6, 6)
        high = low * random.uniform(1.05, 10 ** random.uniform(0.1, 12))
        for axis in (Axis(low, high), Axis(low, high, logarithmic=True)):
            ticks = axis.ticks(6)
            assert 1 <= len(ticks) <= 7 and ticks == sorted(set(ticks)), axis
            slack = 1e-9 * (high - low)
            assert all(low - slack <= tick <= high + slack for tick in ticks), axis


def test_ticks_of_a_bent_axis_begin_at_0_and_keep_their_distance() -> None:
    for high in (40, 390, 4680, 100_000):
        axis = Axis(0, high, bend=20)
        ticks = axis.ticks(6)
        shares = [axis.share(tick) for tick in ticks]
        assert ticks[0] == 0 and len(ticks) >= 3
        assert min(np.diff(shares)) >= NEAR_TICKS


def test_ticks_are_round_numbers() -> None:
    assert decades(0.3, 30) == pytest.approx([0.5, 1, 2, 5, 10, 20])
    assert Axis(1e-3, 1e4, logarithmic=True).ticks(8) == pytest.approx([10.0**e for e in range(-3, 5)])
    assert steps(0.861, 0.924, 6) == pytest.approx([0.88, 0.90, 0.92])
    assert steps(0, 3000, 5) == [0, 1000, 2000, 3000]
    assert steps(-1, 1, 4) == pytest.approx([-1, -0.5, 0, 0.5, 1]) and steps(2, 2, 4) == [2]


@pytest.mark.parametrize(
    ("value", "exact", "tick"),
    [
        (0.0, "0", "0"),
        (0.0123, "0.0123", "0.0123"),
        (2e-5, "2.00·10⁻⁵", "2·10⁻⁵"),
        (1e-7, "1.00·10⁻⁷", "10⁻⁷"),
        (1e22, "1.00·10²²", "10²²"),
        (1000.0, "1,000", "1,000"),
        (-0.5, "\N{MINUS SIGN}0.500", "\N{MINUS SIGN}0.5"),
    ],
)
def test_numbers_as_they_are_read(value: float, exact: str, tick: str) -> None:
    assert (number(value), round_number(value)) == (exact, tick)


def test_thinning_keeps_every_peak_the_start_and_the_end() -> None:
    for _ in range(50):
        values = [random.random() for _ in range(random.randint(100, 3000))]
        high, low = random.sample(range(len(values)), 2)
        values[high], values[low] = 5.0, -5.0
        kept = thin(values, 60)
        assert {0, 1, 2, high, low, len(values) - 1} <= set(kept)
        assert kept == sorted(set(kept)) and len(kept) <= 60


def test_what_is_short_is_not_thinned() -> None:
    assert thin([3, 1, 2], 60) == [0, 1, 2] and thin([], 60) == []


def test_labels_are_moved_as_little_as_least_squares_allow() -> None:
    """Places at least a line apart that are nearest to the wanted ones are an isotonic regression of the slack."""
    met = 0
    for _ in range(300):
        wanted = [random.uniform(500, 600) for _ in range(random.randint(1, 7))]
        order = np.argsort(wanted)
        slack = np.sort(wanted) - LABEL_HEIGHT * np.arange(len(wanted))
        expected = isotonic_regression(slack).x + LABEL_HEIGHT * np.arange(len(wanted))
        found = spread(wanted, 0, 10_000)
        if np.abs(expected - np.sort(wanted)).max() <= LONGEST_SHIFT:
            met += 1
            assert [found[k] for k in order] == pytest.approx(expected)
        else:
            assert len(found) < len(wanted)
    assert met > 100


def test_labels_never_touch_never_leave_and_are_never_far_from_their_line() -> None:
    for _ in range(200):
        wanted = [random.uniform(0, 320) for _ in range(random.randint(0, 40))]
        found = spread(wanted, 0, 320)
        places = sorted(found.values())
        assert all(b - a >= LABEL_HEIGHT - 1e-9 for a, b in zip(places, places[1:], strict=False))
        assert all(-1e-9 <= place <= 320 + 1e-9 for place in places)
        assert all(abs(place - wanted[k]) <= LONGEST_SHIFT for k, place in found.items())
        assert sorted(found, key=found.__getitem__) == sorted(found, key=wanted.__getitem__)
        assert bool(found) == bool(wanted)


def test_a_line_through_a_box_is_seen_as_by_walking_along_it() -> None:
    crossings = 0
    for _ in range(400):
        box = Box(30, 40, 60, 56)
        xs = sorted(random.uniform(0, 100) for _ in range(5))
        line: list[Place] = [(x, random.uniform(0, 100)) for x in xs]
        walked = False
        for (x0, y0), (x1, y1) in zip(line, line[1:], strict=False):
            at = np.linspace(0, 1, 4000)
            x, y = x0 + (x1 - x0) * at, y0 + (y1 - y0) * at
            walked |= bool(((x > 30) & (x < 60) & (y > 40) & (y < 56)).any())
        crossings += walked
        if walked:
            assert box.crossed_by(line)
        elif box.crossed_by(line):  # only a corner that the walk stepped over
            assert Box(30.1, 40.1, 59.9, 55.9).crossed_by(line) is False
    assert 50 < crossings < 350


def test_boxes_meet_where_they_share_an_area() -> None:
    box = Box(0, 0, 10, 10)
    assert box.meets(Box(9, 9, 12, 12)) and not box.meets(Box(10, 0, 12, 10)) and not box.meets(Box(0, 11, 10, 12))
