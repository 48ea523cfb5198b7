"""The section about training and the page of its own: its numbers are the curves', whatever these are called."""

import json
import re
from pathlib import Path

import pytest

from slimline.errors import SlimlineError
from slimline.report.certificate import TrainingCurve
from slimline.report.html import render
from slimline.report.training import POINTS, Section, section, write_training_page
from tests.report.fixture import certificate, curve_data, hostile, hostile_data, training_data


def _curves() -> list[TrainingCurve]:
    return certificate().training


def _section(curves: list[TrainingCurve], kind: str = "accuracy") -> Section:
    shown = section(curves, kind, 0.9142, 0.01)
    assert shown is not None
    return shown


def _many() -> list[TrainingCurve]:
    """30 runs of 500 windows, each judged 500 times: more than any page can show point by point."""
    made = []
    for k in range(30):
        data = curve_data(f"run {k}", 10_000, k, 0.1, 0.9 - k / 1000)
        scores = [0.9 - 0.8 / (1 + n / 9) - k / 1000 for n in range(500)]
        made.append(TrainingCurve.model_validate(data | {"judged": data["steps"], "scores": scores}))
    return made


def _page(path: Path, curves: list[TrainingCurve], title: str = "Three ways to learn") -> str:
    write_training_page(curves, path, title, 0.9142, 0.01, kind="accuracy")
    return path.read_text(encoding="utf-8")


def test_every_run_has_its_row() -> None:
    rows = _section(_curves()).rows
    for row, data in zip(rows, training_data(), strict=True):
        assert (row.name, row.trial, row.method) == (data["name"], data["trial"], data["method"])
        assert row.done == f"{len(data['steps']) * 20:,} of {data['planned']:,}"
        assert row.first is not None and row.first[0] == data["losses"][0]
        assert row.last is not None and row.last[0] == data["losses"][-1]
        assert (row.best is None) == (not data["scores"])
    assert rows[2].best is not None
    assert rows[2].best[1] == f"{100 * max(training_data()[2]['scores']):.2f}% at step 2,400"


def test_a_run_that_was_never_at_a_window_is_still_listed() -> None:
    empty: dict[str, list[float]] = {"steps": [], "losses": [], "rates": [], "sparsity": [], "judged": [], "scores": []}
    shown = _section([TrainingCurve.model_validate(training_data()[0] | empty)])
    assert (shown.rows[0].first, shown.rows[0].last, shown.rows[0].best) == (None, None, None)
    assert shown.rows[0].done == "0 of 400" and shown.views[0].plots == []


def test_windows_in_any_order_are_drawn_by_step() -> None:
    data = training_data()[0]
    columns = ("steps", "losses", "rates", "sparsity", "judged", "scores")
    turned = TrainingCurve.model_validate(data | {name: data[name][::-1] for name in columns})
    assert _section([turned]) == _section([TrainingCurve.model_validate(data)])


def test_30_curves_differ_in_colour_and_dashes_and_neighbours_in_both() -> None:
    looks = [(row.colour, row.dash) for row in _section(_many()).rows]
    assert len(set(looks)) == 30
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in zip(looks, looks[1:], strict=False))


def test_every_drawn_point_has_its_numbers() -> None:
    for curves in (_curves(), _many()):
        shown = _section(curves)
        for view in shown.views:
            for plot in view.plots:
                for line in plot.lines:
                    numbers = shown.data["curves"][line.curve]
                    steps = numbers["judged" if plot.kind == "score" else "steps"]
                    assert len(line.points.split(",")) == len(steps) == len(numbers[plot.kind])


def test_the_numbers_at_a_point_are_those_of_its_step() -> None:
    curve = _many()[7]
    numbers = _section(_many()).data["curves"][7]
    loss, score = dict(zip(curve.steps, curve.losses, strict=True)), dict(zip(curve.judged, curve.scores, strict=True))
    assert 40 <= len(numbers["steps"]) <= POINTS // 30
    for step, text in zip(numbers["steps"], numbers["loss"], strict=True):
        assert float(text) == pytest.approx(loss[step], rel=5e-3)
    for step, text in zip(numbers["judged"], numbers["score"], strict=True):
        assert float(text.rstrip("%")) == pytest.approx(100 * score[step], abs=0.0051)


