"""The page as text: its numbers are the certificate's, and no string of the certificate becomes markup."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from slimline.errors import SlimlineError
from slimline.report.html import render, write_report
from tests.report.fixture import ROWS, certificate, certificate_data, hostile, hostile_data

TIMES = "\N{MULTIPLICATION SIGN}"


class Page(HTMLParser):
    """Visible text, elements and tables of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.rows: dict[str, list[str]] = {}
        self._row = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "tr":
            self._row = dict(attrs).get("id") or ""
            self.rows[self._row] = []
        if tag in ("td", "th"):
            self.rows[self._row].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self._row = "outside"

    def handle_data(self, data: str) -> None:
        inside = self.tags[-1][0] if self.tags else ""
        if inside == "script" and self.scripts[-1][1] == "":
            self.scripts[-1] = (self.scripts[-1][0], data)
        elif inside != "style" and data.strip():
            self.text.append(" ".join(data.split()))
            if self.rows.get(self._row):
                self.rows[self._row][-1] += " " + " ".join(data.split())

    @property
    def words(self) -> str:
        """All visible text."""
        return " ".join(self.text)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(certificate()))


def test_the_verdict_and_its_sentence_come_first(page: Page) -> None:
    assert page.words.index("PASS") < page.words.index("4.9 times faster") < page.words.index("Original against best")
    headings = re.findall(r"<h2>(.*?)</h2>", render(certificate()))
    assert headings[4:] == [
        *("Original against best", "The front", "Layers before and after", "Sensitivity", "Training"),
        *("Every trial", "How it was measured", "Machine, versions, hashes"),
    ]


@pytest.mark.parametrize(
    "shown",
    [
        f"95% interval 4.71{TIMES} to 5.16{TIMES}",
        "at most 0.74 points with 95% confidence; 1.00 point allowed",
        "432,640 bytes",
        "between 0.985 and 1.016",
        "1,024 to calibrate, 1,500 to steer the search and 3,500 to certify",
        "15 trials in 9 min 41 s, seed 0",
        "AMD EPYC 9554 64-Core Processor",
        "avx2, avx512_vnni",
        "a3" * 32,
        "5c" * 32,
        "0d" * 32,
        f"112 {TIMES} 48 {TIMES} 3 {TIMES} 3",
        "4.72 M \N{RIGHTWARDS ARROW} 885 k",
        "0.00213 ms per channel",
        "trial 99: the same network as trial 9",
    ],
)
def test_numbers_are_those_of_the_certificate(page: Page, shown: str) -> None:
    assert shown in page.words


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"score": "accuracy", "labels": True}, "The score was computed with labels."),
        ({"score": "cosine", "labels": False}, "The score reads no labels: the original network's answers are"),
        ({"score": "agreement", "labels": True}, "The score reads no labels: the original network's answers are"),
        ({"score": "custom", "labels": False}, "There were no labels: the original network's answers are"),
    ],
)
def test_it_says_whether_labels_were_read_and_what_the_score_is(task: dict[str, Any], said: str) -> None:
    data = certificate_data()
    data["task"] = {**task, "what": "the score in so many words"}
    words = Page(render(certificate(data))).words
    assert said in words and "The score is from the certify split: the score in so many words." in words


def test_every_trial_has_its_row_with_its_numbers(page: Page) -> None:
    for trial, _, runtime, precision, recipe, score, ms, size, macs, seconds, status, why in ROWS:
        cells = page.rows[f"trial-{trial}"]
        assert int(cells[0]) == trial
        assert cells[1].split() == [runtime, precision]
        shown = [cell.split()[0] for cell in cells[2:4]]
        if score is None or ms is None:
            assert shown == ["\N{EN DASH}", "\N{EN DASH}"]
        else:
            assert float(shown[0]) == pytest.approx(ms, rel=0.005)
            assert float(shown[1].rstrip("%")) == pytest.approx(100 * score, abs=0.005)
            assert float(cells[4]) == pytest.approx(100 * (0.9142 - score), abs=0.0051)
        units = {"B": 1, "kB": 1e3, "MB": 1e6, "M": 1e6, "k": 1e3}
        for cell, value in ((cells[5], size), (cells[6], macs)):
            number, unit = cell.split()
            assert float(number) * units[unit] == pytest.approx(value, rel=0.005)
        assert status in cells[8] and (why is None or why in cells[8])
        assert cells[9].split() == " ".join(recipe or ["the network as it came"]).split()
        assert seconds > 0 and cells[7].strip()


def test_two_reasons_for_one_trial_are_both_told(page: Page) -> None:
    assert page.rows["trial-14"][8].count("export failed") == 2
    assert page.rows["trial-7"][8].count("trial 6 is faster and better") == 1


