"""The schedules by hand, one step of every optimiser by hand, and plans that make no sense."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.training.batch import Batch
from slimline.training.plan import OPTIMIZERS, SCHEDULES, Plan, schedule
from slimline.training.recover import recover
from tests.training.small import Made, line, squared, sums


def test_the_cosine_by_hand() -> None:
    """100 steps: ten of warm-up, then a cosine that is half way down in the middle of the other ninety."""
    assert [schedule(s, 100) for s in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert schedule(55, 100) == pytest.approx(0.5)
    assert schedule(99, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert [schedule(s, 1) for s in range(1)] == [1.0]


def test_the_other_schedules_by_hand() -> None:
    """The steps of He et al. (2015): a tenth at half of the run and at three quarters."""
    warmup = [(s + 1) / 10 for s in range(10)]
    assert [schedule(s, 100, "constant") for s in range(100)] == pytest.approx(warmup + [1.0] * 90)
    by_hand = warmup + [1.0] * 40 + [0.1] * 25 + [0.01] * 25
    assert [schedule(s, 100, "step") for s in range(100)] == pytest.approx(by_hand)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_the_factor_stays_in_its_range_rises_once_and_falls_once(steps: int, name: str) -> None:
    factors = [schedule(s, steps, name) for s in range(steps)]
    assert all(0 < f <= 1 for f in factors) and max(factors) == 1.0
    top = factors.index(1.0)
    assert factors[: top + 1] == sorted(factors[: top + 1]) and factors[top:] == sorted(factors[top:], reverse=True)


def test_the_rate_of_a_step_is_the_plans_times_its_schedules() -> None:
    assert Plan(100, 0.2).rate(55) == pytest.approx(0.1)
    assert Plan(100, 0.2, schedule="constant").rate(55) == pytest.approx(0.2)
    assert Plan(100, 0.2, schedule="step").rate(55) == pytest.approx(0.02)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (19, 1), (20, 1), (39, 2), (100, 5), (1010, 51)])
def test_left_to_itself_it_is_judged_at_most_twenty_times(steps: int, every: int) -> None:
    judged = [step for step in range(1, steps + 1) if Plan(steps, 0.1).judgement_after(step)]
    assert judged == sorted({*range(every, steps + 1, every), steps}) and len(judged) <= 20


def test_it_is_judged_as_often_as_wanted_and_at_the_end() -> None:
    plan = Plan(10, 0.1, judge_every=4)
    assert [step for step in range(1, 11) if plan.judgement_after(step)] == [4, 8, 10]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("limit", [0.7, 1e9])
def test_one_step_of_each_optimizer_by_hand(optimizer: str, limit: float) -> None:
    """Of g: Nesterov's SGD goes 1.9 rates of g, AdamW one rate by sign, RMSprop ten, since 0.01 g^2 are its first mean.

    A gradient longer than the limit is cut to it. Weights decay, biases do not.
    """
    network = line()
    start = {n: t.detach().clone() for n, t in network.weights().items()}
    x, y = sums(0).inputs["x"], sums(0).targets[0]
    error = x @ start["layer.weight"].T + start["layer.bias"] - y
    gradient = {"layer.weight": 2 * (error * x).mean(0, keepdim=True), "layer.bias": 2 * error.mean(0)}
    norm = float(torch.cat([g.flatten() for g in gradient.values()]).norm())
    assert norm > 0.7
    plan = Plan(1, 0.1, weight_decay=0.5, optimizer=optimizer, gradient_norm=limit)
    after = recover(network, Made(lambda step: sums(0)), squared, plan)[0].weights()
    for name, before in start.items():
        decay = 0.5 if name == "layer.weight" else 0.0
        slope = gradient[name] * min(1.0, limit / norm)
        by_hand = {
            "sgd": before - 0.1 * 1.9 * (slope + decay * before),
            "adamw": before - 0.1 * decay * before - 0.1 * slope.sign(),
            "rmsprop": before - 0.1 * 10 * (slope + decay * before).sign(),
        }
        np.testing.assert_allclose(after[name].detach(), by_hand[optimizer], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_decay_but_biases_do_not(optimizer: str) -> None:
    def nothing(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return 0 * outputs[0].sum()

    plan = Plan(20, 0.05, weight_decay=0.5, optimizer=optimizer)
    trained, _ = recover(line(), Made(sums), nothing, plan)
    before, after = line().weights(), trained.weights()
    assert after["layer.weight"].norm() < 0.9 * before["layer.weight"].norm()
    assert torch.equal(after["layer.bias"], before["layer.bias"])


def test_there_is_no_group_without_weights() -> None:
    for shapes, decays in (([(3,)], [0.0]), ([(3, 2)], [0.5]), ([(3,), (2, 2)], [0.5, 0.0])):
        weights = [nn.Parameter(torch.ones(shape)) for shape in shapes]
        groups = Plan(1, 0.1, weight_decay=0.5).make_optimizer(weights).param_groups
        assert [group["weight_decay"] for group in groups] == decays
        assert all(p.ndim > 1 for group in groups for p in group["params"] if group["weight_decay"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"optimizer": "adam"}, r"Plan\(optimizer='adam'\) is unknown: use sgd, adamw, rmsprop\."),
        ({"schedule": "linear"}, r"Plan\(schedule='linear'\) is unknown: use cosine, step, constant\."),
        ({"precision": "int8"}, r"Plan\(precision='int8'\) is unknown: use fp32, bf16, fp16\."),
        ({"steps": 0}, r"Plan\(steps=0\) is out of range: it is at least 1\."),
        ({"accumulate": 0}, r"Plan\(accumulate=0\)"),
        ({"judge_every": -1}, r"Plan\(judge_every=-1\)"),
        ({"patience": -1}, r"Plan\(patience=-1\)"),
        ({"weight_decay": -0.1}, r"Plan\(weight_decay=-0\.1\)"),
        ({"seed": -1}, r"Plan\(seed=-1\)"),
        ({"ema": 1.0}, r"Plan\(ema=1\.0, .*ema lies in \[0, 1\)"),
        ({"ema": -0.1}, "ema lies in"),
        ({"learning_rate": 0.0}, "the other two are above 0"),
        ({"learning_rate": math.nan}, "the other two are above 0"),
        ({"gradient_norm": 0.0}, "the other two are above 0"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_one_sentence(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SlimlineError, match=told) as caught:
        Plan(**{"steps": 10, "learning_rate": 0.1, **wrong})
    assert "\n" not in str(caught.value)
