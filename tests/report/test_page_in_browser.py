"""The page in headless Chromium: it runs, loads nothing, can be read and used with mouse, keyboard and finger."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slimline.report.html import write_report
from slimline.report.training import write_training_page
from tests.report.fixture import (
    ROWS,
    certificate,
    certificate_data,
    curve_data,
    hostile,
    hostile_data,
    training_data,
)

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]

if importlib.util.find_spec("playwright") is None:
    pytest.skip("the package playwright is not installed: pip install -e '.[dev]'", allow_module_level=True)
if CHROMIUM is None:
    pytest.skip("no program named chromium was found: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

Open = Callable[..., Page]

CONTRAST = """() => {
  const channels = (text) => { const [r, g, b, a = 1] = text.match(/[0-9.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, under) => [0, 1, 2].map((k) => top[k] * top[3] + under[k] * (1 - top[3]));
  const behind = (node) => {
    if (!node) return [255, 255, 255];
    const own = channels(getComputedStyle(node).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(node.parentElement));
  };
  const light = (c) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = c.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement, style = getComputedStyle(node);
    if (!walk.currentNode.textContent.trim() || !node.getClientRects().length) continue;
    const back = behind(node), text = node.ownerSVGElement ? style.fill : style.color;
    const [a, b] = [light(over(channels(text), back)), light(back)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walk.currentNode.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a certificate's page, or that of its training alone.

    At the end there must have been no error, no message and no other request.
    """
    complaints: list[str] = []
    requests: list[str] = []
    pages = []
    path = tmp_path / "report.html"

    def opened(data: dict[str, Any] | None = None, width: int = 1280, alone: bool = False, **settings: Any) -> Page:
        if alone:
            write_training_page(certificate(data).training, path, "Training", 0.9142, 0.01, kind="accuracy")
        else:
            write_report(certificate(data), path)
        page = browser.new_page(viewport={"width": width, "height": 800}, **settings)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not complaints
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()] * len(pages)


def test_the_front_has_a_point_for_every_trial_with_latency_and_score(open_page: Open) -> None:
    page = open_page()
    drawn = page.locator("#front-chart .point-mark").evaluate_all("nodes => nodes.map(n => Number(n.dataset.trial))")
    assert sorted(drawn) == [row[0] for row in ROWS if row[5] is not None and row[6] is not None]


def test_marks_lie_where_their_numbers_say(open_page: Open) -> None:
    page = open_page()
    read = "nodes => nodes.map(n => [n.dataset.trial, ...n.getAttribute('transform').match(/[0-9.]+/g)].map(Number))"
    places = {trial: (x, y) for trial, x, y in page.locator(".point-mark").evaluate_all(read)}
    ms, score = {row[0]: row[6] for row in ROWS}, {row[0]: row[5] for row in ROWS}
    for a in places:
        for b in places:
            if ms[a] < ms[b]:
                assert places[a][0] < places[b][0]
            if score[a] > score[b]:
                assert places[a][1] < places[b][1]


@pytest.mark.parametrize("trial", [0, 9, 11, 13])
def test_hovering_a_point_shows_its_recipe(open_page: Open, trial: int) -> None:
    page = open_page()
    page.locator(f'[data-trial="{trial}"]').hover(force=True)
    shown = page.locator("#front-detail").inner_text()
    row = ROWS[trial]
    assert f"Trial {trial}" in shown and f"{row[2]}, {row[3]}" in shown
    for line in row[4] or ["the network as it came"]:
        assert line in shown
    assert row[11] is None or row[11] in shown


def test_a_tap_shows_the_recipe(open_page: Open) -> None:
    page = open_page(width=360, has_touch=True)
    page.locator('[data-trial="8"]').tap(force=True)
    assert "PruneChannels(keep=0.75)" in page.locator("#front-detail").inner_text()


def test_points_are_reached_with_the_keyboard_in_order_of_latency(open_page: Open) -> None:
    page = open_page()
    page.locator('.point-mark[tabindex="0"]').focus()
    by_latency = [row[0] for row in sorted((r for r in ROWS if r[6] is not None), key=lambda r: r[6])]
    place = by_latency.index(13)
    for step in range(1, len(by_latency) + 1):
        page.keyboard.press("ArrowRight")
        trial = by_latency[(place + step) % len(by_latency)]
        assert page.evaluate("Number(document.activeElement.dataset.trial)") == trial
        assert page.locator("#front-detail h3").inner_text() == f"Trial {trial}"
    assert page.locator('.point-mark[tabindex="0"]').count() == 1
    label = page.locator('[data-trial="13"]').get_attribute("aria-label")
    assert label is not None and "0.112 ms" in label and "DistillLogits(epochs=12)" in label


def test_a_link_leads_to_the_row_of_the_table(open_page: Open) -> None:
    page = open_page()
    page.locator('[data-trial="9"]').hover(force=True)
    page.get_by_text("Show in the table").click()
    assert page.evaluate("document.querySelector(':target').id") == "trial-9"


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_the_body_never_scrolls_sideways(open_page: Open, width: int) -> None:
    data = certificate_data()
    data["layers"][0]["name"] = "a_very_long_name_without_any_place_to_break_it" * 3
    data["best"]["artifact"] = "best/" + "x" * 200
    page = open_page(data, width=width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 1280])
def test_best_and_originals_are_labelled_and_no_label_overlaps_another(open_page: Open, width: int) -> None:
    page = open_page(width=width)
    read = "nodes => nodes.map(n => [n.textContent, n.getBBox()]).map(([t, b]) => [t, b.x, b.y, b.width, b.height])"
    found = page.locator("#front-chart text").evaluate_all(read)
    boxes = [(text, x, y, x + width, y + height) for text, x, y, width, height in found]
    texts = [box[0] for box in boxes]
    assert "best" in texts and sum(text.startswith("original") for text in texts) >= 2
    right = page.evaluate("document.querySelector('#front-chart svg').viewBox.baseVal.width")
    for number, (text, x, y, x2, y2) in enumerate(boxes):
        assert x >= -0.5 and x2 <= right + 0.5, f"{text} leaves the chart"
        for other, left, top, end, bottom in boxes[number + 1 :]:
            assert x2 <= left or end <= x or y2 <= top + 3 or bottom <= y + 3, f"{text} overlaps {other}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "CAN'T TELL"])
def test_all_text_can_be_read(open_page: Open, scheme: str, verdict: str) -> None:
    page = open_page(certificate_data() | {"verdict": verdict, "limits": ["a limit"]}, color_scheme=scheme)
    found = page.evaluate(CONTRAST)
    assert len(found) > 200
    assert [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightest = max(int(value) for value in background.removeprefix("rgb(").removesuffix(")").split(","))
    assert brightest < 64 if scheme == "dark" else brightest > 192


def test_paper_is_white_in_dark_mode_too(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_columns_sort_by_number_and_what_is_missing_comes_last(open_page: Open) -> None:
    page = open_page()
    order = "rows => rows.map(row => Number(row.cells[0].textContent))"
    heading = page.get_by_role("button", name="latency")
    timed = [row for row in ROWS if row[6] is not None]
    for falling in (False, True):
        heading.click()
        expected = [row[0] for row in sorted(timed, key=lambda row: -row[6] if falling else row[6])]
        assert page.locator("#trials tbody tr").evaluate_all(order) == [*expected, 14]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_hostile_names_run_nothing_and_are_shown_as_they_are(open_page: Open) -> None:
    page = open_page(hostile_data())
    page.locator('[data-trial="13"]').hover(force=True)
    shown = page.locator("#front-detail").text_content()
    assert shown is not None and hostile("recipe") in shown
    assert page.locator("img").count() == 0 and page.locator("script").count() == 3


def test_without_a_timed_trial_the_chart_says_so(open_page: Open) -> None:
    data = certificate_data() | {"front": []}
    data["study"] = [trial | {"latency_ms": None} for trial in data["study"]]
    page = open_page(data)
    assert page.locator("#front-chart").inner_text() == "No trial has both a latency and a score."


@pytest.mark.parametrize("count", [1, 2])
def test_a_chart_of_few_trials_has_finite_places(open_page: Open, count: int) -> None:
    data = certificate_data()
    data["study"] = data["study"][:count]
    page = open_page(data)
    assert page.locator(".point-mark").count() == count
    assert "NaN" not in page.locator("#front-chart").inner_html()


POLYLINES = """nodes => nodes.filter(n => n.getClientRects().length && n.getTotalLength() > 0)
  .map(n => [n.closest('.plot').dataset.kind, Number(n.closest('g').dataset.curve)])"""


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_every_training_run_has_its_lines_with_and_without_javascript(
    open_page: Open, alone: bool, script: bool
) -> None:
    page = open_page(alone=alone, java_script_enabled=script)
    expected = {("loss", k) for k in range(4)} | {("rate", k) for k in range(4)} | {("score", k) for k in range(3)}
    assert {tuple(found) for found in page.locator("#training polyline").evaluate_all(POLYLINES)} == expected
    for name in ("log", "linear"):
        page.locator(f"#steps-{name}").check()
        assert [page.locator(f".plots.{other}").is_visible() for other in ("log", "linear")] == [
            name == "log",
            name == "linear",
        ]
    assert page.locator("#training-detail").inner_text().startswith(" t8 after pruning" if script else "")


def _pointed_at(page: Page, kind: str, curve: int, index: int) -> tuple[float, float]:
    """Where on the screen a point of a visible line is, by the line's own coordinates."""
    node = page.locator(f'.plots.log [data-kind="{kind}"] [data-curve="{curve}"] polyline')
    node.scroll_into_view_if_needed()
    x, y = node.evaluate(
        """(n, k) => { const p = n.points[k], box = n.ownerSVGElement.getBoundingClientRect();
        return [box.left + p.x * box.width / 1000, box.top + p.y]; }""",
        index,
    )
    return x, y


@pytest.mark.parametrize(
    ("kind", "curve", "index"), [("score", 2, 3), ("score", 1, 0), ("loss", 2, 60), ("rate", 2, 60)]
)
def test_pointing_at_a_line_shows_its_numbers(open_page: Open, kind: str, curve: int, index: int) -> None:
    page, data = open_page(alone=True), training_data()[curve]
    page.mouse.move(*_pointed_at(page, kind, curve, index))
    shown = page.locator("#training-detail").inner_text()
    step = data["judged" if kind == "score" else "steps"][index]
    assert data["name"] in shown and f"{step:,} of {data['planned']:,}" in shown and data["method"] in shown
    if kind == "score":
        assert f"{100 * data['scores'][index]:.2f}%" in shown
    else:
        assert f"{data['losses'][index]:.3g}" in shown and f"{data['rates'][index]:.3g}" in shown
        assert "25.0%" in shown
    marked = page.locator(f'.plots.log [data-kind="{kind}"] .now').bounding_box()
    at = _pointed_at(page, kind, curve, index)
    assert marked is not None
    assert (marked["x"] + marked["width"] / 2, marked["y"] + marked["height"] / 2) == pytest.approx(at, abs=1)


def test_a_tap_on_a_telephone_shows_the_numbers_beside_the_plot(open_page: Open) -> None:
    page = open_page(width=400, has_touch=True)
    page.touchscreen.tap(*_pointed_at(page, "loss", 2, 60))
    detail = page.locator("#training-detail")
    assert "1,220 of 2,400" in detail.inner_text()
    box = detail.bounding_box()
    assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 800


def test_arrow_keys_go_along_a_line_and_to_the_next(open_page: Open) -> None:
    page = open_page(alone=True)
    page.locator('.plots.log [data-kind="score"] svg').focus()
    seen = []
    keys = ["Home", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "End"]
    for key in keys:
        page.keyboard.press(key)
        name, step = page.locator("#training-detail").evaluate(
            "n => [n.querySelector('h3').textContent.trim(), n.querySelector('dd').textContent]"
        )
        seen.append((name.split()[0], step.split()[0]))
    assert seen == [
        *[("t8", "0"), ("t8", "100"), ("t8", "200"), ("t8", "100"), ("t11", "100")],
        *[("t13", "0"), ("t8", "0"), ("t13", "0"), ("t13", "2,400")],
    ]


@pytest.mark.parametrize("width", [400, 700, 1000, 1280])
@pytest.mark.parametrize("count", [3, 30])
def test_no_name_and_no_number_in_a_training_plot_covers_another(open_page: Open, width: int, count: int) -> None:
    runs = [curve_data(f"run {k}", 10_000 // (1 + k % 3), k, 0.1, 0.92 - k / 400) for k in range(count)]
    page = open_page(certificate_data() | {"training": runs}, width=width, alone=True)
    read = """nodes => nodes.filter(n => n.getClientRects().length)
        .map(n => { const text = document.createRange(); text.selectNodeContents(n); return [n, text]; })
        .map(([n, text]) => [n.textContent, text.getBoundingClientRect(), n.closest('.plot').dataset.kind])
        .map(([t, b, kind]) => [kind, t, b.left, b.top, b.right, b.bottom])"""
    boxes = page.locator("#training-plots b").evaluate_all(read)
    assert len(boxes) > 20
    for number, (kind, text, left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and right <= width, f"{text} leaves the page"
        for other_kind, other, x, y, x2, y2 in boxes[number + 1 :]:
            apart = right <= x + 1 or x2 <= left + 1 or bottom <= y + 3 or y2 <= top + 3
            assert kind != other_kind or apart, f"{text} covers {other} in the plot of the {kind}"
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_stand_out_from_the_page_and_its_text_can_be_read(open_page: Open, scheme: str) -> None:
    runs = [curve_data(f"run {k}", 400, k, 0.1, 0.9) for k in range(6)]
    page = open_page(certificate_data() | {"training": runs}, alone=True, color_scheme=scheme)
    assert [text for ratio, text in page.evaluate(CONTRAST) if ratio < 4.5] == []
    strokes = page.locator(".plots polyline").evaluate_all("nodes => nodes.map(n => getComputedStyle(n).stroke)")
    assert len(set(strokes)) == 6


def test_hostile_curves_run_nothing_and_are_shown_as_they_are(open_page: Open) -> None:
    page = open_page(hostile_data(), alone=True)
    shown = page.locator("#training-detail").text_content()
    assert shown is not None and hostile("t8 after pruning") in shown
    assert page.locator("img").count() == 0 and page.locator("script").count() == 2


def test_training_prints_all_lines_and_nothing_for_the_mouse(open_page: Open) -> None:
    page = open_page(alone=True, width=700)
    page.emulate_media(media="print")
    assert len(page.locator("#training polyline").evaluate_all(POLYLINES)) == 11
    for hidden in ("#training-detail", "#steps-log", ".plots.log .hair >> nth=0", ".plots.log .now >> nth=0"):
        assert not page.locator(hidden).is_visible()
    table = page.locator("table.runs").bounding_box()
    assert table is not None and table["x"] + table["width"] <= 700
