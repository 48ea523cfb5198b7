"""A finished step is never done again, not even after `kill -9`, and a study is never mistaken for another."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slimline.errors import SlimlineError
from slimline.search.study import Study, Trial

IDENTITY = {"network": "abc", "seed": 0}


def trial(number: int, **values: object) -> Trial:
    known = {
        "id": f"t{number:02d}", "stage": "int8", "runtime": "openvino", "variant": "bf16", "precision": "int8",
        "recipe": ["FoldBatchNorm()"], "network": "n.slim", "artifact": "a.onnx", "size_bytes": 9, "macs": 7,
        "parameters": 5,
    }  # fmt: skip
    return Trial(**(known | values))  # type: ignore[arg-type]


class Work:
    """A step that counts how often it is done."""

    def __init__(self, value: object) -> None:
        self.value, self.times = value, 0

    def __call__(self) -> object:
        self.times += 1
        return self.value


def test_a_step_is_done_once_per_name_and_inputs(tmp_path: Path) -> None:
    study, work = Study(tmp_path / "study.sqlite", IDENTITY, resume=False), Work({"a": [1, 2.5, None]})
    assert [study.once("step", [1, {"x": 2, "y": 3}], work) for _ in range(3)] == [work.value] * 3
    assert study.once("step", [1, {"y": 3, "x": 2}], work) == work.value and work.times == 1
    study.once("step", [2], work)
    study.once("other", [1, {"x": 2, "y": 3}], work)
    assert work.times == 3 and study.replayed == ["step"] * 3
    study.close()


def test_a_step_that_fails_is_not_stored(tmp_path: Path) -> None:
    study, work = Study(tmp_path / "study.sqlite", IDENTITY, resume=False), Work(7)

    def fail() -> object:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        study.once("step", [], fail)
    assert study.once("step", [], work) == 7 and work.times == 1
    study.close()


def test_trials_keep_their_order_and_their_last_state(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.sqlite", IDENTITY, resume=False)
    for number in (1, 2, 12, 3):
        study.save_trial(trial(number))
    study.save_trial(trial(2, status="dropped", why="too slow", drop=0.25, recipe_yaml="- FoldBatchNorm: {}\n"))
    study.close()
    again = Study(tmp_path / "study.sqlite", IDENTITY, resume=True)
    assert [t.id for t in again.trials()] == ["t01", "t02", "t12", "t03"]
    assert again.trials()[1] == trial(
        2, status="dropped", why="too slow", drop=0.25, recipe_yaml="- FoldBatchNorm: {}\n"
    )
    assert again.trials()[0].label == "openvino[bf16]" and again.trials()[0].place == ("openvino", "bf16")
    again.close()


SCRIPT = """
import sys, time
from pathlib import Path
from slimline.search.study import Study

folder = Path(sys.argv[1])
study = Study(folder / "study.sqlite", {"network": "abc", "seed": 0}, resume=True)

def work(name):
    with (folder / "log").open("a") as log:
        log.write(name + "\\n")
    if name == sys.argv[2]:
        (folder / "inside").touch()
        time.sleep(60)
    return name.upper()

values = [study.once("step", [name], lambda name=name: work(name)) for name in "abcd"]
study.close()
print("".join(values))
"""


def killed_inside(folder: Path, step: str) -> None:
    """Run the script until it is in the middle of a step, and kill it there."""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), step])
    deadline = time.monotonic() + 60
    while not (folder / "inside").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (folder / "inside").unlink()


def test_after_kill_9_no_finished_step_is_repeated(tmp_path: Path) -> None:
    killed_inside(tmp_path, "c")
    killed_inside(tmp_path, "d")
    last = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), "none"], capture_output=True, text=True)
    assert last.stdout.strip() == "ABCD", last.stderr
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c", "c", "d", "d"]


def test_the_time_of_earlier_sessions_counts(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.sqlite", IDENTITY, resume=False)
    study.started -= 100  # as if it had begun that long ago
    study.once("step", [], Work(1))
    study.connection.close()  # no orderly end
    assert 100 <= Study(tmp_path / "study.sqlite", IDENTITY, resume=True).elapsed() < 110


def test_an_existing_study_is_refused_without_resume(tmp_path: Path) -> None:
    Study(tmp_path / "study.sqlite", IDENTITY, resume=False).close()
    with pytest.raises(SlimlineError, match="already holds a study: pass --resume to continue it, or another --out"):
        Study(tmp_path / "study.sqlite", IDENTITY, resume=False)


def test_a_study_of_something_else_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    Study(tmp_path / "study.sqlite", IDENTITY, resume=False).close()
    with pytest.raises(SlimlineError, match=r"holds a study of something else \(different seed\)"):
        Study(tmp_path / "study.sqlite", {"network": "abc", "seed": 1}, resume=True)
    Study(tmp_path / "study.sqlite", IDENTITY, resume=True).close()


def test_resuming_what_does_not_exist_begins_it(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.sqlite", IDENTITY, resume=True)
    assert study.trials() == [] and study.elapsed() < 5
    study.close()


def test_a_file_that_is_no_study_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "study.sqlite").write_bytes(b"certainly not a database" * 100)
    with pytest.raises(SlimlineError, match="cannot be used as a study .*: choose another --out"):
        Study(tmp_path / "study.sqlite", IDENTITY, resume=True)


@pytest.mark.parametrize("name", ["plain", "50% of it #1?"])
def test_a_fact_can_be_read_from_outside(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "study.sqlite"
    path.parent.mkdir()
    study = Study(path, IDENTITY, resume=False)
    study.set_fact("source", "job.py")
    assert Study.stored_fact(path, "source") == "job.py" and Study.stored_fact(path, "nothing") is None
    study.close()
    assert Study.stored_fact(path, "source") == "job.py"
    (tmp_path / "other.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.Error):
        Study.stored_fact(tmp_path / "other.sqlite", "source")
