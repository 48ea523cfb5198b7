"""What the page draws, against slow twins and the certificate's own numbers."""

import random

import pytest

from slimline.report.drawing import Point, bars, curves, envelope, front
from tests.report.fixture import GROUPS, LAYERS, ROWS, certificate, certificate_data


def test_a_point_for_every_trial_with_a_latency_and_a_score() -> None:
    points = front(certificate())["points"]
    expected = {row[0]: (row[6], row[5]) for row in ROWS if row[5] is not None and row[6] is not None}
    assert {p["trial"]: (p["x"], p["y"]) for p in points} == expected
    assert len(points) == 14


def test_area_is_size() -> None:
    points = {p["trial"]: p for p in front(certificate())["points"]}
    assert points[13]["share"] / points[6]["share"] == pytest.approx(432_640 / 1_281_777)
    assert max(p["share"] for p in points.values()) == 1.0


def test_colour_is_the_runtime_and_shape_the_precision() -> None:
    points = front(certificate())["points"]
    runtimes = {row[0]: row[2] for row in ROWS}
    precisions = {row[0]: row[3] for row in ROWS}
    for a in points:
        for b in points:
            assert (a["colour"] == b["colour"]) == (runtimes[a["trial"]] == runtimes[b["trial"]])
            assert (a["shape"] == b["shape"]) == (precisions[a["trial"]] == precisions[b["trial"]])


def test_only_the_best_and_the_originals_are_labelled() -> None:
    labels = {p["trial"]: p["label"] for p in front(certificate())["points"] if p["label"]}
    assert labels == {0: "original, torch", 1: "original, onnxruntime", 2: "original, openvino", 13: "best"}


def test_the_line_rises_from_the_fastest_and_leaves_out_what_another_beats() -> None:
    drawn = front(certificate())
    assert drawn["line"] == [13, 6, 4, 3]  # 9 and 8 are on the front for their size only
    assert [p["trial"] for p in drawn["points"] if p["front"]] == [3, 4, 6, 8, 9, 13]


def _point(trial: int, x: float, y: float, on_front: bool) -> Point:
    return Point(trial, x, y, 1.0, 1, "circle", "kept", on_front, "", "", "", [], [])


def test_envelope_agrees_with_the_slow_twin() -> None:
    for _ in range(100):
        points = [
            _point(n, random.randint(1, 9), random.randint(1, 9) / 10, random.random() < 0.7)
            for n in range(random.randint(0, 12))
        ]
        mine = [p for p in points if p.front]
        unbeaten = {
            (p.x, p.y) for p in mine if not any(q.x <= p.x and q.y >= p.y and (q.x, q.y) != (p.x, p.y) for q in mine)
        }
        line = [points[trial] for trial in envelope(points)]
        assert [(p.x, p.y) for p in line] == sorted(unbeaten)


def test_the_budget_lies_below_the_original() -> None:
    assert front(certificate())["budget"] == pytest.approx(0.9142 - 0.01)
    data = certificate_data()
    data["study"] = [t for t in data["study"] if t["recipe"]]
    assert front(certificate(data))["budget"] is None


def test_every_point_tells_its_recipe_and_why_it_was_dropped() -> None:
    points = {p["trial"]: p for p in front(certificate())["points"]}
    for row in ROWS:
        if row[0] in points:
            assert points[row[0]]["recipe"] == (row[4] or ["the network as it came"])
            facts = dict(points[row[0]]["facts"])
            assert facts.get("Why") == row[11]


def test_bars_are_true_to_scale() -> None:
    largest = max(row[4] for row in LAYERS)
    for bar, row in zip(bars(certificate().layers), LAYERS, strict=True):
        assert bar.before == pytest.approx(100 * row[4] / largest, abs=0.01)
        assert bar.after == pytest.approx(100 * (row[5] or 0) / largest, abs=0.01)
        assert ("removed" in bar.text) == (row[5] is None)
    assert bars([]) == []


def test_curves_share_one_scale_and_the_most_harmed_group_comes_first() -> None:
    drawn = curves(certificate().sensitivity)
    assert [c.group for c in drawn] == ["stem", "stage1", "stage2", "block1", "block2", "stage3"]
    damages = {name: dict(options) for name, _, _, options, _ in GROUPS}
    worst = max(max(d.values()) for d in damages.values())
    for curve in drawn:
        for x, y, text in curve.dots:
            width = round((x - 3) / 94 * curve.width)
            assert (36 - y) / 32 == pytest.approx(damages[curve.group][width] / worst, abs=1e-3)
            assert text.startswith(f"{width} of {curve.width} channels")


def test_a_group_without_options_or_time_is_still_shown() -> None:
    data = certificate_data()
    data["sensitivity"][0] |= {"options": [], "ms_per_channel": None}
    last = curves(certificate(data).sensitivity)[-1]
    assert (last.group, last.dots, last.cost) == ("stem", [], "time per channel not measured")
