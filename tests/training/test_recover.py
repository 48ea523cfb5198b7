"""The loop learns what can be learnt, follows its schedule, and says when it diverges."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.training.recover import (
    GRADIENT_NORM_LIMIT,
    Batch,
    Plan,
    channels_last_,
    faster_precision,
    recover,
    schedule,
)
from tests.toys import patterns, toy


def test_the_schedule_by_hand() -> None:
    """100 steps: ten of warm-up, then a cosine that is half way down in the middle of the other ninety."""
    assert [schedule(s, 100) for s in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert schedule(55, 100) == pytest.approx(0.5)
    assert schedule(99, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert [schedule(s, 1) for s in range(1)] == [1.0]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_the_factor_stays_in_its_range_rises_once_and_falls_once(steps: int) -> None:
    factors = [schedule(s, steps) for s in range(steps)]
    assert all(0 < f <= 1 for f in factors) and max(factors) == 1.0
    top = factors.index(1.0)
    assert factors[: top + 1] == sorted(factors[: top + 1]) and factors[top:] == sorted(factors[top:], reverse=True)


class Line(nn.Module):
    """A weighted sum of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


def squared(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
    return (outputs[0] - batch.targets[0]).square().mean()


def next_batch(step: int) -> Batch:
    x = torch.from_numpy(np.random.default_rng(step).normal(size=(32, 3)).astype(np.float32))
    return Batch({"x": x}, (x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3,))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_finds_the_weights_that_made_the_targets(optimizer: str) -> None:
    plan = Plan(200, {"sgd": 0.05, "adamw": 0.15}[optimizer], weight_decay=0, optimizer=optimizer)
    trained, curve = recover(trace(Line(), [torch.randn(2, 3)]), next_batch, squared, plan)
    weights = trained.weights()
    np.testing.assert_allclose(weights["layer.weight"].detach(), [[1, -2, 0.5]], atol=1e-3)
    np.testing.assert_allclose(weights["layer.bias"].detach(), [3], atol=1e-3)
    assert curve.steps == list(range(20, 201, 20)) and len(curve.losses) == 10
    assert curve.losses[-1] < 1e-4 < curve.losses[0] and curve.seconds > 0


def test_the_curve_holds_means_of_twenty_steps_and_what_is_left() -> None:
    told: list[tuple[int, int]] = []
    network = trace(Line(), [torch.randn(2, 3)])
    plan = Plan(25, 1e-9, weight_decay=0)  # too slow to move, so that the losses are those of the first network
    _, curve = recover(network, next_batch, squared, plan, lambda done, total: told.append((done, total)))
    at_start = [float(squared(network.run(next_batch(s).inputs), next_batch(s))) for s in range(25)]
    assert curve.steps == [20, 25] and told == [(20, 25), (25, 25)]
    np.testing.assert_allclose(curve.losses, [np.mean(at_start[:20]), np.mean(at_start[20:])], rtol=1e-4)


def test_weights_decay_but_biases_do_not() -> None:
    network = trace(Line(), [torch.randn(2, 3)])

    def nothing(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return 0 * outputs[0].sum()

    trained, _ = recover(network, next_batch, nothing, Plan(20, 0.1, weight_decay=0.5))
    before, after = network.weights(), trained.weights()
    assert after["layer.weight"].norm() < 0.9 * before["layer.weight"].norm()
    assert torch.equal(after["layer.bias"], before["layer.bias"])


def image_batch(step: int) -> Batch:
    images, labels = patterns(32, seed=100 + step)
    return Batch({"image": torch.from_numpy(images)}, (torch.from_numpy(labels),))


def cross_entropy(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(outputs[0], batch.targets[0])


def state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.weights().items()}


def test_batch_norm_learns_statistics_while_training_and_uses_them_afterwards() -> None:
    network = toy()
    before, mode = state(network), network.is_training()
    trained, _ = recover(network, image_batch, cross_entropy, Plan(5, 0.01))
    assert not mode and not trained.is_training() and not network.is_training()
    assert not torch.equal(trained.weights()["stem_norm.running_mean"], before["stem_norm.running_mean"])
    image = torch.from_numpy(patterns(8, seed=1)[0])
    alone = torch.cat([trained.run({"image": image[i : i + 1]})[0] for i in range(8)])
    torch.testing.assert_close(alone, trained.run({"image": image})[0])
    trained.verify()


def test_the_student_is_left_as_it_was() -> None:
    network = toy()
    before, code = state(network), network.module.code
    recover(network, image_batch, cross_entropy, Plan(3, 0.01))
    assert all(torch.equal(before[n], t) for n, t in network.weights().items()) and network.module.code == code


def test_the_same_batches_give_the_same_weights() -> None:
    one, other = (state(recover(toy(), image_batch, cross_entropy, Plan(6, 0.05))[0]) for _ in range(2))
    assert all(torch.equal(one[n], other[n]) for n in one)


def test_a_loss_that_is_no_number_stops_it_with_one_sentence() -> None:
    def broken(step: int) -> Batch:
        batch = image_batch(step)
        return Batch({"image": batch.inputs["image"] * (math.inf if step == 3 else 1)}, batch.targets)

    with pytest.raises(SlimlineError, match=r"Recovery diverged at step 3 of 9 \(loss nan\): lower the learning rate"):
        recover(toy(), broken, cross_entropy, Plan(9, 0.01))


def test_a_rate_far_too_high_stops_it_with_one_sentence() -> None:
    def steep(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return (outputs[0] * 1e15).square().square().sum()

    with pytest.raises(SlimlineError, match="lower the learning rate .now 10.0."):
        recover(toy(), image_batch, steep, Plan(50, 10.0))


def test_bf16_trains_too_and_leaves_float32_weights() -> None:
    def loss_of(network: Network) -> float:
        return float(cross_entropy(network.run(image_batch(50).inputs), image_batch(50)))

    damaged = toy()
    for tensor in damaged.module.parameters():
        tensor.data += 0.15 * torch.randn(tensor.shape)
    trained, _ = recover(damaged, image_batch, cross_entropy, Plan(40, 0.05, precision="bf16"))
    assert loss_of(trained) < 0.3 * loss_of(damaged)
    assert {t.dtype for t in trained.weights().values()} == {torch.float32}


def test_weights_are_contiguous_again_although_training_stores_them_channels_last() -> None:
    network = toy()
    assert not channels_last_(network.copy()).weights()["inner.weight"].is_contiguous()
    trained, _ = recover(network, image_batch, cross_entropy, Plan(2, 0.01))
    assert all(t.is_contiguous() for t in trained.weights().values())


def test_the_faster_precision_is_the_one_with_the_shorter_step() -> None:
    chosen, seconds = faster_precision(toy(), image_batch, cross_entropy)
    assert set(seconds) == {"fp32", "bf16"} and min(seconds.values()) > 0
    assert chosen == min(seconds, key=lambda name: seconds[name])


def test_one_step_of_each_optimizer_by_hand() -> None:
    """The first step of Nesterov's SGD is 1.9 gradients long, that of AdamW one rate by sign; weights decay."""
    network = trace(Line(), [torch.randn(2, 3)])
    batch = next_batch(0)
    start = {n: t.detach().clone() for n, t in network.weights().items()}
    probe = network.copy()
    squared((probe.module(batch.inputs["x"])[0],), batch).backward()  # type: ignore[no-untyped-call]
    gradient = {n: t.grad for n, t in probe.weights().items()}
    norm = torch.cat([g.flatten() for g in gradient.values() if g is not None]).norm()
    for optimizer in ("sgd", "adamw"):
        plan = Plan(1, 0.1, weight_decay=0.5, optimizer=optimizer)
        after = recover(network, lambda step: next_batch(0), squared, plan)[0].weights()
        for name, before in start.items():
            decay = 0.5 if name == "layer.weight" else 0.0
            slope = gradient[name]
            assert slope is not None
            slope = slope * min(1.0, GRADIENT_NORM_LIMIT / float(norm))
            by_sgd = before - 0.1 * 1.9 * (slope + decay * before)
            by_adamw = before - 0.1 * decay * before - 0.1 * slope.sign()
            expected = by_sgd if optimizer == "sgd" else by_adamw
            np.testing.assert_allclose(after[name].detach(), expected, rtol=1e-4, atol=1e-5)
