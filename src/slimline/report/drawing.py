"""What the page draws, as plain data: the front, the layers' bars and the sensitivity curves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slimline.report import wording
from slimline.report.certificate import Certificate, GroupSensitivity, LayerChange, StudyTrial

COLOURS = 6
"""Runtimes that get a colour of their own before they repeat; ``--series-1`` and so on in report.css."""
SHAPES = ("circle", "square", "triangle", "diamond", "pentagon", "cross")
STATUS = {
    "original": "the original",
    "kept": "kept",
    "dropped": "dropped",
    "finalist": "certified finalist",
    "best": "best",
}


@dataclass(frozen=True)
class Point:
    """One trial on the chart of the front."""

    trial: int
    x: float
    """Latency in ms."""
    y: float
    """Score on the search split."""
    share: float
    """Size on disk as a share of the largest; the marker's area. 0 where the size is unknown."""
    colour: int
    shape: str
    status: str
    front: bool
    label: str
    """Written beside the point; empty for all but the original and the best."""
    aria: str
    title: str
    facts: list[tuple[str, str]]
    recipe: list[str]


def front(certificate: Certificate) -> dict[str, Any]:
    """Points, the line through the front and the budget, ready for JSON.

    A point is drawn for every trial with a latency and a score. The front is chosen on speed, score and size together;
    the line passes through those of its trials that are also best on speed and score alone.
    """
    drawn = [t for t in certificate.study if t.latency_ms is not None and t.latency_ms > 0 and t.score is not None]
    colours, shapes = colour_of(certificate), shape_of(certificate)
    largest = max((t.size_bytes or 0 for t in drawn), default=0)
    chosen = {result.trial for result in certificate.front}
    kind = certificate.task.score
    points = [_point(t, kind, largest, colours[t.runtime], shapes[t.precision], t.trial in chosen) for t in drawn]
    reference = next((t.score for t in drawn if not t.recipe), None)
    allowed = certificate.budget.max_drop
    return {
        "points": [asdict(p) for p in points],
        "line": envelope(points),
        "percent": kind in wording.SHARE_SCORES,
        "budget": None if reference is None else reference - allowed,
        "budget_label": f"{wording.drop(allowed, kind)} below the original",
        "x_label": f"latency, ms per batch of {certificate.machine.batch} (log scale)",
        "y_label": f"{wording.score_name(kind) or 'score'} on the search split",
    }


def colour_of(certificate: Certificate) -> dict[str, int]:
    """Colour number by runtime, in the order in which the study met them."""
    runtimes = dict.fromkeys(t.runtime for t in certificate.study)
    return {runtime: number % COLOURS + 1 for number, runtime in enumerate(runtimes)}


def shape_of(certificate: Certificate) -> dict[str, str]:
    """Marker by precision, in the order in which the study met them."""
    precisions = dict.fromkeys(t.precision for t in certificate.study)
    return {precision: SHAPES[number % len(SHAPES)] for number, precision in enumerate(precisions)}


def envelope(points: Sequence[Point]) -> list[int]:
    """Trials of the front by rising latency, each with a higher score than every faster one."""
    line: list[Point] = []
    for point in sorted((p for p in points if p.front), key=lambda p: (p.x, -p.y)):
        if not line or point.y > line[-1].y:
            line.append(point)
    return [point.trial for point in line]


def _point(trial: StudyTrial, kind: str, largest: int, colour: int, shape: str, on_front: bool) -> Point:
    ms, score, size = (
        wording.milliseconds(trial.latency_ms),
        wording.score(trial.score, kind),
        wording.size(trial.size_bytes),
    )
    facts = [("Runtime", f"{trial.runtime}, {trial.precision}"), ("Latency", ms), ("Score", score)]
    facts += [("Score lost", wording.drop(trial.drop, kind)), ("Size", size), ("Status", STATUS[trial.status])]
    if trial.why:
        facts.append(("Why", trial.why))
    label = {"best": "best", "original": f"original, {trial.runtime}"}.get(trial.status, "")
    recipe = trial.recipe or ["the network as it came"]
    aria = (
        f"Trial {trial.trial}, {STATUS[trial.status]}: {trial.runtime} {trial.precision}, {ms}, score {score}, {size}. "
    )
    return Point(
        trial.trial,
        float(trial.latency_ms or 0),
        float(trial.score or 0),
        (trial.size_bytes or 0) / largest if largest else 0.0,
        colour,
        shape,
        trial.status,
        on_front,
        label,
        aria + "; ".join(recipe),
        f"Trial {trial.trial}",
        facts,
        recipe,
    )


@dataclass(frozen=True)
class Bar:
    """One layer's work before and after, as shares of the largest, in per cent."""

    name: str
    kind: str
    before: float
    after: float
    text: str


def bars(layers: Sequence[LayerChange]) -> list[Bar]:
    """A pair of bars per layer, in execution order."""
    largest = max((max(layer.macs_before, layer.macs_after or 0) for layer in layers), default=0) or 1
    return [
        Bar(
            layer.name,
            layer.kind,
            round(100 * layer.macs_before / largest, 2),
            round(100 * (layer.macs_after or 0) / largest, 2),
            f"{wording.count(layer.macs_before)} \N{RIGHTWARDS ARROW} "
            f"{'removed' if layer.macs_after is None else wording.count(layer.macs_after)}",
        )
        for layer in layers
    ]


@dataclass(frozen=True)
class Curve:
    """Damage against width of one group, in a box 100 wide and 40 high."""

    group: str
    layers: list[str]
    width: int
    line: str
    dots: list[tuple[float, float, str]]
    narrowest: int
    worst: str
    cost: str


def curves(groups: Sequence[GroupSensitivity]) -> list[Curve]:
    """Small multiples on one common scale of damage, the most harmed group first."""
    damage = [option.damage for group in groups for option in group.options]
    low, high = min([0.0, *damage]), max([0.0, *damage])
    span = high - low or 1.0
    ranked = sorted(groups, key=lambda g: -max((o.damage for o in g.options), default=0.0))
    return [_curve(group, low, span) for group in ranked]


def _curve(group: GroupSensitivity, low: float, span: float) -> Curve:
    options = sorted(group.options, key=lambda option: option.width)
    widest = max([group.width, *(o.width for o in options)]) or 1
    dots = [
        (
            round(3 + 94 * option.width / widest, 2),
            round(36 - 32 * (option.damage - low) / span, 2),
            f"{option.width} of {group.width} channels: damage {wording.significant(option.damage)}",
        )
        for option in options
    ]
    ms = group.ms_per_channel
    cost = "time per channel not measured" if ms is None else f"{wording.significant(ms)} ms per channel"
    return Curve(
        group.group,
        group.layers,
        group.width,
        " ".join(f"{x},{y}" for x, y, _ in dots),
        dots,
        options[0].width if options else group.width,
        wording.significant(max((o.damage for o in options), default=0.0)),
        cost,
    )
