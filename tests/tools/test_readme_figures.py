"""The figures in README.md and docs/ are those of benchmarks/results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tools.readme_figures
from slimline.errors import SlimlineError
from tools.readme_figures import ROOT, filled, main, short

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


def put(folder: Path, name: str, summary: dict[str, Any], rows: Sequence[dict[str, Any]] = ()) -> None:
    result = {"summary": summary, "rows": list(rows), "machine": {"cpu": "Some CPU", "threads": 2}}
    (folder / f"{name}.json").write_text(json.dumps(result))


def cells(text: str) -> dict[str, str]:
    """The rows of the table in a text."""
    return dict(
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and " | " in line[2:]
    )


def test_readme_and_docs_are_up_to_date() -> None:
    assert (ROOT / "README.md").is_file()
    assert main(["--check"]) == 0, "run make docs"


def test_the_demo_table_shows_the_numbers_of_the_file(results: Path) -> None:
    text = filled(TEXT, results)
    assert cells(text) == {
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


def test_the_recovery_table_shows_the_numbers_of_the_file(results: Path) -> None:
    ways = {f"points_lost_{way}": 0.3 for way in ("with_labels", "without_labels", "without_data")}
    summary: dict[str, Any] = {"macs_left": 0.2508, "peak_memory_ratio": 0.634, "step_time_against_plain": 1.0025}
    summary |= ways | {f"{key}_upper": 0.529 for key in ways}
    summary |= {"step_time_against_plain_low": 0.9902, "step_time_against_plain_high": 1.0149, "bf16_speedup": 1.93}
    summary |= {"compiled_speedup": 1.04, "bf16_compiled_speedup": 2.16}
    summary |= {f"steps_per_second_{count}_processes": 2.0 * count for count in (1, 2, 4)}
    put(results, "recovery", summary)
    rows = cells(filled("<!-- figures:recovery -->\n<!-- /figures -->", results))
    assert rows["MACs left"] == "25.1 %"
    assert rows["points lost, recovered without data"] == "0.30, at most 0.53 (one-sided 95 %)"
    assert rows["time of a step against a plain PyTorch loop's"] == "1.002x (95 % interval 0.990 to 1.015)"
    assert rows["steps per second"] == "2.00 with 1 process, 4.00 with 2 processes, 8.00 with 4 processes"


def test_the_augmentation_table_has_a_row_for_every_way(results: Path) -> None:
    ways = {f"{way}: {key}": 0.5 for way in ("a", "b, c") for key in ("kl_train", "kl_test", "accuracy spread")}
    put(results, "augmentation", {"accuracy_original": 93.1, "a: accuracy": 90.0, "b, c: accuracy": 91.0, **ways})
    rows = cells(filled("<!-- figures:augmentation -->\n<!-- /figures -->", results))
    assert rows["the original"] == "93.1 %"
    assert rows["b, c"] == "91.0 % (± 0.5), kl 0.5000 trained on, 0.5000 unseen"


def test_the_pruning_table_has_a_row_for_every_side(results: Path) -> None:
    def side(**means: float) -> dict[str, Any]:
        return {key: {"mean": mean, "sd": 0.004, "seeds": 3} for key, mean in means.items()}

    sides = {
        "ours": side(score=0.9, drop_points=1.5, speedup=1.9, macs_left=0.5, parameters_left=0.6, not_zero_left=0.6),
        "zeros": side(score=0.9, drop_points=1.5, speedup=1.0, macs_left=1.0, parameters_left=1.0, not_zero_left=0.5),
    }
    sides["zeros"] = {key: {"mean": v["mean"], "seeds": 1} for key, v in sides["zeros"].items()}
    summary = {"sides": sides, "recipes": {"ours": ["A()", "B()"]}, "steps": 7, "recovery": "Distill()"}
    put(results, "structure_fashion", summary, [{"original_score": 0.915, "n": 1000}])
    found = cells(filled("<!-- figures:structure_fashion -->\n<!-- /figures -->\n", results))
    assert found["the original"] == "91.50 % of 1,000 samples"
    left = "50.0 ± 0.4 % of the macs, 60.0 ± 0.4 % of the parameters; 3 seeds"
    assert found["ours"] == f"**90.00 ± 0.40 %** (1.50 points lost), **1.90x** the speed, {left}"
    left = "100.0 % of the macs, 100.0 % of the parameters, 50.0 % not zero; 1 seed"
    assert found["zeros"] == f"**90.00 %** (1.50 points lost), **1.00x** the speed, {left}"
    assert found["recovery, on every side"] == "7 steps of `Distill()`" and found["recipes"] == "ours: A() > B()"


def test_the_patience_table_has_a_row_for_every_way_and_number_of_steps(results: Path) -> None:
    sides = {
        "moved, 400 steps": {"score": 0.89, "drop_points": {"mean": 2.64, "seeds": 1}, "macs_left": 0.665},
        "mixed, 4000 steps": {"score": 0.9134, "drop_points": {"mean": 0.3, "sd": 0.12, "seeds": 3}, "macs_left": 0.67},
    }
    sides = {name: {**side, "parameters_left": 0.496} for name, side in sides.items()}
    put(results, "patience", {"sides": sides, "original_score": 0.9164, "n": 1017})
    found = cells(filled("<!-- figures:patience -->\n<!-- /figures -->\n", results))
    assert found["the original"] == "91.64 % of 1,017 samples"
    assert found["moved, 400 steps"] == "2.64 points lost (89.00 %, 1 seed)"
    assert found["mixed, 4000 steps"] == "0.30 ± 0.12 points lost (91.34 %, 3 seeds)"
    assert found["left"] == "49.6 % of the parameters, 66.5 % to 67.0 % of the macs"


def test_the_widths_of_a_recipe_are_counted() -> None:
    line = "PruneChannels(keep=0.5, widths={'a.b': 32, 'c': 32, 'd': 7}, reconstruct=512)"
    assert short(line) == "PruneChannels(keep=0.5, widths={2 groups: 32, 1 group: 7}, reconstruct=512)"
    assert short("SparseGPT(sparsity=0.5)") == "SparseGPT(sparsity=0.5)"


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