def test_the_sort_keys_are_the_exact_numbers() -> None:
    html = render(certificate())
    row = html[html.index('id="trial-13"') : html.index('id="trial-14"')]
    assert re.findall(r'data-sort="([^"]*)"', row) == ["13", "0.112", "0.9121", "0.0021", "432640", "8204288", "148.9"]


def test_limits_are_shown_only_when_there_are_any(page: Page) -> None:
    assert "What was not reached" not in page.words
    data = certificate_data() | {"limits": ["The best latency is 3 ms, above the 2 ms asked for."]}
    assert "above the 2 ms asked for" in Page(render(certificate(data))).words


@pytest.mark.parametrize(("verdict", "style"), [("PASS", "pass"), ("FAIL", "fail"), ("CAN'T TELL", "open")])
def test_each_verdict_has_its_badge(verdict: str, style: str) -> None:
    page = Page(render(certificate(certificate_data() | {"verdict": verdict})))
    badge = next(attributes for _, attributes in page.tags if attributes.get("id") == "verdict")
    assert badge["class"] == f"badge {style}"
    assert verdict in page.words


def test_an_almost_empty_certificate_still_makes_a_page() -> None:
    data = certificate_data() | {
        "front": [],
        "study": [],
        "layers": [],
        "sensitivity": [],
        "discarded": [],
        "training": [],
        "versions": {},
    }
    data["original"]["latency_ms"] = {}
    page = Page(render(certificate(data)))
    assert "No sensitivity table was made in this run." in page.words


def test_training_is_left_out_where_there_was_none() -> None:
    html = render(certificate(certificate_data() | {"training": []}))
    assert "<h2>Training" not in html and "#training" not in html[html.index("<body>") : html.index("<script")]
    shown = render(certificate())
    assert shown.index('href="#sensitivity"') < shown.index('href="#training"') < shown.index('href="#trials"')
    assert shown.index('id="sensitivity"') < shown.index('id="training"') < shown.index('id="trials"')


def test_training_is_compared_with_the_original_on_the_search_split() -> None:
    words = Page(render(certificate())).words  # 91.30% is the original's score on the certify split
    assert "original 91.42%" in words and "1.00 point below the original" in words
    data = certificate_data()
    data["study"] = [t for t in data["study"] if t["recipe"]]
    assert "original 91" not in Page(render(certificate(data))).words


def test_a_training_run_leads_to_its_trial_where_that_is_listed() -> None:
    data = certificate_data()
    data["study"] = data["study"][:12]
    html = render(certificate(data))
    assert re.findall(r'<a href="(#trial-\d+)">trial \d+</a>', html) == ["#trial-8", "#trial-11"]
    assert "trial 13" in html


def test_hostile_names_stay_text() -> None:
    calm, attacked = Page(render(certificate())), Page(render(certificate(hostile_data())))
    assert [tag for tag, _ in attacked.tags] == [tag for tag, _ in calm.tags]
    for (tag, ours), (_, theirs) in zip(calm.tags, attacked.tags, strict=True):
        assert ours.keys() == theirs.keys(), tag
    assert " ".join(hostile("layer stem").split()) in attacked.words
    assert not [a for _, attributes in attacked.tags for a in attributes if a.startswith("on")]


def test_the_embedded_data_cannot_end_its_script_and_reads_back() -> None:
    html = render(certificate(hostile_data()))
    (front, points), (training, curves), (_, _) = Page(html).scripts
    assert front["type"] == training["type"] == "application/json"
    assert not set("<>&'\N{LINE SEPARATOR}") & set(points + curves)
    assert json.loads(points)["points"][13]["recipe"][1] == hostile("recipe")
    assert json.loads(curves)["curves"][0]["name"] == hostile("t8 after pruning")
    assert html.lower().count("<script") == html.lower().count("</script") == 3


def test_only_the_page_s_own_script_may_run_and_nothing_may_be_loaded(page: Page) -> None:
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    script = next(text for attributes, text in page.scripts if "type" not in attributes)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None and "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    assert not [a for _, attributes in page.tags for a in attributes if a in ("src", "srcset", "action", "data")]
    for tag, attributes in page.tags:
        link = attributes.get("href") or "#"
        assert link.startswith("#") or (tag, link) == ("link", "data:,")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", render(certificate()))


def test_write_report_writes_the_page_and_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(certificate(), path)
    assert path.read_text(encoding="utf-8") == render(certificate())
    assert path.stat().st_size < 300_000
    with pytest.raises(SlimlineError, match="cannot be written"):
        write_report(certificate(), tmp_path / "nowhere" / "report.html")
