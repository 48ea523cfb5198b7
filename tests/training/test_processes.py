"""Several processes train one network: the same weights as one process, after a crash too, and no survivor waits."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from slimline.network.container import save
from slimline.network.network import Network
from slimline.training.curve import Curve
from slimline.training.plan import Plan
from slimline.training.recover import recover
from tests.toys import Toy, toy
from tests.training.small import Made, curves, layers, pictures, squared, state, with_dropout

ROOT = Path(__file__).parents[2]
LIMIT = 120.0
"""Seconds after which a launcher counts as hanging; it takes about ten."""
WORKER = """
import json, os, signal, sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from slimline.errors import SlimlineError
from slimline.network.container import load, save
from slimline.training.batch import Batch
from slimline.training.plan import Plan
from slimline.training.recover import recover
from slimline.training.workspace import Workspace
from tests.training.small import Made, cross_entropy, curves, numbers, pictures, squared

torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
assert os.environ["WORLD_SIZE"] == "2"
(folder / f"pid{rank}").write_text(str(os.getpid()))


def twice(step):
    return curves(step, 16).moved(lambda x: torch.cat([x, x]))


def exploding(step):
    "The squared error is 0 in the first half and 1 in the second, then 1, and from step 21 on 10,000."
    x = numbers(step)
    off = torch.ones(32, 1) if step < 20 else torch.full((32, 1), 100.0)
    if step == 0:
        off[:16] = 0
    return Batch({"x": x}, (student.run({"x": x})[0] + off,))


def spoiled(step):
    "From step 13 on the last sample, which the second process reads, is no number."
    batch = curves(step)
    if step >= 12:
        batch.inputs["x"][-1] = float("nan")
    return batch


def picky(network):
    "A user's score, which takes numbers only."
    found, wanted = network.run(curves(999).inputs)[0], curves(999).targets[0]
    if not torch.isfinite(found).all():
        raise SlimlineError("The score of sample 0 is nan: scores have to be finite numbers.")
    return -float((found - wanted).square().mean())


def image(network):
    "The share of unseen pictures whose class is found."
    return float((network.run(pictures(999).inputs)[0].argmax(1) == pictures(999).targets[0]).double().mean())


def failing(network):
    "Judges the network as it came, and no other."
    said = [value for value in network.weights().values()]
    if any(not torch.equal(one, other) for one, other in zip(said, student.weights().values())):
        raise ValueError("no score today")
    return 0.0


MADE = {"twice": twice, "exploding": exploding, "spoiled": spoiled, "pictures": pictures}
JUDGES = {"picky": picky, "failing": failing, "image": image}


