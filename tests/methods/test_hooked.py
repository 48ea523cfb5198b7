"""A method that takes part in a distillation: its hook is called, what it passes on arrives, its name is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from slimline.errors import SlimlineError
from slimline.methods.distill.distill import Distill
from slimline.methods.hooked import trained, trainer
from slimline.methods.method import Method, Outcome, param
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.hook import Hook
from slimline.training.workspace import Workspace
from tests.toys import toy, toy_task


@dataclass(frozen=True)
class Guest(Method):
    """Trains with a hook that writes down when it is called."""

    training: Mapping[str, Any] = param({}, doc="other hyperparameters of Distill")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        by = trainer(self, {"epochs": 3.0, "seed": 1}, self.training)
        return trained(self, by, network, task, workspace, Told("ours", CALLS))


CALLS: list[str] = []


class Told(Hook):
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def after_step(self, network: Network, step: int) -> None:
        self.calls.append(f"{self.name} {step}")


def test_it_is_the_distillation_with_a_hook() -> None:
    """A hook that does nothing to the network changes nothing; the curve is under the name of the guest."""
    CALLS.clear()
    task = toy_task(train=64).with_original(toy())
    outcome = Guest(training={"batch": 32, "ema": 0.5}).apply(toy(), task)
    expected = Distill(epochs=3.0, seed=1, batch=32, ema=0.5).apply(toy(), task)
    assert [f"ours {step}" for step in range(6)] == CALLS
    weights = expected.network.weights()
    assert all(torch.equal(w, weights[name]) for name, w in outcome.network.weights().items())
    ((name, curve),) = outcome.curves
    assert name == "Guest(training={'batch': 32, 'ema': 0.5})" and curve.planned == 6


def test_hooks_of_the_workspace_come_first() -> None:
    CALLS.clear()
    workspace = Workspace(hooks=(Told("theirs", CALLS),))
    Guest(training={"batch": 64}).apply(toy(), toy_task(train=64).with_original(toy()), workspace)
    assert [f"{name} {step}" for step in range(3) for name in ("theirs", "ours")] == CALLS


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"epochs": 3.0}, r"Guest\(training=...\) says epochs, which Guest has itself: give it there"),
        ({"seed": 3}, r"Guest\(training=...\) says seed, which Guest has itself"),
        ({"rate": 3}, r"Guest\(training=\{'rate': 3\}\) is not for Distill: .*'rate'"),
        ({"batch": 1}, r"Distill\(batch=1\) is out of range"),
    ],
)
def test_hyperparameters_that_are_not_for_it_are_one_sentence(training: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        Guest(training=training).apply(toy(), toy_task().with_original(toy()))


def test_it_needs_data_and_the_original() -> None:
    with pytest.raises(SlimlineError, match="Guest needs data: pass a Task"):
        Guest().apply(toy())
    with pytest.raises(SlimlineError, match="Guest needs the original network: apply it in a Recipe"):
        Guest().apply(toy(), toy_task())
