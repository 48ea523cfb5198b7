"""What benchmarks leave behind: complete, plain and honest about the code it was made with."""

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

import benchmarks.record
from benchmarks.record import commit, kept, write
from slimline.errors import SlimlineError


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(benchmarks.record, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_write_gives_everything_that_design_asks_for(results: Path) -> None:
    path = write("demo", {"speedup": np.float32(2.5)}, [{"ms": np.array([1, 2])}], [0, 1], 12.345)
    found = json.loads(path.read_text())
    assert path == results / "demo.json"
    assert set(found) == {"summary", "rows", "machine", "versions", "commit", "seeds", "seconds"}
    assert found["summary"] == {"speedup": 2.5}
    assert found["rows"] == [{"ms": [1, 2]}]
    assert (found["seeds"], found["seconds"]) == ([0, 1], 12.3)
    assert found["versions"]["numpy"] == np.__version__
    assert found["machine"]["threads"] >= 1


@pytest.mark.parametrize("value", [math.nan, np.float64("inf"), object(), {1, 2}])
def test_values_that_are_not_plain_and_finite_are_refused_and_nothing_is_written(results: Path, value: object) -> None:
    with pytest.raises(SlimlineError, match="'demo' cannot be written as JSON"):
        write("demo", {"speedup": value}, [{"ms": 1}], [0], 1.0)
    assert not results.exists()


def test_a_summary_without_rows_is_refused(results: Path) -> None:
    with pytest.raises(SlimlineError, match="no rows"):
        write("demo", {"speedup": 2.0}, [], [0], 1.0)


def test_what_is_kept_is_made_once_per_commit_and_again_while_the_code_has_changes(tmp_path: Path) -> None:
    path, made = tmp_path / "runs" / "0.json", iter(range(10))

    def found(code: str, **known: object) -> tuple[dict[str, object], bool]:
        return kept(path, known, code, lambda: {"row": np.int64(next(made))})

    assert found("a", seed=0) == ({"row": 0}, False)
    assert found("a", seed=0) == ({"row": 0}, True)
    assert found("a", seed=1) == ({"row": 1}, False)
    assert found("b", seed=1) == ({"row": 2}, False)
    assert found("b+changes", seed=1) == ({"row": 3}, False)
    assert found("b+changes", seed=1) == ({"row": 4}, False)
    assert [p.name for p in path.parent.iterdir()] == ["0.json"]


def test_commit_tells_changed_code_from_new_results(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-b", "main")
    assert commit(tmp_path) == "unknown"
    for name in ("src/a.py", "benchmarks/b.py", "benchmarks/results/b.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    (tmp_path / "benchmarks/results/b.json").write_text("2")
    assert commit(tmp_path) == head
    (tmp_path / "benchmarks/b.py").write_text("2")
    assert commit(tmp_path) == f"{head}+changes"
