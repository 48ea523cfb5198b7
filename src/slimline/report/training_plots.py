"""The three plots of training runs over one axis of steps: score, loss and learning rate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from statistics import median_low

from slimline.report import wording
from slimline.report.plot import (
    LABEL_HEIGHT,
    NOMINAL_WIDTH,
    WIDTH,
    Axis,
    Box,
    Place,
    number,
    round_number,
    spread,
    step_size,
    text_width,
)

HEIGHTS = {"score": 320, "loss": 220, "rate": 70}
STRIP = 28
"""Pixels at the bottom for scores that lie far below the others."""
MOST_DOTS = 200
"""Points with a dot in one plot."""
HUGE = 1e100
"""Beyond it, and closer to 0 than its inverse, no plot tells numbers apart; sums and quotients must stay finite."""
AT_THE_EDGE = 0.97


@dataclass(frozen=True)
class Run:
    """A training curve by rising steps, thinned to what can be drawn."""

    place: int
    """In the order of the curves."""
    name: str
    windows: list[tuple[int, float, float, float]]
    """(last step, loss, learning rate, sparsity)."""
    judged: list[tuple[int, float]]
    """(step, score)."""

    @property
    def last_step(self) -> int:
        """Of the windows and of the scores."""
        return max([0, *(w[0] for w in self.windows), *(j[0] for j in self.judged)])


@dataclass(frozen=True)
class Line:
    """One curve in one plot."""

    curve: int
    points: str
    dots: str
    """Path of the points; empty where there are so many that they would hide the lines."""


@dataclass(frozen=True)
class Mark:
    """A level across the plot: the original's score, or what may be lost below it."""

    style: str
    y: float
    text: str
    right: bool = False
    """Its text stands at the right end, because fewer lines run through it there."""

    def box(self) -> Box:
        """Where the text stands: the original's over its line, the budget's under it."""
        width = len(self.text) * 7.0 + 8
        left = NOMINAL_WIDTH - width if self.right else 0.0
        top = self.y - LABEL_HEIGHT - 2 if self.style == "original" else self.y + 2
        return Box(left, top, left + width, top + LABEL_HEIGHT)


@dataclass(frozen=True)
class EndLabel:
    """The name of a curve at its end."""

    curve: int
    text: str
    left: float
    """Per cent of the plot's width."""
    top: float
    inside: bool
    """The run was shorter than others, so its name stands among their lines."""


@dataclass(frozen=True)
class Plot:
    """One box with lines; heights in pixels, places along it in per cent."""

    kind: str
    title: str
    height: int
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_title: str
    marks: list[Mark]
    ends: list[EndLabel]
    strip: int
    """Height of the strip for what lies far below."""
    aria: str


def step_axes(runs: Sequence[Run]) -> list[tuple[str, Axis]]:
    """The scales of steps to choose from, by name, the one to begin with first.

    A short recovery beside a long training is a stub on a linear scale; a logarithmic one shows both. Runs of about one
    length read better on a linear one, and a handful of points needs no choice.
    """
    lengths = [run.last_step for run in runs if run.last_step > 0]
    longest = max(lengths, default=1)
    first = min((s for run in runs for s, *_ in [*run.windows, *run.judged] if s > 0), default=1)
    linear, bent = ("linear", Axis(0, longest)), ("log", Axis(0, longest, bend=float(first)))
    if longest < 20 * first:
        return [linear]
    return [bent, linear] if longest >= 8 * min(lengths) else [linear, bent]


def score_axis(scores: Sequence[Sequence[float]], levels: Sequence[float]) -> tuple[Axis, float]:
    """The axis of scores, and the score below which a point goes to the strip at the bottom.

    What a network knew before it learned must not flatten the part that decides: the axis shows the levels, the best
    score of all but the worst quarter of the curves, and twice their range below them.
    """
    best = sorted((max(curve) for curve in scores), reverse=True)
    main = [*best[: ceil(0.75 * len(best))], *levels]
    high = max([*levels, *best])
    reach = min(main) - 2 * (high - min(main))
    low = min(score for score in [*levels, *(s for curve in scores for s in curve)] if score >= reach)
    pad = 0.1 * (high - low) or 0.01 * abs(high) or 1.0
    return Axis(low - pad, high + pad), reach


