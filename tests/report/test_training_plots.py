"""The plots of training runs: a line read back through the printed ticks is the curve, and odd numbers do no harm."""

import random
from math import log, log1p
from typing import Any

import numpy as np
import pytest

from slimline.report.plot import NOMINAL_WIDTH, Axis
from slimline.report.training_plots import (
    HEIGHTS,
    Painter,
    Plot,
    Run,
    loss_axis,
    rate_axis,
    score_axis,
    step_axes,
)
from tests.report.fixture import training_data


def _run(place: int, data: dict[str, Any]) -> Run:
    windows = list(zip(data["steps"], data["losses"], data["rates"], data["sparsity"], strict=True))
    return Run(place, data["name"], windows, list(zip(data["judged"], data["scores"], strict=True)))


def _runs() -> list[Run]:
    return [_run(place, data) for place, data in enumerate(training_data())]


def _plots(runs: list[Run], axis: Axis | None = None, **known: float | None) -> dict[str, Plot]:
    painter = Painter(runs, "accuracy", known.get("original"), known.get("allowed"), "search split")
    return {plot.kind: plot for plot in painter.plots(axis or step_axes(runs)[0][1])}


def _read(points: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([spot.split() for spot in points.split(",")], dtype=float)


def _value(text: str) -> float:
    return float(text.replace(",", "").rstrip("%")) / (100 if text.endswith("%") else 1)


def _through_ticks(at: Any, ticks: list[tuple[float, str]], bend: Any) -> Any:
    """Values at places, from the first and the last printed tick of an axis that is straight after ``bend``."""
    (p0, t0), (p1, t1) = ticks[0], ticks[-1]
    low, high = bend(_value(t0)), bend(_value(t1))
    return low + (np.asarray(at) - p0) / (p1 - p0) * (high - low)


@pytest.mark.parametrize("bent", [False, True])
def test_lines_read_through_their_ticks_are_the_curves(bent: bool) -> None:
    runs = _runs()[:3]
    plots = _plots(runs, dict(step_axes(runs))["log" if bent else "linear"])
    for kind, column, straight in (("loss", 1, log), ("rate", 2, float)):
        plot = plots[kind]
        for line in plot.lines:
            x, y = _read(line.points).T
            steps = [w[0] for w in runs[line.curve].windows]
            expected = [log1p(s / 20) for s in steps] if bent else steps
            read = _through_ticks(x / 10, plot.x_ticks, (lambda v: log1p(v / 20)) if bent else float)
            assert read == pytest.approx(expected, rel=2e-3, abs=2.0 if not bent else 2e-3)
            values = [straight(w[column]) for w in runs[line.curve].windows]
            assert _through_ticks(y, plot.y_ticks, straight) == pytest.approx(
                values, abs=0.02 if kind == "loss" else 2e-4
            )


def test_scores_read_through_their_ticks_and_far_ones_lie_in_the_strip() -> None:
    runs = _runs()[:3]
    plot = _plots(runs, original=0.9142, allowed=0.01)["score"]
    floor = plot.height - plot.strip
    assert plot.strip > 0
    low = 0
    for line in plot.lines:
        y = _read(line.points)[:, 1]
        read = _through_ticks(y, plot.y_ticks, float)
        for height, shown, (_, score) in zip(y, read, runs[line.curve].judged, strict=True):
            if height > floor:
                low += 1
                assert score < _value(plot.y_ticks[0][1])
            else:
                assert shown == pytest.approx(score, abs=1e-3)
    assert low == 1  # the 10.2 % before the training of trial 11
    levels = {mark.style: float(_through_ticks(mark.y, plot.y_ticks, float)) for mark in plot.marks}
    assert levels == pytest.approx({"original": 0.9142, "budget": 0.9042}, abs=3e-4)
    assert [mark.text for mark in plot.marks] == ["original 91.42%", "1.00 point below the original"]


def test_without_scores_there_are_only_losses_and_without_anything_nothing() -> None:
    unjudged = [Run(r.place, r.name, r.windows, []) for r in _runs()]
    assert list(_plots(unjudged)) == ["loss", "rate"]
    assert list(_plots([Run(0, "judged only", [], [(0, 0.5)])])) == ["score"]
    assert _plots([Run(0, "nothing", [], [])]) == {}


def test_what_is_not_known_is_not_drawn() -> None:
    assert _plots(_runs())["score"].marks == []
    assert [mark.style for mark in _plots(_runs(), original=0.9)["score"].marks] == ["original"]
    assert _plots(_runs(), allowed=0.01)["score"].marks == []


def _straight(place: int, length: int) -> Run:
    return Run(place, f"run {place}", [(step, 1.0, 0.1, 0.0) for step in range(20, length + 1, 20)], [])


@pytest.mark.parametrize(
    ("lengths", "names"),
    [([400, 400], ["linear", "log"]), ([100], ["linear"]), ([400, 4000], ["log", "linear"]), ([], ["linear"])],
)
def test_a_logarithmic_scale_comes_first_only_where_lengths_differ_much(lengths: list[int], names: list[str]) -> None:
    axes = step_axes([_straight(place, length) for place, length in enumerate(lengths)])
    assert [name for name, _ in axes] == names
    assert all(axis.share(max(lengths, default=1)) == 1.0 for _, axis in axes)


def test_the_score_axis_holds_what_decides_and_lets_go_of_the_beginning() -> None:
    axis, reach = score_axis([[0.10, 0.85, 0.912], [0.12, 0.80, 0.905]], [0.9142, 0.9042])
    assert axis.low < 0.9042 and axis.high > 0.9142 and 0.85 < reach < 0.9042
    assert axis.share(0.9142) - axis.share(0.9042) > 0.3
    hopeless = [[0.10, 0.2], *([0.8, 0.90 + k / 1000] for k in range(4))]
    assert score_axis(hopeless, [])[1] > 0.85
    both, _ = score_axis([[0.1, 0.4], [0.1, 0.9]], [])
    assert both.low <= 0.4  # of two curves neither is an outlier
    for odd in ([[0.5]], [[0.0]], [[-3.0, -2.0]]):
        axis, reach = score_axis(odd, [])
        assert axis.low < max(odd[0]) < axis.high


def test_a_loss_that_explodes_does_not_flatten_the_others() -> None:
    axis = loss_axis([[3.0, 0.5], [2.0, 0.1], [2.5, 1e30]])
    assert axis.logarithmic and axis.share(2.0) - axis.share(0.1) > 0.25 and axis.share(1e30) == 1.0
    assert not loss_axis([[0.5, -0.9]]).logarithmic and loss_axis([[0.5, 0.0]]).logarithmic
    assert 0 < loss_axis([[0.0, 0.0]]).share(0.0) < 1


def test_rates_of_different_size_are_all_seen() -> None:
    axis = rate_axis([[0.05, 0.0], [0.01, 0.0]])
    assert not axis.logarithmic and axis.low == 0 and axis.high == pytest.approx(0.054)
    axis = rate_axis([[0.5, 0.0], [1e-4, 0.0]])
    assert axis.logarithmic and axis.share(1e-4) > 0.2
    assert rate_axis([[0.0]]) == Axis(0, 1)


def test_names_stand_at_the_right_edge_or_where_no_line_and_no_other_name_is() -> None:
    for _ in range(30):
        runs = []
        for place in range(random.randint(1, 12)):
            length = random.choice([200, 400, 2000, 2000])
            scores = sorted(random.uniform(0.8, 0.95) for _ in range(4))
            runs.append(
                Run(place, f"run {place}", [], list(zip(range(0, length + 1, length // 3), scores, strict=False)))
            )
        plot = _plots(runs, original=0.93, allowed=0.02)["score"]
        inner = []
        for end in plot.ends:
            assert end.inside == (end.left < 97)
            if not end.inside:
                assert end.left == 100.0
                continue
            left = end.left * NOMINAL_WIDTH / 100 + 6
            right = left + 7 * len(end.text) + 8
            inner.append((left, end.top - 8, right, end.top + 8))
            for line in plot.lines:
                spots = _read(line.points) * [NOMINAL_WIDTH / 1000, 1]
                xs = np.linspace(left + 0.5, right - 0.5, 50)
                covered = xs[(xs >= spots[0, 0]) & (xs <= spots[-1, 0])]
                ys = np.interp(covered, spots[:, 0], spots[:, 1])
                assert not ((ys > end.top - 7.5) & (ys < end.top + 7.5)).any()
        for number, a in enumerate(inner):
            for b in inner[number + 1 :]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_any_finite_numbers_make_finite_places_inside_their_box() -> None:
    odd = [0.0, -0.0, 1e-300, -1e-300, 1.0, -1.0, 1e300, -1e300, 1.7e308, -1.7e308, 5e-324]
    for _ in range(200):
        runs = []
        for place in range(random.randint(1, 4)):
            windows = [(20 * k, random.choice(odd), random.choice(odd), 0.0) for k in range(random.randint(0, 5))]
            judged = [(30 * k, random.choice(odd)) for k in range(random.randint(0, 4))]
            runs.append(Run(place, "odd", windows, judged))
        plots = _plots(runs, original=random.choice(odd), allowed=random.choice([None, *odd]))
        for plot in plots.values():
            spots = np.concatenate([_read(line.points) for line in plot.lines])
            assert np.isfinite(spots).all() and spots.min() >= 0
            assert spots[:, 0].max() <= 1000 and spots[:, 1].max() <= HEIGHTS[plot.kind]
