"""The figures in README.md and docs/ are those of benchmarks/results."""

import json
from pathlib import Path
from typing import Any

import pytest

import tools.readme_figures
from slimline.errors import SlimlineError
from tools.readme_figures import ROOT, filled, main

DEMO: dict[str, Any] = {
    "verdict": "PASS",
    "speedup": 24.318,
    "speedup_vs_best_original": 3.2149,
    "speedup_vs_best_original_low": 3.05,
    "speedup_vs_best_original_high": 3.391,
    "speedup_vs_int8_only": 1.5,
    "size_ratio": 12.34,
    "drop": 0.00412,
    "drop_upper": 0.0079,
    "n": 7000,
    "seconds": 401.6,
}
TEXT = "before\n<!-- figures:demo -->\nold\n<!-- /figures -->\nafter\n"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put(tmp_path, "demo", DEMO)
    monkeypatch.setattr(tools.readme_figures, "RESULTS", tmp_path)
    return tmp_path


def put(folder: Path, name: str, summary: dict[str, Any]) -> None:
    result = {"summary": summary, "machine": {"cpu": "Some CPU", "threads": 2}}
    (folder / f"{name}.json").write_text(json.dumps(result))


def test_readme_and_docs_are_up_to_date() -> None:
    assert (ROOT / "README.md").is_file()
    assert main(["--check"]) == 0, "run make docs"


def test_the_demo_table_shows_the_numbers_of_the_file(results: Path) -> None:
    text = filled(TEXT, results)
    rows = dict(
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and " | " in line[2:]
    )
    assert rows == {
        "verdict": "**PASS**",
        "speed against the original in PyTorch eager": "24.32x",
        "speed against the original in its own best runtime": "3.21x (95 % interval 3.05 to 3.39)",
        "speed against int8 quantisation alone": "1.50x",
        "size against the original": "12.3 times smaller",
        "loss of score": "0.41 points, at most 0.79 (one-sided 95 %)",
        "measured on": "7,000 samples that the search never read",
        "time of the whole run": "402 s",
        "machine": "Some CPU, 2 threads",
        "file": "`benchmarks/results/demo.json`",
    }


def test_text_outside_the_blocks_stays_and_filling_twice_changes_nothing(results: Path) -> None:
    put(results, "search", {"runs": 3, "rate": 0.123456})
    text = f"{TEXT}\n<!-- figures:search -->\n<!-- /figures -->\nend"
    once = filled(text, results)
    assert once.startswith("before\n<!-- figures:demo -->\n") and once.endswith("<!-- /figures -->\nend")
    assert "<!-- /figures -->\nafter\n\n<!-- figures:search -->" in once
    assert "old" not in once
    assert "| runs | 3 |\n| rate | 0.1235 |" in once
    assert filled(once, results) == once
    assert filled("no marks", results) == "no marks"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- figures:peers -->\n<!-- /figures -->", "peers.json is missing: run make bench NAME=peers"),
        ("<!-- figures:demo -->\n", "no partner"),
        ("<!-- /figures -->\n", "no partner"),
        ("<!-- figures:demo -->\n<!-- figures:demo -->\n<!-- /figures -->", "no partner"),
        ("see <!-- figures:demo -->\n<!-- /figures -->", "misspelt"),
    ],
)
def test_blocks_that_cannot_be_filled_are_refused(results: Path, text: str, message: str) -> None:
    with pytest.raises(SlimlineError, match=message):
        filled(text, results)


def test_a_result_that_lacks_a_figure_is_refused(results: Path) -> None:
    put(results, "demo", {k: v for k, v in DEMO.items() if k != "drop_upper"})
    with pytest.raises(SlimlineError, match="demo.json has no 'drop_upper'"):
        filled(TEXT, results)


def test_check_writes_nothing_and_fails_on_a_stale_file(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = results / "page.md"
    page.write_text(TEXT)
    assert main(["--check", str(page)]) == 1
    assert page.read_text() == TEXT
    assert "run make docs" in capsys.readouterr().err
    assert main([str(page)]) == 0
    assert main(["--check", str(page)]) == 0


def test_main_tells_what_is_wrong_in_one_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = results / "page.md"
    page.write_text("<!-- /figures -->")
    assert main([str(page)]) == 2
    assert capsys.readouterr().err.startswith(f"{page}: the mark")