def loss_axis(losses: Sequence[Sequence[float]]) -> Axis:
    """Logarithmic, unless a loss is negative; a run that exploded leaves through the top instead of flattening all."""
    tame = [_tame(loss) for curve in losses for loss in curve]
    top = min(max(tame), 1000 * abs(median_low(_tame(curve[0]) for curve in losses)) or HUGE)
    positive = [loss for loss in tame if 0 < loss <= top]
    if min(tame) < 0 or not positive:
        pad = 0.06 * (top - min(tame)) or 1.0
        return Axis(min(tame) - pad, top + pad)
    return Axis(max(min(positive), 1e-8 * top) / 1.2, top * 1.2, logarithmic=True)


def rate_axis(rates: Sequence[Sequence[float]]) -> Axis:
    """Linear from 0, or logarithmic where the peaks of the runs differ so much that some would lie on the floor."""
    peaks = [peak for curve in rates if (peak := _tame(max(curve))) > 0]
    if not peaks:
        return Axis(0, 1)
    if max(peaks) > 10 * min(peaks):
        return Axis(min(peaks) / 30, max(peaks) * 1.2, logarithmic=True)
    return Axis(0, max(peaks) * 1.08)


class Painter:
    """The plots of some runs.

    Args:
        kind: which score it is.
        original: the original's score; None where it is not known.
        allowed: how much may be lost.
        split: the samples that the scores are from.
    """

    def __init__(
        self, runs: Sequence[Run], kind: str, original: float | None, allowed: float | None, split: str
    ) -> None:
        self.runs, self.kind, self.split = runs, kind, split
        self.levels: list[tuple[str, float, str]] = []
        if original is not None:
            self.levels.append(("original", original, f"original {wording.score(original, kind)}"))
        if original is not None and allowed is not None:
            self.levels.append(("budget", original - allowed, f"{wording.drop(allowed, kind)} below the original"))

    def plots(self, x: Axis) -> list[Plot]:
        """Score, loss and learning rate over the steps on ``x``, as far as there are any; the last names the axis."""
        found = [self._scores(x)] if any(run.judged for run in self.runs) else []
        found += [self._losses(x), self._rates(x)] if any(run.windows for run in self.runs) else []
        named = f"training steps{' (log scale)' if x.bend else ''}"
        return [replace(plot, x_title=named if plot is found[-1] else "") for plot in found]

    def _scores(self, x: Axis) -> Plot:
        tracks = {run.place: run.judged for run in self.runs if run.judged}
        levels = [_tame(level) for _, level, _ in self.levels]
        axis, reach = score_axis([[_tame(score) for _, score in track] for track in tracks.values()], levels)
        strip = STRIP if any(_tame(score) < reach for track in tracks.values() for _, score in track) else 0
        bottom = HEIGHTS["score"] - strip

        def height(score: float) -> float:
            return bottom + strip / 2 if score < reach else bottom * (1 - axis.share(score))

        decimals = _decimals(axis, 6, self.kind in wording.SHARE_SCORES)
        y_ticks = [(height(v), _score_tick(v, decimals, self.kind)) for v in axis.ticks(6)]
        places = _places(tracks, x, height)
        marks = [self._mark(style, height(_tame(level)), text, places) for style, level, text in self.levels]
        title = f"{wording.score_name(self.kind)} on the {self.split}"
        drawn = self._plot("score", title, places, x, lambda k: wording.score(tracks[k][-1][1], self.kind))
        ends = self._ends(places, marks, bottom)
        return replace(drawn, y_ticks=y_ticks, marks=marks, ends=ends, strip=strip)

    def _losses(self, x: Axis) -> Plot:
        tracks = {run.place: [(w[0], w[1]) for w in run.windows] for run in self.runs if run.windows}
        axis = loss_axis([[loss for _, loss in track] for track in tracks.values()])
        places = _places(tracks, x, lambda loss: HEIGHTS["loss"] * (1 - axis.share(loss)))
        title = f"training loss{' (log scale)' if axis.logarithmic else ''}"
        drawn = self._plot("loss", title, places, x, lambda k: number(tracks[k][-1][1]))
        return replace(drawn, y_ticks=_ticks(axis, "loss", 8), ends=self._ends(places, [], HEIGHTS["loss"]))

    def _rates(self, x: Axis) -> Plot:
        tracks = {run.place: [(w[0], w[2]) for w in run.windows] for run in self.runs if run.windows}
        axis = rate_axis([[rate for _, rate in track] for track in tracks.values()])
        places = _places(tracks, x, lambda rate: HEIGHTS["rate"] * (1 - axis.share(rate)))
        title = f"learning rate{' (log scale)' if axis.logarithmic else ''}"
        drawn = self._plot("rate", title, places, x, lambda k: number(tracks[k][-1][1]))
        return replace(drawn, y_ticks=_ticks(axis, "rate", 2))

    def _plot(self, kind: str, title: str, places: dict[int, list[Place]], x: Axis, last: Callable[[int], str]) -> Plot:
        """The box with its lines; ``last`` says where a curve ends."""
        dotted = kind == "score" and sum(map(len, places.values())) <= MOST_DOTS
        said = "; ".join(f"{self.runs[k].name} ends at {last(k)}" for k in places)
        return Plot(
            kind,
            title,
            HEIGHTS[kind],
            [_line(k, line, dotted) for k, line in places.items()],
            [(round(100 * x.share(step), 2), _step_tick(step)) for step in x.ticks(5)],
            [],
            "",
            [],
            [],
            0,
            f"{title}, against training steps: {said}",
        )

    @staticmethod
    def _mark(style: str, y: float, text: str, places: dict[int, list[Place]]) -> Mark:
        """With its text where the fewest lines run through it."""
        lines = [_pixels(line) for line in places.values()]
        sides = [Mark(style, round(y, 1), text, right) for right in (False, True)]
        return min(sides, key=lambda mark: sum(mark.box().crossed_by(line) for line in lines))

    def _ends(self, places: dict[int, list[Place]], marks: Sequence[Mark], bottom: float) -> list[EndLabel]:
        """Names of the runs that reach the right edge, in the margin; of the others, those for which there is room."""
        ends = {k: line[-1] for k, line in places.items()}
        at_edge = [k for k, (x, _) in ends.items() if x >= AT_THE_EDGE]
        heights = spread([ends[k][1] for k in at_edge], 0.0, bottom)
        labels = [
            EndLabel(at_edge[n], self.runs[at_edge[n]].name, 100.0, round(y, 1), False) for n, y in heights.items()
        ]
        lines = [_pixels(line) for line in [*places.values(), *([(0.0, mark.y), (1.0, mark.y)] for mark in marks)]]
        taken = [mark.box() for mark in marks]
        for k, (x, y) in ends.items():
            left, width, name = x * NOMINAL_WIDTH + 6, text_width(self.runs[k].name), self.runs[k].name
            box = Box(left, y - LABEL_HEIGHT / 2, left + width, y + LABEL_HEIGHT / 2)
            free = box.right <= NOMINAL_WIDTH and not any(map(box.meets, taken)) and not any(map(box.crossed_by, lines))
            if x < AT_THE_EDGE and free:
                taken.append(box)
                labels.append(EndLabel(k, name, round(100 * x, 2), round(y, 1), True))
        return labels