def test_zero_weights_are_told_only_where_there_are_any() -> None:
    numbers = _section(_curves()).data["curves"]
    assert numbers[0]["sparsity"] == [] and set(numbers[2]["sparsity"]) == {"25.0%"}


def test_a_score_of_its_own_kind_is_not_called_accuracy_or_shown_in_per_cent(tmp_path: Path) -> None:
    write_training_page(_curves(), tmp_path / "page.html", "title", 0.9142, 0.01)
    html = (tmp_path / "page.html").read_text()
    assert "score on the search split" in html and "original 0.9142" in html and "0.01000 below the original" in html
    assert "accuracy" not in html[html.index("<body>") : html.index("<script")]
    assert "cosine similarity to the original on the search split" in str(_section(_curves(), "cosine").views[0].plots)


def test_it_says_on_which_samples_the_scores_were_measured(tmp_path: Path) -> None:
    write_training_page(_curves(), tmp_path / "page.html", "title", 0.9, None, split=hostile("held-out samples"))
    html = (tmp_path / "page.html").read_text()
    assert "score on the held-out samples" in html and "mean on the held-out samples" in html
    assert "search split" not in html and "<img" not in html and "search split" in _page(tmp_path / "b", _curves())


def test_the_page_has_title_lines_table_and_notes(tmp_path: Path) -> None:
    html = _page(tmp_path / "page.html", _curves())
    assert "<title>Three ways to learn</title>" in html and "<h1>Three ways to learn</h1>" in html
    lines = re.findall(r'data-curve="(\d)"><polyline points="[\d., ]+"', html)
    assert len(lines) == 2 * (3 + 4 + 4)  # two scales of steps; the last run has no score
    assert "the loss exploded at step 40" in html and "400 of 400" in html
    assert '<a href="#trial' not in html  # the trials are not on this page


def test_the_page_and_the_report_show_the_same_section(tmp_path: Path) -> None:
    def cut(html: str) -> str:
        return html[html.index('<section id="training">') : html.index("</section>", html.index('id="training"'))]

    report = re.sub(r'<a href="#trial-\d+">(trial \d+)</a>', r"\1", cut(render(certificate())))
    assert cut(_page(tmp_path / "page.html", _curves())) == report


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    attacked = [TrainingCurve.model_validate(data) for data in hostile_data()["training"]]
    calm, html = _page(tmp_path / "a", _curves()), _page(tmp_path / "b", attacked, hostile("title"))
    assert re.findall(r"<[a-z/!]+", html) == re.findall(r"<[a-z/!]+", calm)
    data = re.search(r'id="training-data">(.*?)</script>', html)
    assert data is not None and json.loads(data[1])["curves"][0]["name"] == hostile("t8 after pruning")


def test_30_long_runs_make_a_small_page(tmp_path: Path) -> None:
    assert len(_page(tmp_path / "page.html", _many()).encode()) < 500_000
    assert sum(len(curve.steps) for curve in _many()) == 15_000


def test_what_cannot_be_shown_or_written_is_one_sentence(tmp_path: Path) -> None:
    assert section([], "accuracy", None, None) is None
    with pytest.raises(SlimlineError, match="There is no training run to show in .*page.html: give at least one"):
        write_training_page([], tmp_path / "page.html", "title", None, None)
    with pytest.raises(SlimlineError, match="cannot be written"):
        write_training_page(_curves(), tmp_path / "nowhere" / "page.html", "title", None, None)


def test_scores_are_drawn_against_the_original_on_the_same_samples() -> None:
    """A run judged on easier samples stands no higher for that: 0.96 where the original has 0.97 is a point below."""
    made = curve_data("plain", 20, None, 0.9, 0.93, judged=[0, 20], scores=[0.90, 0.93])
    plain = TrainingCurve.model_validate(made)
    easier = plain.model_copy(update={"name": "easier", "scores": [0.93, 0.96], "original": 0.97})
    shown = section([plain, easier], "accuracy", 0.94, 0.01)
    assert shown is not None
    assert [row.best[0] if row.best else None for row in shown.rows] == [0.93, pytest.approx(0.93)]
    unknown = section([plain, easier], "accuracy", None, None)
    assert unknown is not None and [row.best[0] if row.best else None for row in unknown.rows] == [0.93, 0.96]
