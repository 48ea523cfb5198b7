"""A finished run is checked again from its files; whoever changed one byte is found out."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.network.container import save
from slimline.report.run_folder import optimize
from slimline.runtimes.runtime import Artifact
from slimline.search import recheck as recheck_module
from slimline.search.budget import Budget
from slimline.search.optimize import Settings
from slimline.search.recheck import Check, recheck, stored_source
from slimline.sources.source import read_data
from slimline.task import FileArrays, Task
from slimline.training import private as private_module
from tests.search.stand_ins import outputs_here, planted_race, pretending
from tests.toys import SHORT_RACE, copy_of_finished_run, finished_run, patterns, toy

CLAIMS = [
    "the artifact's checksum",
    "the artifact's size",
    "the original's checksum",
    "the data",
    "the score",
    "it is faster than the original in PyTorch",
]


def four_times(artifact: Artifact) -> float:
    return 4.0 if artifact.runtime == "torch" else 1.0


@contextmanager
def in_process(milliseconds: Any = four_times) -> Iterator[None]:
    """Nothing is started and nothing is timed."""
    with (
        patch.object(recheck_module, "race", planted_race(milliseconds)),
        patch.object(recheck_module, "artifact_outputs", outputs_here),
    ):
        yield


def certificate(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "certificate.json").read_text())
    return read


def by_claim(folder: Path, changed: dict[str, Any] | None = None) -> dict[str, Check]:
    with in_process():
        return {c.what: c for c in recheck(folder, changed or certificate(folder))}


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_an_untouched_run_holds() -> None:
    """In fresh processes and with a real race, as `slimline verify` does it."""
    folder, result = finished_run()
    with patch.object(recheck_module, "QUICK", SHORT_RACE):
        checks = recheck(folder, certificate(folder))
    assert [c.what for c in checks] == CLAIMS
    assert [c.holds for c in checks[:-1]] == [True] * 5
    assert result.certificate["best"]["sha256"].startswith(checks[0].found)


def test_a_run_holds_wherever_its_folder_is(tmp_path: Path) -> None:
    assert {c.holds for c in by_claim(copy_of_finished_run(tmp_path)).values()} == {True}


def test_one_flipped_byte_of_the_artifact_is_found(tmp_path: Path) -> None:
    folder = copy_of_finished_run(tmp_path)
    path = folder / certificate(folder)["best"]["artifact"]
    largest = max((bytes(tensor.raw_data) for tensor in onnx.load(path).graph.initializer), key=len)
    flip(path, path.read_bytes().index(largest) + len(largest) // 2)  # among the weights: the file can still be loaded
    checks = by_claim(folder)
    assert checks["the artifact's checksum"].holds is False
    assert checks["the artifact's size"].holds is True


def test_a_changed_original_is_found(tmp_path: Path) -> None:
    folder = copy_of_finished_run(tmp_path)
    other = next(
        p for p in sorted((folder / "networks").iterdir()) if p.read_bytes() != (folder / "original.slim").read_bytes()
    )
    shutil.copy(other, folder / "original.slim")
    assert by_claim(folder)["the original's checksum"].holds is False


def test_other_data_are_found(tmp_path: Path) -> None:
    folder = copy_of_finished_run(tmp_path)
    written = certificate(folder)
    written["hashes"]["data"] = "0" * 64
    checks = by_claim(folder, written)
    assert checks["the data"].holds is False and "the score" not in checks


def test_a_pass_that_the_data_do_not_bear_out_is_found(tmp_path: Path) -> None:
    """The same files with a smaller budget: 210 samples without a loss bear out 1.3 points, not 0.1."""
    folder = copy_of_finished_run(tmp_path)
    written = certificate(folder)
    written["budget"]["max_drop"] = 0.001
    found = by_claim(folder, written)["the score"]
    assert found.holds is False and "CAN'T TELL" in found.found
    written["verdict"] = "CAN'T TELL"
    assert by_claim(folder, written)["the score"].holds is True


def test_a_result_that_is_slower_here_is_found(tmp_path: Path) -> None:
    folder = copy_of_finished_run(tmp_path)
    with in_process(lambda artifact: 1.0 if artifact.runtime == "torch" else 2.0):
        found = recheck(folder, certificate(folder))[-1]
    assert found.holds is False and found.found.startswith("0.50 times faster than PyTorch eager here")


@pytest.mark.parametrize("name", ["original.slim", "artifacts"])
def test_a_run_that_is_not_whole_is_one_sentence(tmp_path: Path, name: str) -> None:
    folder = copy_of_finished_run(tmp_path)
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    with pytest.raises(SlimlineError, match="is missing: give the whole folder of the run"):
        recheck(folder, certificate(folder))


def test_without_its_job_the_score_is_not_checked_and_that_is_said(tmp_path: Path) -> None:
    folder = copy_of_finished_run(tmp_path)
    for leftover in folder.glob("study.sqlite*"):
        leftover.unlink()
    assert stored_source(folder) is None
    score = by_claim(folder)["the score"]
    assert score.holds is None and "JOB.py" in score.found


def test_a_study_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "study.sqlite").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(SlimlineError, match="study.sqlite cannot be read .*: copy the run's folder again"):
        stored_source(tmp_path)


def test_the_job_of_a_run_is_remembered() -> None:
    folder, _ = finished_run()
    assert stored_source(folder) == str((folder.parent / "toy_job.py").resolve())


def test_a_run_that_learnt_from_synthetic_samples_is_checked(tmp_path: Path) -> None:
    """The samples are those in the run's folder; nothing is made anew."""
    model = save(toy(), tmp_path / "toy.slim")
    np.savez(tmp_path / "data.npz", image=patterns(300, seed=2)[0])
    data = FileArrays(read_data(tmp_path / "data.npz"), str(tmp_path / "data.npz"))
    made = {"image": torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
    with pretending():
        budget, settings = Budget(max_drop=0.3, time_s=2.0), Settings(tmp_path / "run", ("onnxruntime",))
        with patch.object(private_module, "synthesize", return_value=made):
            optimize(model, Task(validate=data, train="synthetic", score="cosine"), budget=budget, settings=settings)
        with patch.object(private_module, "synthesize", side_effect=AssertionError("made before")):
            checks = by_claim(tmp_path / "run")
    assert checks["the data"].holds and checks["the score"].holds


def test_a_run_from_a_model_file_and_a_data_file_is_checked_with_both(tmp_path: Path) -> None:
    model = save(toy(), tmp_path / "toy.slim")
    np.savez(tmp_path / "data.npz", image=patterns(300, seed=2)[0])
    task = Task(validate=FileArrays(read_data(tmp_path / "data.npz"), str(tmp_path / "data.npz")), score="cosine")
    with pretending():
        budget, settings = Budget(max_drop=0.3, time_s=2.0), Settings(tmp_path / "run", ("onnxruntime",))
        optimize(model, task, budget=budget, settings=settings)
        checks = by_claim(tmp_path / "run")
    assert checks["the data"].holds and checks["the score"].holds
    (tmp_path / "data.npz").unlink()
    assert "data.npz, the data of the run, is no longer there" in by_claim(tmp_path / "run")["the score"].found
