"""What a user types, what comes back, and that nothing a user can do shows a traceback."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

import slimline
from slimline import cli
from slimline.measure.statistics import Verdict
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.network.container import load, save
from slimline.report import run_folder
from slimline.search import recheck as recheck_module
from slimline.search.budget import Budget
from slimline.search.optimize import Settings
from tests.report.fixture import certificate, certificate_data
from tests.search.stand_ins import pretending
from tests.toys import SHORT_RACE, copy_of_finished_run, finished_run, patterns, toy, toy_task, write_job

BEGINNING = """
import numpy as np
import torch
from torch import nn
import slimline as sl

IMAGES = np.random.default_rng(0).normal(size=(120, 1, 8, 8)).astype(np.float32)
LABELS = np.arange(120) % 4

def model():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
"""
IMAGES, LABELS = patterns(300, seed=2)
BAD_JOBS = {
    "labels": (
        "def task(): return sl.Task(validate=(IMAGES, LABELS + 9))",
        "The model has 4 classes but the labels run from 9 to 12",
    ),
    "shape": (
        "def model(): return nn.Conv2d(1, 4, 3)\ndef task(): return sl.Task(validate=(IMAGES, LABELS))",
        "The model's output has shape (8, 4, 6, 6), which does not match 8 class labels",
    ),
    "nan_data": (
        "IMAGES[17, 0, 2, 3] = np.nan\ndef task(): return sl.Task(validate=(IMAGES, LABELS))",
        "'input' has NaN or infinity in sample 17",
    ),
    "nan_scores": (
        "def score(outputs, labels): return np.where(labels == 2, np.nan, 1.0)\n"
        "def task(): return sl.Task(validate=(IMAGES, LABELS), score=score)",
        "is nan: scores have to be finite numbers",
    ),
    "one_score": (
        "def task(): return sl.Task(validate=(IMAGES, LABELS), score=lambda o, l: 0.5)",
        "The score function returned shape () for 8 samples: return one score per sample",
    ),
    "empty": (
        "def task(): return sl.Task(validate=[])",
        "The validate loader is empty: it has to yield at least one batch",
    ),
    "few": (
        "def task(): return sl.Task(validate=(IMAGES[:59], LABELS[:59]))",
        "The task has 59 validation samples, too few to split into calibrate, search and certify: give at least 60",
    ),
    "no_task": ("", "defines no task()"),
    "no_labels": (
        "def task(): return sl.Task(validate={'input': IMAGES}, score='accuracy')",
        "needs labels in validate",
    ),
    "broken": ("def task(): return 1 / 0", "task() failed: ZeroDivisionError"),
    "syntax": ("def task(:", "cannot be run: SyntaxError"),
    "many_lines": ("def task(): raise ValueError('one\\ntwo\\n\\n  three')", "ValueError: one two  three"),
    "untraceable": (
        "class Branch(nn.Module):\n"
        "    def forward(self, x):\n"
        "        if x.sum() > 0:  # decided by a value\n"
        "            return x.flatten(1)\n"
        "        return -x.flatten(1)\n"
        "def model(): return Branch()\n"
        "def task(): return sl.Task(validate=(IMAGES, LABELS))",
        "(`if x.sum() > 0:  # decided by a value`)",
    ),
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, list[str]]:
    """Exit code, standard output and the lines of standard error of `slimline ARGUMENTS`, in this process."""
    capsys.readouterr()
    with patch.object(sys, "argv", ["slimline", *map(str, arguments)]), pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one sentence of a command that cannot be done."""
    code, out, errors = run(capsys, *arguments)
    assert code == 2 and len(errors) == 1 and errors[0].startswith("slimline: "), (code, errors)
    assert "Traceback" not in out
    return errors[0]