def work(job):
    def make(step):
        if rank == 1 and step == job.get("dies_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 0:
            (folder / "step").write_text(f"{step:9d}")
        return MADE[job["made"]](step) if "made" in job else curves(step, size)

    size, store = job["size"], folder / job.get("folder", f"{name}-store") if job.get("store") else None
    workspace, judge = Workspace(store, 0.0, job.get("tracker", "")), JUDGES.get(job.get("judge"))
    loss = cross_entropy if job.get("made") == "pictures" else squared
    trained, curve = recover(student, Made(make, size), loss, Plan(**job["plan"]), judge, workspace=workspace)
    save(trained, folder / f"{name}-{rank}.slim")
    save_file({n: t.detach() for n, t in trained.weights().items()}, folder / f"{name}-{rank}.safetensors")
    (folder / f"{name}-{rank}.json").write_text(json.dumps(curve.as_json()))


for name, job in json.loads((folder / "jobs.json").read_text()).items():
    student = load(folder / job.get("student", "layers.slim").format(rank=rank))
    try:
        work(job)
    except (SlimlineError, ValueError) as error:
        (folder / f"{name}-{rank}.error").write_text(str(error))
"""
DROPOUT = {"student": "dropout.slim"}
LONG = {"steps": 150, "learning_rate": 0.01, "optimizer": "adamw", "ema": 0.9, "accumulate": 2}
BATCH_NORM = {"size": 32, "made": "pictures", "student": "toy.slim"}
EXPLODING = {"size": 32, "made": "exploding", "plan": {"steps": 60, "learning_rate": 1e-9, "weight_decay": 0}}


def prepare(folder: Path, jobs: dict[str, Any]) -> Path:
    """The script, the networks and the jobs in a folder; the path of the script."""
    folder.mkdir(exist_ok=True)
    save(layers(), folder / "layers.slim")
    save(with_dropout(), folder / "dropout.slim")
    save(toy(), folder / "toy.slim")
    (folder / "file").write_text("in the way of folders")
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = folder / "worker.py"
    script.write_text(WORKER)
    return script


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def torchrun(script: Path) -> subprocess.Popen[str]:
    """Two processes of the script under way."""
    how = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    return launch(["-m", *how, str(script), str(script.parent)])


def launch(arguments: Sequence[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def end(folder: Path, process: subprocess.Popen[str]) -> None:
    """Kill a launcher and then its workers, which it could otherwise ask to end in good order."""
    alive = process.poll() is None
    for number in [process.pid, *(int(path.read_text() or 0) for path in folder.glob("pid*"))] if alive else ():
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate(timeout=LIMIT)


def finished(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait for a launcher that ends well."""
    try:
        output = process.communicate(timeout=LIMIT)[0]
    finally:
        end(folder, process)
    assert process.returncode == 0, output


def trained(folder: Path, job: str, rank: int) -> tuple[dict[str, Tensor], Curve]:
    """What a process wrote about a job."""
    weights = load_file(folder / f"{job}-{rank}.safetensors")
    return weights, Curve(**json.loads((folder / f"{job}-{rank}.json").read_text()))


SPOILED = {"steps": 60, "learning_rate": 0.02, "judge_every": 5}
JOBS: dict[str, Any] = {
    "whole": {"size": 32, "plan": {"steps": 25, "learning_rate": 0.05}},
    "parts": {"size": 33, "plan": {"steps": 25, "learning_rate": 0.05, "accumulate": 2}},
    "unequal parts": {"size": 5, "plan": {"steps": 25, "learning_rate": 0.01, "accumulate": 3, "optimizer": "adamw"}},
    "twice the same": {"size": 32, "made": "twice", "plan": {"steps": 25, "learning_rate": 0.05}},
    "twice with dropout": {"size": 32, "made": "twice", "plan": {"steps": 25, "learning_rate": 0.05}, **DROPOUT},
    "batch norm": {**BATCH_NORM, "plan": {"steps": 5, "learning_rate": 1e-12, "weight_decay": 0}},
    "spoiled": {"size": 32, "made": "spoiled", "judge": "picky", "plan": SPOILED},
    "no score": {"size": 32, "judge": "failing", "plan": {"steps": 25, "learning_rate": 0.05}},
    "too few samples": {"size": 1, "plan": {"steps": 25, "learning_rate": 0.05}},
}
DEAD = {"size": 32, "dies_at": 5, "plan": {"steps": 10**6, "learning_rate": 0.01}}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """The folder, exit code and output of a launch that worked through `JOBS`, and in which a worker then died."""
    folder = tmp_path_factory.mktemp("launched")
    process = torchrun(prepare(folder, {**JOBS, "dead": DEAD}))
    try:
        output = process.communicate(timeout=LIMIT)[0]
    finally:
        end(folder, process)
    return folder, process.returncode, output


@pytest.mark.parametrize("job", ["whole", "parts", "unequal parts"])
def test_two_processes_come_to_the_weights_and_losses_of_one(launched: tuple[Path, int, str], job: str) -> None:
    size, plan = JOBS[job]["size"], Plan(**JOBS[job]["plan"])
    alone, curve = recover(layers(), Made(lambda step: curves(step, size), size), squared, plan)
    assert curve.processes == 1
    for rank in (0, 1):
        weights, told = trained(launched[0], job, rank)
        assert told.processes == 2
        np.testing.assert_allclose(told.losses, curve.losses, rtol=1e-4)
        for name, tensor in alone.weights().items():
            torch.testing.assert_close(weights[name], tensor.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("job", "equal"), [("twice the same", True), ("twice with dropout", False)])
def test_processes_draw_their_own_dropout(launched: tuple[Path, int, str], job: str, equal: bool) -> None:
    """Both learn from the same samples; with the same draws they would come to the weights of one of them alone."""
    student = layers() if equal else with_dropout()
    alone, _ = recover(student, Made(lambda step: curves(step, 16), 16), squared, Plan(**JOBS[job]["plan"]))
    weights = [trained(launched[0], job, rank)[0] for rank in (0, 1)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    apart = max(float((weights[0][name] - tensor).detach().abs().max()) for name, tensor in alone.weights().items())
    assert apart < 1e-5 if equal else apart > 1e-3


def test_every_process_hands_back_the_running_statistics_of_the_main_one(launched: tuple[Path, int, str]) -> None:
    """Those of a torch module that sees the first half of every batch; the weights hardly move."""
    model = Toy()
    model.load_state_dict(state(toy()), strict=False)
    model.train()
    for step in range(5):
        model(pictures(step).inputs["image"][:16])
    weights = [trained(launched[0], "batch norm", rank)[0] for rank in (0, 1)]
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert float((weights[0]["stem_norm.running_mean"] - toy().weights()["stem_norm.running_mean"]).abs().max()) > 1e-3


def test_a_judgement_on_weights_that_are_no_numbers_ends_it_with_the_best(launched: tuple[Path, int, str]) -> None:
    """The loss of the second process is NaN at step 13, the judgement after step 15, the window ends at step 20."""
    seen: list[dict[str, Tensor]] = []

    def look(network: Network) -> float:
        seen.append(state(network))
        return 0.0

    recover(layers(), Made(curves), squared, Plan(**SPOILED), look)
    for rank in (0, 1):
        assert not (launched[0] / f"spoiled-{rank}.error").exists()
        weights, told = trained(launched[0], "spoiled", rank)
        (note,) = told.notes
        assert note.startswith("Training stopped at step 15 of 60: the loss exploded to nan from ")
        assert "the weights of step 10 were kept" in note and told.judged == [0, 5, 10]
        for name, tensor in seen[2].items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5)


def test_a_judge_that_fails_ends_every_process(launched: tuple[Path, int, str]) -> None:
    """The main one says why; the others would otherwise wait for its score for ever."""
    told = [(launched[0] / f"no score-{rank}.error").read_text() for rank in (0, 1)]
    assert told[0] == "no score today"
    assert told[1].startswith("The main process cannot judge the network after step 2 of 25, and says why")


def test_more_processes_than_samples_are_refused_in_every_process(launched: tuple[Path, int, str]) -> None:
    for rank in (0, 1):
        told = (launched[0] / f"too few samples-{rank}.error").read_text()
        assert told.startswith("2 processes cannot share batches of 1 samples: use larger batches or fewer processes")


def test_when_a_worker_dies_the_launcher_ends_and_names_it(launched: tuple[Path, int, str]) -> None:
    folder, code, output = launched
    dead = (folder / "pid1").read_text()
    assert code != 0
    assert "Signal 9 (SIGKILL)" in output and f"(pid: {dead})" in output and "rank      : 1 (local_rank: 1)" in output
    assert not (folder / "dead-0.json").exists()


@pytest.mark.slow
def test_a_run_killed_with_its_launcher_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    job = {"size": 33, "plan": LONG, **DROPOUT}
    finished(torchrun(prepare(tmp_path / "whole", {"run": job})), tmp_path / "whole")
    killed = tmp_path / "killed"
    script = prepare(killed, {"run": {**job, "store": True}})
    process, wanted, started = torchrun(script), random.SystemRandom().randrange(25, 100), time.monotonic()
    try:
        while not (killed / "step").exists() or int((killed / "step").read_text() or 0) < wanted:
            assert process.poll() is None and time.monotonic() - started < LIMIT
            time.sleep(0.002)
    finally:
        end(killed, process)
    assert not (killed / "run-0.json").exists() and (killed / "run-store" / "checkpoint.safetensors").exists()
    finished(torchrun(script), killed)
    for rank in (0, 1):
        weights, curve = trained(killed, "run", rank)
        expected, whole = trained(tmp_path / "whole", "run", rank)
        assert len(curve.notes) == 1 and curve.notes[0].endswith(" of 150.")
        # Several processes store a run at the end of a window, of 20 steps.
        assert int(curve.notes[0].removeprefix("Continued after step ").split()[0]) >= wanted - 21
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
        assert curve.losses == whole.losses and curve.start == whole.start


@pytest.mark.slow
def test_accelerate_launches_it_too_with_a_tracker_and_run_after_run(tmp_path: Path) -> None:
    tracked = {**JOBS["whole"], "store": True, "tracker": "tensorboard"}
    script = prepare(tmp_path, {"whole": tracked, "again": JOBS["whole"]})
    how = [
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_machines",
        "1",
        "--num_processes",
        "2",
        "--main_process_port",
        free_port(),
    ]
    finished(launch(["-m", *how, "--mixed_precision", "no", str(script), str(tmp_path)]), tmp_path)
    alone, _ = recover(layers(), Made(curves), squared, Plan(**JOBS["whole"]["plan"]))
    for job, rank in (("whole", 0), ("whole", 1), ("again", 0), ("again", 1)):
        weights, told = trained(tmp_path, job, rank)
        assert told.processes == 2
        for name, tensor in alone.weights().items():
            torch.testing.assert_close(weights[name], tensor.detach(), rtol=0, atol=1e-5)
    assert len(list((tmp_path / "whole-store").rglob("*tfevents*"))) >= 1


@pytest.mark.slow
def test_an_explosion_ends_the_run_in_every_process_at_the_same_step(tmp_path: Path) -> None:
    """Although the loss of the first step is small in the share of the one and large in that of the other."""
    finished(torchrun(prepare(tmp_path, {"run": EXPLODING})), tmp_path)
    told = [trained(tmp_path, "run", rank) for rank in (0, 1)]
    assert told[0][1].notes == told[1][1].notes and "exploded" in told[0][1].notes[0]
    assert all(torch.equal(told[0][0][name], told[1][0][name]) for name in told[0][0])


@pytest.mark.slow
def test_two_trainings_with_batch_norm_killed_in_the_second_go_on_to_the_same_weights(tmp_path: Path) -> None:
    """The second is known by what the first handed back, which therefore has to be the same in every process."""
    second = {**LONG, "steps": 50, "judge_every": 10, "patience": 9}
    jobs = {
        "first": {**BATCH_NORM, "plan": {"steps": 5, "learning_rate": 0.02}},
        "second": {**BATCH_NORM, "student": "first-{rank}.slim", "judge": "image", "plan": second},
    }
    finished(torchrun(prepare(tmp_path / "whole", jobs)), tmp_path / "whole")
    killed = tmp_path / "killed"
    jobs["second"]["store"] = True
    process = torchrun(prepare(killed, {**jobs, "second": {**jobs["second"], "dies_at": 25}}))
    try:
        assert process.wait(LIMIT) != 0
    finally:
        end(killed, process)
    assert (killed / "second-store" / "checkpoint.safetensors").exists() and not (killed / "second-0.json").exists()
    finished(torchrun(prepare(killed, jobs)), killed)
    expected, whole = trained(tmp_path / "whole", "second", 0)
    for rank in (0, 1):
        weights, curve = trained(killed, "second", rank)
        assert curve.notes == ["Continued after step 20 of 50.", *whole.notes]
        assert (curve.judged, curve.scores, curve.losses) == (whole.judged, whole.scores, whole.losses)
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


@pytest.mark.slow
def test_a_tracker_that_fails_in_the_main_process_is_noted_there_and_changes_nothing(tmp_path: Path) -> None:
    tracked = {**JOBS["whole"], "store": True, "folder": "file/below", "tracker": "tensorboard"}
    finished(torchrun(prepare(tmp_path, {"run": tracked})), tmp_path)
    alone, curve = recover(layers(), Made(curves), squared, Plan(**JOBS["whole"]["plan"]))
    for rank in (0, 1):
        weights, told = trained(tmp_path, "run", rank)
        noted = [note for note in told.notes if note.startswith("The tracker tensorboard failed (")]
        assert len(noted) == (1 if rank == 0 else 0)
        np.testing.assert_allclose(told.losses, curve.losses, rtol=1e-4)
        for name, tensor in alone.weights().items():
            torch.testing.assert_close(weights[name], tensor.detach(), rtol=0, atol=1e-5)
