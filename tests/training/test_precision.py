"""The way of running a step that is chosen is the one that ends first, and trying leaves no trace."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.trace import trace
from slimline.training import precision
from slimline.training.batch import Batch
from slimline.training.plan import PRECISIONS, Plan
from slimline.training.precision import Speed, fastest_plan, step_speeds
from tests.toys import toy
from tests.training.small import Made, cross_entropy, curves, layers, pictures, squared, with_dropout

PLAN = Plan(10, 0.1, weight_decay=0.01, ema=0.9, patience=3, seed=5)


def test_every_precision_is_timed() -> None:
    speeds = step_speeds(toy(), Made(pictures), cross_entropy, PLAN)
    assert set(speeds) == set(PRECISIONS)
    assert all(s.seconds > 0 and not s.compiled and s.precision == name for name, s in speeds.items())


def test_a_short_run_takes_the_precision_with_the_shortest_step_uncompiled() -> None:
    chosen, speeds = fastest_plan(toy(), Made(pictures), cross_entropy, PLAN)
    fastest = min(speeds, key=lambda name: speeds[name].seconds)
    assert set(speeds) == set(PRECISIONS) and chosen == replace(PLAN, precision=fastest, compiled=False)


class Cast(nn.Module):
    """Says ``.float()`` behind a layer, as norms and softmaxes of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(self.body(image.flatten(1)).float().softmax(1))
        return result


def test_a_module_that_casts_is_trained_in_every_precision() -> None:
    speeds = step_speeds(trace(Cast(), {"image": torch.zeros(2, 1, 8, 8)}), Made(pictures), cross_entropy, PLAN)
    assert all(speed.failed == "" and math.isfinite(speed.seconds) for speed in speeds.values())


def test_a_precision_in_which_the_step_fails_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = precision._Probe.step

    def step(self: Any) -> float:
        if self.lesson.precision != "fp32":
            raise RuntimeError("index_add_(): self (Float) and source (BFloat16) must have the same scalar type")
        return real(self)

    monkeypatch.setattr(precision._Probe, "step", step)
    chosen, speeds = fastest_plan(toy(), Made(pictures), cross_entropy, PLAN)
    assert chosen.precision == "fp32" and speeds["bf16"].seconds == math.inf
    assert speeds["fp16"].failed.startswith("RuntimeError: index_add_(): self (Float) and source (BFloat16)")


def test_a_step_that_fails_in_every_precision_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Any) -> float:
        raise ValueError("no\nmore")

    monkeypatch.setattr(precision._Probe, "step", step)
    with pytest.raises(SlimlineError, match="A training step of the network fails in fp32: ValueError: no"):
        step_speeds(toy(), Made(pictures), cross_entropy, PLAN)


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe:
        def __init__(self, student: object, batches: object, loss: object, plan: Plan) -> None:
            self.plan = plan

        def step(self) -> float:
            if self.plan.compiled:
                raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")
            return 1.0

    monkeypatch.setattr(precision, "_Probe", Probe)
    chosen, speeds = fastest_plan(toy(), Made(pictures), cross_entropy, replace(PLAN, steps=1000))
    assert not chosen.compiled and speeds["fp32 compiled"].failed.endswith("No working C++ compiler found")


def test_a_choice_is_kept_for_the_training_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {"fp32": 3.0, "bf16": 1.0, "fp16": 2.0}, {})
    first, _ = fastest_plan(toy(), Made(pictures), cross_entropy, PLAN, tmp_path / "work")
    scripted(monkeypatch, {"fp32": 1.0, "bf16": 3.0, "fp16": 2.0}, {})
    again, speeds = fastest_plan(toy(), Made(pictures), cross_entropy, PLAN, tmp_path / "work")
    assert first == again == replace(PLAN, precision="bf16") and speeds == {}
    other, _ = fastest_plan(toy(), Made(pictures), cross_entropy, replace(PLAN, steps=11), tmp_path / "work")
    assert other.precision == "fp32"


def test_trying_leaves_no_trace() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
            return self.scale * squared(outputs, batch)

    network, loss, before = with_dropout(), Scaled(), torch.get_rng_state()
    digest = network.digest()
    step_speeds(network, Made(curves), loss, PLAN)
    assert network.digest() == digest and torch.equal(torch.get_rng_state(), before)
    assert loss.scale.item() == 1 and loss.scale.grad is None  # it would be a part of the first step


def scripted(patch: pytest.MonkeyPatch, plain: dict[str, float], compiled: dict[str, tuple[float, float]]) -> list[str]:
    """Compiling takes half a minute, so speeds are made up; which precisions were compiled."""
    tried: list[str] = []

    def try_it(student: object, batches: object, loss: object, plan: Plan) -> Speed:
        tried.append(plan.precision)
        return Speed(plan.precision, True, *compiled[plan.precision])

    patch.setattr(precision, "step_speeds", lambda *_: {name: Speed(name, False, s) for name, s in plain.items()})
    patch.setattr(precision, "compiled_speed", try_it)
    return tried


@pytest.mark.parametrize(
    ("steps", "compiled", "chosen", "tried"),
    [
        (100, {}, ("bf16", False), []),  # 100 s: too short to try
        (150, {"fp32": (0.5, 30), "bf16": (0.9, 30)}, ("fp32", True), ["fp32", "bf16"]),  # 105 s against 150
        (150, {"fp32": (0.9, 30), "bf16": (0.85, 30)}, ("bf16", False), ["fp32", "bf16"]),  # 157.5 s: does not pay
        (250, {"fp32": (0.9, 30), "bf16": (0.85, 30)}, ("bf16", True), ["fp32", "bf16"]),  # 242.5 s against 250
    ],
)
def test_compiling_has_to_pay_back_within_the_run(
    steps: int,
    compiled: dict[str, tuple[float, float]],
    chosen: tuple[str, bool],
    tried: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = scripted(monkeypatch, {"fp32": 2.0, "bf16": 1.0, "fp16": 3.0}, compiled)
    plan, _ = fastest_plan(layers(), Made(curves), squared, Plan(steps, 0.1))
    assert (plan.precision, plan.compiled) == chosen and found == tried


def test_the_same_precision_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = scripted(monkeypatch, {"fp32": 1.0, "bf16": 2.0, "fp16": 3.0}, {"fp32": (0.1, 30)})
    plan, speeds = fastest_plan(layers(), Made(curves), squared, Plan(1000, 0.1))
    assert plan.compiled and found == ["fp32"] and set(speeds) == {*PRECISIONS, "fp32 compiled"}


def test_what_is_hopeless_at_first_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Probe:
        def __init__(self, student: object, batches: object, loss: object, plan: Plan) -> None:
            self.precision = plan.precision

        def step(self) -> float:
            asked.append(self.precision)
            first = {"fp32": 1.0, "bf16": 2.0, "fp16": 2.1}[self.precision]
            return first if asked.count(self.precision) == 1 else first / asked.count(self.precision)

    monkeypatch.setattr(precision, "_Probe", Probe)
    speeds = step_speeds(layers(), Made(curves), squared, PLAN)
    assert [asked.count(name) for name in PRECISIONS] == [1 + precision.PROBE_STEPS] * 2 + [1]
    assert [speeds[name].seconds for name in PRECISIONS] == pytest.approx([1 / 5, 2 / 5, 2.1])
    assert asked[3:7] == ["fp32", "bf16", "fp32", "bf16"]  # in turn, so that a busy moment hits both