def _places(
    tracks: dict[int, list[tuple[int, float]]], x: Axis, height: Callable[[float], float]
) -> dict[int, list[Place]]:
    """Each point as its share of the width and its height in pixels."""
    return {k: [(x.share(step), height(_tame(value))) for step, value in track] for k, track in tracks.items()}


def _pixels(line: Sequence[Place]) -> list[Place]:
    return [(x * NOMINAL_WIDTH, y) for x, y in line]


def _line(curve: int, line: Sequence[Place], dotted: bool) -> Line:
    spots = [f"{x * WIDTH:.4g} {y:.4g}" for x, y in line]
    dots = "".join(f"M{spot}h.01" for spot in spots) if dotted else ""
    return Line(curve, ",".join(spots), dots)


def _step_tick(step: float) -> str:
    return f"{step:,.0f}" if step < 1e5 else f"{step / 1000:,.10g} k" if step < 1e6 else f"{step / 1e6:,.10g} M"


def _tame(value: float) -> float:
    return 0.0 if abs(value) < 1 / HUGE else max(-HUGE, min(HUGE, value))


def _ticks(axis: Axis, kind: str, most: int) -> list[tuple[float, str]]:
    return [(round(HEIGHTS[kind] * (1 - axis.share(v)), 1), round_number(v)) for v in axis.ticks(most)]


def _decimals(axis: Axis, most: int, percent: bool) -> int:
    """Digits after the point that tell the ticks of a score apart."""
    step = step_size(axis.low, axis.high, most) * (100 if percent else 1)
    return max(0, -floor(log10(step) + 1e-9))


def _score_tick(value: float, decimals: int, kind: str) -> str:
    text = f"{100 * value:.{decimals}f}%" if kind in wording.SHARE_SCORES else f"{value:,.{decimals}f}"
    return text.replace("-", wording.MINUS)
