"""What `measure` and `verify` print."""

import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from slimline.errors import SlimlineError
from slimline.measure.measurement import Measurement
from slimline.network.container import save
from slimline.report import side_by_side
from slimline.report.side_by_side import compare_files, named_artifact, recheck_folder
from slimline.runtimes.registry import RUNTIMES
from slimline.runtimes.runtime import Artifact
from slimline.search.recheck import Check
from tests.search.stand_ins import planted_race
from tests.toys import SHORT_RACE, finished_run, patterns, toy


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with toy.slim and network.onnx; tables are wide enough to stay whole."""
    monkeypatch.setenv("COLUMNS", "200")
    save(toy(), tmp_path / "toy.slim")
    RUNTIMES["onnxruntime"].export(toy(), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "runtime", "variant"),
    [
        ("toy.slim", "torch", ""),
        ("network.onnx", "onnxruntime", ""),
        ("network.onnx@openvino", "openvino", ""),
        ("network.onnx@openvino[bf16]", "openvino", "bf16"),
    ],
)
def test_a_file_and_its_runtime(files: Path, text: str, runtime: str, variant: str) -> None:
    name = text.split("@")[0]
    assert named_artifact(str(files / text)) == Artifact(files / name, runtime, variant)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nothing.onnx", "nothing.onnx does not exist: check the path"),
        ("toy.bin", "toy.bin has no runtime of its own: write .*toy.bin@onnxruntime, for example"),
        ("network.onnx@onnxrt", "No runtime is called 'onnxrt'"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(files: Path, text: str, sentence: str) -> None:
    shutil.copy(files / "toy.slim", files / "toy.bin")
    with pytest.raises(SlimlineError, match=sentence):
        named_artifact(str(files / text))


def test_the_table_compares_with_the_first_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def milliseconds(artifact: Artifact) -> float:
        return 2.0 if artifact.runtime == "torch" else 0.5

    def memory(*_: object) -> Measurement:
        return Measurement(7e6, "bytes", "not measured", 1, 7e6, 7e6, {})

    with (
        patch.object(side_by_side, "race", planted_race(milliseconds)),
        patch.object(side_by_side, "runner_memory", memory),
    ):
        compare_files([str(files / "toy.slim"), str(files / "network.onnx")], None)
    lines = capsys.readouterr().out.splitlines()
    first = next(line for line in lines if "toy.slim" in line)
    second = next(line for line in lines if "network.onnx" in line)
    assert " 2.00" in first and " 1 " in first and f"{(files / 'toy.slim').stat().st_size:,}" in first
    assert " 0.50" in second and " 4.00" in second and "7 MB" in second


def test_real_files_are_measured_on_real_inputs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(files / "data.npz", image=patterns(10, seed=1)[0], labels=np.zeros(10))
    with patch.object(side_by_side, "CERTIFIED", SHORT_RACE):
        compare_files([str(files / "network.onnx"), str(files / "toy.slim")], files / "data.npz")
    out = capsys.readouterr().out
    assert "network.onnx" in out and "toy.slim" in out and " MB" in out


def test_without_inputs_speed_is_not_made_up(files: Path) -> None:
    with pytest.raises(
        SlimlineError, match="None of the files carries example inputs.*--data DATA.npz with one array per"
    ):
        compare_files([str(files / "network.onnx")], None)


def test_data_that_lack_an_input_are_one_sentence(files: Path) -> None:
    np.savez(files / "data.npz", picture=patterns(10, seed=1)[0])
    with (
        patch.object(side_by_side, "CERTIFIED", SHORT_RACE),
        pytest.raises(SlimlineError, match="image"),
    ):
        compare_files([str(files / "network.onnx")], files / "data.npz")


@pytest.mark.parametrize(("holds", "answer"), [(True, True), (None, True), (False, False)])
def test_every_check_is_printed_and_one_that_fails_decides(
    holds: bool | None, answer: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check("the sum", True, "7"), Check("the [bold]score", holds, "3 [of] 4")]
    with patch.object(side_by_side, "recheck", lambda folder, certificate: checks):
        assert recheck_folder(finished_run()[0]) is answer
    out = capsys.readouterr().out
    assert "the sum" in out and {True: "holds", None: "not checked", False: "does not hold"}[holds] in out
    assert "[bold]score" in out and "3 [of] 4" in out


def test_a_folder_without_a_certificate_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match="There is no certificate at"):
        recheck_folder(tmp_path)
