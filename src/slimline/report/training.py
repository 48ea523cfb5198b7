"""The training runs of a study, or of a program that only trains: curves, legend and table as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimline.errors import SlimlineError
from slimline.report import page, wording
from slimline.report.certificate import TrainingCurve, replace_file
from slimline.report.plot import number, thin
from slimline.report.training_plots import Painter, Plot, Run, step_axes

COLOURS = (2, 3, 4, 5, 6, 1)
"""``--series-2`` and so on in report.css; the grey comes last."""
DASHES = ("", "9 4", "2.5 3", "12 4 2.5 4", "6 3 2 3 2 3")
"""5 patterns and 6 colours go around at the same time, so that 30 curves differ and neighbours differ in both."""
SEARCH = "search split"
POINTS = 3000
"""Points drawn per plot, shared by its lines: a page of 30 long runs stays small."""


@dataclass(frozen=True)
class View:
    """The plots over one scale of steps."""

    name: str
    plots: list[Plot]


@dataclass(frozen=True)
class Row:
    """One curve in the legend and in the table; a number comes with the text that shows it."""

    name: str
    colour: int
    dash: str
    trial: int | None
    method: str
    steps: int
    done: str
    samples: int
    runs_on: str
    seconds: float
    first: tuple[float, str] | None
    last: tuple[float, str] | None
    best: tuple[float, str] | None


@dataclass(frozen=True)
class Section:
    """What the page shows about training."""

    rows: list[Row]
    views: list[View]
    """One, or two to choose from; the one to begin with comes first."""
    notes: list[tuple[str, str]]
    """Name of the curve and what is to be said about it."""
    data: dict[str, Any]
    """For the script: the numbers at the drawn points."""
    split: str
    """The samples on which the scores were measured, in words."""


def write_training_page(
    curves: Sequence[TrainingCurve],
    path: Path,
    title: str,
    original_score: float | None,
    allowed_drop: float | None,
    kind: str = "score",
    split: str = SEARCH,
) -> None:
    """Write a page of nothing but training curves to ``path``.

    Args:
        original_score: that of the original network on the samples on which the curves were judged.
        kind: which score it is, as ``task.score`` in a certificate: accuracy, for one, is shown in per cent.
        split: the samples on which the curves were judged, in words.

    Raises:
        SlimlineError: there is no curve, or the file cannot be written.
    """
    shown = section(curves, kind, original_score, allowed_drop, split)
    if shown is None:
        raise SlimlineError(f"There is no training run to show in {path}: give at least one curve.")
    seconds = sum(curve.seconds for curve in curves)
    replace_file(path, page.fill("training.html.jinja", title=title, training=shown, seconds=seconds))


def section(
    curves: Sequence[TrainingCurve], kind: str, original: float | None, allowed: float | None, split: str = SEARCH
) -> Section | None:
    """Everything the page says about ``curves``; None where there are none."""
    if not curves:
        return None
    most = max(40, min(400, POINTS // len(curves)))
    curves = [_compared(curve, original) for curve in curves]
    runs = [_run(place, curve, most) for place, curve in enumerate(curves)]
    painter = Painter(runs, kind, original, allowed, split)
    return Section(
        [_row(run, curve, kind) for run, curve in zip(runs, curves, strict=True)],
        [View(name, painter.plots(axis)) for name, axis in step_axes(runs)],
        [(curve.name, note) for curve in curves for note in curve.notes],
        {"curves": [_numbers(run, curve, kind) for run, curve in zip(runs, curves, strict=True)]},
        split,
    )


def _compared(curve: TrainingCurve, original: float | None) -> TrainingCurve:
    """The curve with its scores as far above or below ``original`` as they were above or below the original's score on
    the same samples: runs may be judged on different samples of a split, of which some are easier than others.
    """
    if curve.original is None or original is None:
        return curve
    shift = original - curve.original
    return curve.model_copy(update={"scores": [score + shift for score in curve.scores]})


def _run(place: int, curve: TrainingCurve, most: int) -> Run:
    windows = sorted(zip(curve.steps, curve.losses, curve.rates, curve.sparsity, strict=True), key=lambda w: w[0])
    judged = sorted(zip(curve.judged, curve.scores, strict=True), key=lambda j: j[0])
    return Run(
        place,
        curve.name,
        [windows[k] for k in thin([loss for _, loss, _, _ in windows], most)],
        [judged[k] for k in thin([score for _, score in judged], most)],
    )


def _look(place: int) -> tuple[int, str]:
    """Colour and dashes."""
    return COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]


def _row(run: Run, curve: TrainingCurve, kind: str) -> Row:
    done = max(curve.steps, default=0)
    losses = [(window[1], number(window[1])) for window in run.windows]
    best = max(run.judged, key=lambda j: j[1], default=None)
    return Row(
        curve.name,
        *_look(run.place),
        curve.trial,
        curve.method,
        done,
        f"{done:,} of {curve.planned:,}",
        curve.samples,
        f"{curve.device}, {curve.precision}",
        curve.seconds,
        losses[0] if losses else None,
        losses[-1] if losses else None,
        None if best is None else (best[1], f"{wording.score(best[1], kind)} at step {best[0]:,}"),
    )


def _numbers(run: Run, curve: TrainingCurve, kind: str) -> dict[str, Any]:
    """What the script shows of a curve, number by number as text."""
    colour, dash = _look(run.place)
    sparse = any(window[3] > 0 for window in run.windows)
    trial = [("Trial", str(curve.trial))] if curve.trial is not None else []
    return {
        "name": curve.name,
        "colour": colour,
        "dash": dash,
        "planned": f"{curve.planned:,}",
        "steps": [window[0] for window in run.windows],
        "loss": [number(window[1]) for window in run.windows],
        "rate": [number(window[2]) for window in run.windows],
        "sparsity": [f"{100 * window[3]:.1f}%" for window in run.windows] if sparse else [],
        "judged": [step for step, _ in run.judged],
        "score": [wording.score(score, kind) for _, score in run.judged],
        "facts": [
            *trial,
            ("Learned from", f"{curve.samples:,} samples" if curve.samples else "no data"),
            ("Method", curve.method),
        ],
    }