def fresh(*arguments: str | Path, limit: int | None = None) -> "subprocess.CompletedProcess[str]":
    """`python -m slimline.cli ARGUMENTS` in a process of its own; ``limit`` is the largest file it may write."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "PYTHONPATH": str(Path(slimline.__file__).parents[1])}
    command = [sys.executable, "-m", "slimline.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, preexec_fn=limited)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(BAD_JOBS))
def test_a_job_that_cannot_be_used_is_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, sentence = BAD_JOBS[name]
    job = tmp_path / f"{name}_job.py"
    job.write_text(BEGINNING + text + "\n")
    assert sentence in refused(capsys, "optimize", job, "--out", tmp_path / "run", "--runtimes", "onnxruntime")


def test_the_line_of_the_users_code_that_cannot_be_traced_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "branching_job.py"
    job.write_text(BEGINNING + BAD_JOBS["untraceable"][0] + "\n")
    line = 1 + job.read_text().splitlines().index("        if x.sum() > 0:  # decided by a value")
    assert f"{job}:{line}" in refused(capsys, "optimize", job, "--out", tmp_path / "run")


@pytest.mark.parametrize("command", ["optimize", "inspect", "measure"])
def test_a_path_that_does_not_exist_is_one_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "nowhere.slim does not exist" in refused(capsys, command, "nowhere.slim")


def test_a_name_that_is_nearly_right_is_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(toy(), tmp_path / "network.slim")
    assert f"did you mean {tmp_path / 'network.slim'}" in refused(capsys, "inspect", tmp_path / "netwrok.slim")


@pytest.mark.parametrize("damage", ["noise", "truncated", "flipped", "empty", "text"])
def test_a_damaged_file_is_one_sentence(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(save(toy(), tmp_path / "good.slim").read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    damaged = {
        "noise": np.random.default_rng(0).bytes(4000), "truncated": bytes(content[: len(content) // 2]),
        "flipped": bytes(content), "empty": b"", "text": b"certainly not a network\n",
    }[damage]  # fmt: skip
    (tmp_path / "bad.slim").write_bytes(damaged)
    for command in ("inspect", "optimize"):
        assert str(tmp_path / "bad.slim") in refused(capsys, command, tmp_path / "bad.slim")


def test_a_slim_file_alone_has_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(toy(), tmp_path / "toy.slim")
    assert "comes without a task" in refused(capsys, "optimize", path, "--out", tmp_path / "run")


def data_file(folder: Path, **arrays: np.ndarray) -> Path:
    """`toy`'s images in an npz file, and ``arrays``."""
    np.savez(folder / "data.npz", **{"image": patterns(300, seed=2)[0], **arrays})
    return folder / "data.npz"


