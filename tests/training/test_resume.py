"""A run that was killed goes on from its checkpoint to the very same weights; what is stored is safe."""

import errno
import json
import math
import os
import resource
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.training.batch import Batch
from slimline.training.checkpoint import FILE
from slimline.training.curve import Curve
from slimline.training.engine import Engine
from slimline.training.hook import Hook
from slimline.training.lesson import Loss
from slimline.training.plan import Plan
from slimline.training.recover import recover
from slimline.training.workspace import Workspace
from tests.toys import toy
from tests.training.small import (
    Made,
    cross_entropy,
    curves,
    differences,
    distance,
    files_of_at_most,
    images,
    layers,
    pictures,
    squared,
    with_dropout,
)

STEPS = 60


class Killed(Exception):
    """The run ends here, as if the machine had."""


def at_window(step: int) -> Workspace:
    """Where a run is killed when it tells of this step, before the step is stored."""

    def told(done: int, _: int) -> None:
        if done == step:
            raise Killed

    return Workspace(step=told)


def until(make: Callable[[int], Batch], step: int) -> Callable[[int], Batch]:
    """The batches of a run that is killed when it reads that of this step."""

    def made(number: int) -> Batch:
        if number == step:
            raise Killed
        return make(number)

    return made


class Drift(Hook):
    """Remembers the mean of every weight and pulls the weights towards it: what it does depends on all that it saw."""

    def begin(self, network: Network, steps: int) -> Network:
        self.mean = {name: torch.zeros_like(w) for name, w in network.weights().items() if w.is_floating_point()}
        self.count = torch.zeros((), dtype=torch.int64)
        return network

    @torch.no_grad()
    def before_step(self, network: Network, step: int) -> None:
        self.count += 1
        for name, mean in self.mean.items():
            weight = network.weights()[name]
            mean += (weight - mean) / self.count
            weight += 0.01 * (mean - weight) + 1e-4 * torch.randn(weight.shape)

    def penalty(self, network: Network, step: int) -> Tensor:
        return 1e-3 * torch.stack([w.abs().mean() for w in network.module.parameters()]).sum()

    def tensors(self) -> dict[str, Tensor]:
        return {**self.mean, "count": self.count}


class Projected(nn.Module):
    """A loss with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(2))
            self.layer.bias.zero_()

    def forward(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return squared((self.layer(outputs[0]),), batch)


def wavering(network: Network) -> float:
    """A score that follows from the weights alone and goes up and down, from 0 for the network as it came."""
    return math.sin(20 * distance(network, with_dropout()))


def nearness(network: Network) -> float:
    """The score of a judge who likes the network best as it came."""
    return -distance(network, with_dropout())


def run(plan: Plan, folder: Path | None, kill: int = 0, judge: Callable[[Network], float] = wavering) -> tuple[
    Network, Curve, Projected
]:  # fmt: skip
    """Everything at once; killed at step ``kill``: where a window ends at its end, else before its batch is read."""
    loss = Projected()
    windows = kill and kill % 20 == 0
    workspace = replace(at_window(kill) if windows else Workspace(), folder=folder, checkpoint_s=0.0)
    made = Made(curves if windows or not kill else until(curves, kill))
    return *recover(with_dropout(), made, loss, plan, judge, [Drift()], workspace), loss


EVERYTHING = Plan(STEPS, 0.01, ema=0.9, judge_every=5, patience=20, accumulate=2, weight_decay=0.01)


@pytest.mark.parametrize(
    ("kills", "optimizer", "precision"),
    [
        ((20,), "sgd", "fp32"),
        ((1, 33, 41), "adamw", "fp32"),
        ((40, 60), "rmsprop", "bf16"),
        ((59,), "adamw", "fp16"),
    ],
    ids=str,
)
def test_it_goes_on_to_the_very_same_end(
    kills: tuple[int, ...], optimizer: str, precision: str, tmp_path: Path
) -> None:
    plan = replace(EVERYTHING, optimizer=optimizer, precision=precision)
    whole, curve, loss = run(plan, None)
    assert len(curve.judged) > 4 and distance(whole, with_dropout()) > 0.01
    for kill in kills:
        with pytest.raises(Killed):
            run(plan, tmp_path, kill)
    trained, told, resumed = run(plan, tmp_path)
    assert differences(whole, trained) == []
    assert all(torch.equal(w, resumed.state_dict()[name]) for name, w in loss.state_dict().items())
    # A window's end is told before its last step is stored.
    noted = [f"Continued after step {kill - 1 if kill % 20 == 0 else kill} of {STEPS}." for kill in kills]
    assert told.notes == noted + curve.notes
    assert {**asdict(told), "notes": 0, "seconds": 0} == {**asdict(curve), "notes": 0, "seconds": 0}


@pytest.mark.parametrize("kill", [3, 12, 18])
def test_patience_goes_on_where_it_was(kill: int, tmp_path: Path) -> None:
    """Also when the network as it came was the best so far."""
    plan = replace(EVERYTHING, patience=4)
    whole, curve, _ = run(plan, None, judge=nearness)
    assert curve.judged == [0, 5, 10, 15, 20] and "the weights of step 0 were kept" in curve.notes[0]
    with pytest.raises(Killed):
        run(plan, tmp_path, kill, nearness)
    trained, told, _ = run(plan, tmp_path, judge=nearness)
    assert told.judged == curve.judged and told.scores == curve.scores and told.notes[1:] == curve.notes
    assert differences(whole, trained) == []


@pytest.mark.parametrize("network", [images, toy])
def test_convolutions_and_batch_norms_go_on_to_the_very_same_end_too(
    network: Callable[[], Network], tmp_path: Path
) -> None:
    """Their weights and momenta lie in another order in memory than in the file."""
    plan = Plan(12, 0.02)
    whole, _ = recover(network(), Made(pictures), cross_entropy, plan)
    with pytest.raises(Killed):
        recover(network(), Made(until(pictures, 7)), cross_entropy, plan, workspace=Workspace(tmp_path, 0.0))
    trained, curve = recover(network(), Made(pictures), cross_entropy, plan, workspace=Workspace(tmp_path, 0.0))
    assert curve.notes == ["Continued after step 7 of 12."] and differences(whole, trained) == []


def test_the_best_weights_so_far_are_stored_too(tmp_path: Path) -> None:
    """The loss explodes in the second run; the best weights are of the first."""

    def exploding(step: int) -> Batch:
        batch = curves(step)
        return batch if step < 21 else Batch(batch.inputs, (batch.targets[0] + 1e4,))

    plan = Plan(STEPS, 0.02)
    whole, told = recover(layers(), Made(exploding), squared, plan)
    assert "the weights of step 20 were kept" in told.notes[0]
    with pytest.raises(Killed):
        recover(layers(), Made(until(exploding, 30)), squared, plan, workspace=Workspace(tmp_path, 0.0))
    trained, curve = recover(layers(), Made(exploding), squared, plan, workspace=Workspace(tmp_path, 0.0))
    assert curve.notes == ["Continued after step 30 of 60.", *told.notes] and differences(whole, trained) == []


def killed(folder: Path, at: int = 30, plan: Plan = Plan(STEPS, 0.02), made: Made | None = None) -> Path:  # noqa: B008 - frozen
    """The checkpoint of a run that was killed."""
    made = made or Made(curves)
    with pytest.raises(Killed):
        stopped = replace(made, make=until(made.make, at))
        recover(layers(), stopped, squared, plan, workspace=Workspace(folder, 0.0))
    return folder / FILE


def test_checkpoints_are_as_far_apart_as_wanted_and_stay_until_the_result_is_stored(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        recover(layers(), Made(until(curves, 9)), squared, Plan(10, 0.1), workspace=Workspace(tmp_path, 3600.0))
    assert list(tmp_path.iterdir()) == []
    assert killed(tmp_path).exists() and [path.name for path in tmp_path.iterdir()] == [FILE]
    first, _ = recover(layers(), Made(curves), squared, Plan(STEPS, 0.02), workspace=Workspace(tmp_path, 0.0))
    again, curve = recover(layers(), Made(until(curves, 0)), squared, Plan(STEPS, 0.02), workspace=Workspace(tmp_path))
    assert curve.notes[-1] == f"Continued after step {STEPS} of {STEPS}." and again.digest() == first.digest()


def other(batch: Batch) -> Batch:
    return Batch(batch.inputs, (-batch.targets[0],))


@pytest.mark.parametrize(
    ("student", "made", "plan"),
    [
        (layers, Made(curves), Plan(STEPS, 0.03)),
        (layers, Made(curves), Plan(STEPS, 0.02, seed=1)),
        (layers, Made(lambda step: other(curves(step)), identity="other data"), Plan(STEPS, 0.02)),
        (layers, Made(lambda step: curves(step, 16), 16), Plan(STEPS, 0.02)),
        (with_dropout, Made(curves), Plan(STEPS, 0.02)),
    ],
    ids=["another rate", "another seed", "other data", "another size", "another network"],
)
def test_the_checkpoint_of_another_training_is_not_used(
    student: Callable[[], Network], made: Made, plan: Plan, tmp_path: Path
) -> None:
    killed(tmp_path)
    noted: list[str] = []
    expected, _ = recover(student(), made, squared, plan)
    trained, curve = recover(student(), made, squared, plan, workspace=Workspace(tmp_path, 0.0, note=noted.append))
    assert differences(expected, trained) == []
    assert curve.notes == noted == [f"The checkpoint in {tmp_path} is that of another training: beginning anew."]


def absolute(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
    return (outputs[0] - batch.targets[0]).abs().mean()


@pytest.mark.parametrize(("loss", "hooks"), [(absolute, 0), (squared, 1)], ids=["another loss", "another hook"])
def test_nor_is_that_of_another_loss_or_of_other_hooks(loss: Loss, hooks: int, tmp_path: Path) -> None:
    killed(tmp_path)
    plan, workspace = Plan(STEPS, 0.02), Workspace(tmp_path, 0.0)
    expected, _ = recover(layers(), Made(curves), loss, plan, hooks=[Drift()] * hooks)
    trained, _ = recover(layers(), Made(curves), loss, plan, hooks=[Drift()] * hooks, workspace=workspace)
    assert differences(expected, trained) == []


def test_a_checkpoint_is_tensors_and_text_and_nothing_else(tmp_path: Path) -> None:
    path = killed(tmp_path, plan=Plan(STEPS, 0.02, optimizer="adamw", ema=0.9))
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8 : 8 + length])
    facts = json.loads(head.pop("__metadata__")["facts"])
    assert facts["step"] == 30 and facts["curve"]["steps"] == [20]
    assert max(entry["data_offsets"][1] for entry in head.values()) == len(raw) - 8 - length
    with safe_open(path, "pt") as stored:
        names = set(stored.keys())
    assert names == set(head) >= {"weights/first.weight", "average/first.weight", "best/first.weight"}
    assert len([name for name in names if name.startswith("optimizer/") and name.endswith(".exp_avg_sq")]) == 4


def broken(path: Path, how: str) -> None:
    raw = path.read_bytes()
    if how == "cut off":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "something else":
        path.write_bytes(bytes(range(256)) * 40)
    elif how == "no facts":
        save_file(load_file(path), path)
    else:
        save_file(load_file(path), path, metadata={"facts": {"facts without names": "[1, 2]"}.get(how, "{")})


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (-1.0, "is that of this training for some of the processes and that of another for the rest: give all of them"),
        (0.0, "The processes do not see the same checkpoint in .*: give a folder that all machines share"),
        (20.0, "The processes do not see the same checkpoint in .*: give a folder that all machines share"),
    ],
    ids=["that of another training", "none", "an older one"],
)
def test_processes_that_would_go_on_from_different_steps_are_told_why(
    others: float, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the others find is made up here: of three, two see what this one sees, or that mean would be its own."""
    killed(tmp_path)
    monkeypatch.setattr(Engine, "every", lambda _, found: [found, 2 * found - others, others])
    with pytest.raises(SlimlineError, match=told):
        recover(layers(), Made(curves), squared, Plan(STEPS, 0.02), workspace=Workspace(tmp_path, 0.0))