@pytest.mark.parametrize("command", ["optimize", "inspect"])
@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        (
            {"label": LABELS},
            [],
            "data.npz holds the arrays image, label, but the inputs of the network are image: name",
        ),
        ({}, ["--score", "accuracy"], "needs labels in validate"),
        ({}, ["--score", "acuracy"], "score='acuracy') is unknown: use accuracy, agreement, cosine, relative or"),
        ({"labels": LABELS[:299]}, [], "'labels' has 299 samples and another array 300"),
        (
            {"image": IMAGES[:, :, :7]},
            [],
            "a sample of 'image' has the shape (1, 7, 8), but the network takes (1, 8, 8)",
        ),
        ({"image": np.array([None])}, [], "data.npz is not a readable .npz of plain arrays"),
    ],
)
def test_data_that_do_not_fit_are_one_sentence(
    command: str, arrays: dict[str, Any], options: list[str], sentence: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data, out = data_file(tmp_path, **arrays), ["--out", tmp_path / "run"] if command == "optimize" else []
    model = save(toy(), tmp_path / "toy.slim")
    assert sentence in refused(capsys, command, model, "--data", data, *out, *options)


def test_a_score_without_data_and_data_for_a_job_with_a_task_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, out = write_job(tmp_path), ["--out", tmp_path / "run"]
    assert "--score cosine needs --data" in refused(capsys, "optimize", job, *out, "--score", "cosine")
    said = refused(capsys, "optimize", job, *out, "--data", data_file(tmp_path))
    assert "toy_job.py defines task(), but a task or --data was given too: leave out one" in said
    assert "nowhere.npz does not exist" in refused(capsys, "inspect", job, "--data", tmp_path / "nowhere.npz")


def test_a_quantised_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_job(tmp_path)
    save(Recipe([QuantizeStatic()]).apply(toy(), toy_task()).network, tmp_path / "toy.slim")
    with pretending():
        said = refused(capsys, "optimize", tmp_path / "toy_job.py", "--out", tmp_path / "run")
    assert "quantised already: start from the network as it was trained" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--max-drop", "100%"], "The budget contradicts itself: max drop 1 is not in [0, 1)"),
        (["--max-drop", "-1%"], "The budget contradicts itself: max drop -0.01"),
        (["--max-drop", "a little"], "--max-drop 'a little' is not a share: write 1% or 0.01"),
        (["--minimize", "energy"], "The budget cannot minimise 'energy': choose latency or size"),
        (["--max-latency", "0ms"], "max latency has to be above zero"),
        (["--max-latency", "2"], "--max-latency '2' is not understood: write a number with us, ms, s, such as 2ms"),
        (["--max-size", "-1MB"], "max size has to be above zero"),
        (["--max-size", "9" * 400 + "MB"], "is not understood: write a number with B, KB, MB, GB, such as 1MB"),
        (["--min-speedup", "0.5"], "a minimum speed-up of 0.5 is not a number from 1 on"),
        (["--min-speedup", "nan"], "a minimum speed-up of nan"),
        (["--time", "0s"], "time has to be above zero"),
        (["--time", "soon"], "--time 'soon' is not understood: write a number with s, m, h, such as 10m"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_one_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_job(tmp_path)
    assert sentence in refused(capsys, "optimize", job, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_an_unknown_runtime_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "optimize", write_job(tmp_path), "--out", tmp_path / "run", "--runtimes", "openvino,onnxrt")
    assert "No runtime is called 'onnxrt': use one of torch, onnxruntime, openvino; did you mean 'onnxruntime'?" in said


@pytest.mark.parametrize("place", ["toy.npz/run", "/proc/nope", "/dev/null/run"])
def test_an_output_folder_that_cannot_be_written_is_one_sentence(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "optimize", write_job(tmp_path), "--out", tmp_path / place)
    assert f"The output folder {tmp_path / place} cannot be written" in said


def test_a_study_that_is_there_already_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy_of_finished_run(tmp_path)
    job = finished_run()[0].parent / "toy_job.py"
    options: list[str | Path] = ["--out", folder, "--runtimes", "onnxruntime", "--max-drop", "8%"]
    assert "already holds a study: pass --resume" in refused(capsys, "optimize", job, *options)
    said = refused(capsys, "optimize", job, *options, "--resume", "--seed", "5")
    assert "holds a study of something else (different seed)" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["optimize"],
        ["nonsense"],
        ["optimize", "x.py", "--sed", "1"],
        ["demo", "--seed", "-1"],
        ["demo", "--seed", "one"],
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = run(capsys, *arguments)
    assert code == 2 and errors and "Traceback" not in out + "".join(errors)


def test_in_a_process_of_its_own_too(tmp_path: Path) -> None:
    done = fresh("optimize", tmp_path / "nowhere.py")
    assert done.returncode == 2
    assert done.stderr == f"slimline: {tmp_path / 'nowhere.py'} does not exist: check the path.\n"


@pytest.mark.parametrize("limit", [2000, 10_000])
def test_a_disk_that_is_full_is_one_sentence(limit: int, tmp_path: Path) -> None:
    """Files of at most 2 kB: the folder is found unusable at once. Of at most 10 kB: the network does not fit."""
    done = fresh("optimize", write_job(tmp_path), "--out", tmp_path / "run", "--runtimes", "onnxruntime", limit=limit)
    errors = done.stderr.splitlines()
    assert done.returncode == 2 and len(errors) == 1 and errors[0].startswith("slimline: "), done.stderr
    assert str(tmp_path / "run") in errors[0] and "make room" in errors[0]


# --- what works -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "code"), [("PASS", 0), ("FAIL", 3), ("CAN'T TELL", 4)])
def test_the_exit_code_is_the_verdict(
    verdict: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def found(source: str, **named: Any) -> Any:
        asked.append((source, named["budget"], named["settings"]))
        certificate(certificate_data() | {"verdict": verdict}).write(tmp_path / "certificate.json")
        return SimpleNamespace(verdict=Verdict(verdict), path=tmp_path / "best" / "network.onnx")

    options = [
        "--max-drop",
        "2%",
        "--minimize",
        "size",
        "--max-latency",
        "2ms",
        "--max-size",
        "1MB",
        "--min-speedup",
        "3",
    ]
    options += ["--time", "90s", "--runtimes", " openvino, onnxruntime ,", "--resume", "--seed", "7"]
    with patch.object(run_folder, "optimize", found):
        left, out, errors = run(capsys, "optimize", "job.py", "--out", tmp_path, *options)
    assert (left, errors) == (code, [])
    assert str(tmp_path / "best" / "network.onnx") in out.replace("\n", "") and "report.html" in out
    budget = Budget(0.02, "size", 2.0, 10**6, 3.0, 90.0)
    assert asked == [("job.py", budget, Settings(tmp_path, ("openvino", "onnxruntime"), 7, True))]


def test_the_defaults_and_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from slimline.demo.job import JOB

    asked: list[Any] = []

    def found(source: str, **named: Any) -> Any:
        asked.append((source, named["budget"], named["settings"]))
        certificate().write(tmp_path / "certificate.json")
        return SimpleNamespace(verdict=Verdict.PASS, path=tmp_path)

    with patch.object(run_folder, "optimize", found):
        assert run(capsys, "demo", "--out", tmp_path)[0] == 0
        assert run(capsys, "optimize", "job.py", "--out", tmp_path)[0] == 0
    assert [source for source, *_ in asked] == [str(JOB), "job.py"]
    assert {(budget, settings) for _, budget, settings in asked} == {(Budget(), Settings(tmp_path))}


def test_ctrl_c_before_there_is_anything_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with patch.object(run_folder, "optimize", side_effect=KeyboardInterrupt):
        code, _, errors = run(capsys, "optimize", "job.py", "--out", tmp_path)
    assert code == 130 and errors == ["slimline: stopped before there was anything to keep."]


def test_optimize_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: list[str | Path] = ["--max-drop", "8%", "--time", "5s", "--out", tmp_path / "run"]
    with pretending():
        code, out, errors = run(capsys, "optimize", write_job(tmp_path), *options)
    assert (code, errors) == (0, [])
    for name in ("best/network.slim", "report.html"):
        assert (tmp_path / "run" / name).is_file() and str(tmp_path / "run" / name) in out
    assert json.loads((tmp_path / "run" / "certificate.json").read_text())["verdict"] == "PASS"


@pytest.mark.parametrize(
    ("labels", "options", "score", "what"),
    [
        (False, [], "agreement", "agreement with the original network (share of equal argmax), not accuracy"),
        (True, ["--score", "cosine"], "cosine", "(cosine similarity of the outputs), not accuracy"),
    ],
)
def test_a_model_file_and_a_data_file_are_all_it_takes(
    labels: bool, options: list[str], score: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(toy(), tmp_path / "toy.slim")
    data = data_file(tmp_path, **({"labels": patterns(300, seed=2)[1]} if labels else {}))
    asked: list[str | Path] = ["--max-drop", "30%", "--time", "2s", "--out", tmp_path / "run", "--data", data, *options]
    with pretending():
        code, out, errors = run(capsys, "optimize", model, *asked)
    assert (code, errors) == (0, [])
    written = json.loads((tmp_path / "run" / "certificate.json").read_text())
    assert written["task"]["score"] == score and written["task"]["what"].endswith(what)
    card = (tmp_path / "run" / "best" / "CARD.md").read_text()
    assert all(" ".join(text.split()).count(what) for text in (out, card, written["sentence"]))
    assert what in (tmp_path / "run" / "report.html").read_text()
    assert written["original"]["score"] == 1.0


@pytest.mark.parametrize(
    ("labels", "options", "what"),
    [
        (True, [], "score: accuracy on labels"),
        (False, [], "its last layer is linear and its answers are those of a classifier; score: agreement with the "),
        (False, ["--score", "relative"], "score: agreement with the original network (1 - relative error of the "),
    ],
)
def test_inspect_says_what_the_score_would_be(
    labels: bool, options: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(toy(), tmp_path / "toy.slim")
    data = data_file(tmp_path, **({"labels": patterns(300, seed=2)[1]} if labels else {}))
    code, out, errors = run(capsys, "inspect", model, "--data", data, *options)
    assert (code, errors) == (0, []) and what in " ".join(out.split()) and "300 samples; output 'output':" in out


def test_inspect_lists_layers_groups_and_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    code, out, errors = run(capsys, "inspect", save(toy(), tmp_path / "toy.slim"))
    assert (code, errors) == (0, [])
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    assert set(rows) == {"stem", "inner", "outer", "head"}
    assert "24x16x3x3" in rows["inner"] and "inner (24)" in rows["inner"]
    assert f"{24 * 16 * 9 * 16:,}" in rows["inner"]  # each of 4 x 4 pixels of 24 channels sums 16 x 9 products
    assert "axis 0: is an output of the network" in rows["head"]
    assert "2 groups of channels" in out


def test_verify_holds_for_an_untouched_run_and_fails_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = copy_of_finished_run(tmp_path)
    with patch.object(recheck_module, "QUICK", SHORT_RACE):
        code, out, errors = run(capsys, "verify", folder)
        assert (code, errors) == (0, []) and "does not hold" not in out and out.count("holds") >= 5
        written = json.loads((folder / "certificate.json").read_text())
        written["best"]["sha256"] = "0" * 64
        (folder / "certificate.json").write_text(json.dumps(written))
        code, out, errors = run(capsys, "verify", folder)
    assert (code, errors) == (3, []) and out.count("does not hold") == 1


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_folder_that_is_no_run_is_one_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "There is no certificate at" in refused(capsys, command, tmp_path)
    (tmp_path / "certificate.json").write_text("{}")
    assert "is not a complete certificate" in refused(capsys, command, tmp_path)


def test_report_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy_of_finished_run(tmp_path)
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    code, out, errors = run(capsys, "report", folder)
    assert (code, errors) == (0, []) and "report.html" in out
    assert (folder / "report.html").read_text() == before


@pytest.mark.slow
def test_the_commands_of_the_page_about_training_do_what_it_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    commands = [line.split() for line in page.split("```")[1].strip().splitlines()]
    assert [c[0] for c in commands] == ["slimline", "torchrun", "accelerate"]
    (tmp_path / "recipe.yaml").write_text("- PruneChannels: {keep: 0.5}\n- Distill: {epochs: 2.0, batch: 32}\n")
    job = write_job(tmp_path).name
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    files = []
    for place, command in enumerate(commands):
        files.append(tmp_path / f"{place}-{command[-1]}")
        told = {"4": "2", "8": "2", "my_job.py": job, command[-1]: files[-1].name}
        command = [told.get(word, word) for word in command]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and files[-1].stat().st_size > 1000
    for file in files[:2]:
        answers = load(file).run({"image": torch.from_numpy(IMAGES)})[0]
        assert (answers.argmax(1).numpy() == LABELS).mean() > 0.8