@pytest.mark.parametrize(
    "how", ["cut off", "empty", "something else", "no facts", "facts without names", "facts that end too early"]
)
def test_a_damaged_checkpoint_is_one_sentence(how: str, tmp_path: Path) -> None:
    path = killed(tmp_path)
    broken(path, how)
    with pytest.raises(SlimlineError, match="delete it, and training begins anew") as caught:
        recover(layers(), Made(curves), squared, Plan(STEPS, 0.02), workspace=Workspace(tmp_path, 0.0))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def full(_: int) -> None:
    """What a disk says that is full, on which a process has no quota to tell it earlier."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("why", ["no room", "a limit", "a file in the place of the folder", "a folder in the way"])
@pytest.mark.parametrize("between", [0.0, 3600.0])
def test_training_goes_on_where_nothing_can_be_stored(
    why: str, between: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, noted = tmp_path / "store", list[str]()
    if why == "no room":
        monkeypatch.setattr(os, "fsync", full)
    elif why == "a file in the place of the folder":
        (tmp_path / "store").write_text("mine")
        folder = tmp_path / "store" / "below"
    elif why == "a folder in the way":
        (folder / f"{FILE}.partial" / "mine").mkdir(parents=True)
    workspace = Workspace(folder, between, note=noted.append)
    expected, _ = recover(layers(), Made(curves), squared, Plan(9, 0.02))
    with files_of_at_most(1000) if why == "a limit" else files_of_at_most(resource.RLIM_INFINITY):
        trained, curve = recover(layers(), Made(curves), squared, Plan(9, 0.02), workspace=workspace)
    assert differences(expected, trained) == []
    if between:
        assert curve.notes == []
    else:
        (note,) = curve.notes
        assert note.startswith(f"No checkpoint can be written to {folder} (") and "training goes on" in note
        assert noted == [note]
    if why in ("no room", "a limit"):
        assert not (folder / FILE).exists()
    if why == "no room" and not between:
        assert "No space left on device" in curve.notes[0]


def test_a_checkpoint_that_cannot_be_replaced_stays_whole(tmp_path: Path) -> None:
    path = killed(tmp_path)
    before = load_file(path)
    with files_of_at_most(1000), pytest.raises(Killed):
        recover(layers(), Made(until(curves, 45)), squared, Plan(STEPS, 0.02), workspace=Workspace(tmp_path, 0.0))
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_file(path).items())
    whole, _ = recover(layers(), Made(curves), squared, Plan(STEPS, 0.02))
    trained, curve = recover(layers(), Made(curves), squared, Plan(STEPS, 0.02), workspace=Workspace(tmp_path, 0.0))
    assert differences(whole, trained) == [] and curve.notes == ["Continued after step 30 of 60."]
