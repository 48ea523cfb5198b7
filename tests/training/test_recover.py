"""The loop is a plain training loop, whatever it is split into; it keeps the best and says why it stopped."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Array, Task
from slimline.training.batch import Batch
from slimline.training.hook import Hook
from slimline.training.judge import TaskJudge
from slimline.training.plan import Plan
from slimline.training.recover import recover
from slimline.training.workspace import Workspace
from tests.toys import Toy, patterns, toy
from tests.training.small import (
    Images,
    Layers,
    Made,
    cross_entropy,
    curves,
    differences,
    distance,
    images,
    layers,
    line,
    module,
    pictures,
    squared,
    state,
    sums,
    with_dropout,
)

Maker = Callable[[int], Batch]


def learned(kind: str) -> tuple[Network, nn.Module, Made]:
    """A network, the torch module that it was made of, and batches for it."""
    if kind == "batch norm":
        model, found = Toy(), toy()
        model.load_state_dict(state(found), strict=False)
        return found, model, Made(pictures)
    if kind == "convolutions":
        return images(), module(Images), Made(pictures)
    return layers(), module(Layers), Made(curves)


def plain_loop(model: nn.Module, batches: Made, plan: Plan) -> None:
    """Warm-up of one step in ten, half a cosine, clipped gradients, weights of one axis without decay."""
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": plan.weight_decay}]
    groups += [{"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = {
        "sgd": lambda: torch.optim.SGD(groups, 1.0, momentum=0.9, nesterov=True),
        "adamw": lambda: torch.optim.AdamW(groups, 1.0),
        "rmsprop": lambda: torch.optim.RMSprop(groups, 1.0, momentum=0.9),
    }[plan.optimizer]()  # type: ignore[no-untyped-call]
    model.train()
    for step in range(10):
        for group in optimizer.param_groups:  # of ten steps the first is the warm-up
            group["lr"] = plan.learning_rate * (1 if step == 0 else 0.5 + 0.5 * math.cos(math.pi * (step - 1) / 9))
        batch = batches.make(step)
        (x,) = batch.inputs.values()
        loss = nn.CrossEntropyLoss() if "image" in batch.inputs else nn.MSELoss()
        optimizer.zero_grad()
        loss(model(x), batch.targets[0]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), plan.gradient_norm)
        optimizer.step()


@pytest.mark.parametrize(
    ("kind", "optimizer", "rate"),
    [
        ("layers", "sgd", 0.05),
        ("layers", "adamw", 0.01),
        ("layers", "rmsprop", 0.003),
        ("convolutions", "sgd", 0.05),
        ("batch norm", "sgd", 0.02),
    ],
)
def test_ten_steps_are_those_of_a_plain_loop(kind: str, optimizer: str, rate: float) -> None:
    network, model, batches = learned(kind)
    plan = Plan(10, rate, weight_decay=0.05, optimizer=optimizer, gradient_norm=0.5)
    loss = squared if kind == "layers" else cross_entropy
    trained, _ = recover(network, batches, loss, plan)
    plain_loop(model, batches, plan)
    expected = model.state_dict()
    for name, tensor in trained.weights().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6, check_stride=True)
    assert distance(network, trained) > 0.01


@pytest.mark.parametrize("parts", [3, 32, 50])
@pytest.mark.parametrize(("kind", "loss"), [("layers", squared), ("convolutions", cross_entropy)])
def test_the_parts_of_a_batch_add_up_to_it(parts: int, kind: str, loss: Callable[..., Tensor]) -> None:
    """32 samples make parts of 10, 11 and 11: a mean over parts would not be the mean over samples."""
    network, _, batches = learned(kind)
    sizes: list[int] = []

    def watched(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        sizes.append(len(batch))
        return loss(outputs, batch)

    whole, curve = recover(network, batches, loss, Plan(25, 0.05))
    split, pieces = recover(network, batches, watched, Plan(25, 0.05, accumulate=parts))
    assert sorted(sizes[: min(parts, 32)]) == ([10, 11, 11] if parts == 3 else [1] * 32)
    assert distance(whole, split) < 2e-5 < 0.01 < distance(whole, network)
    np.testing.assert_allclose(pieces.losses, curve.losses, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_it_finds_the_weights_that_made_the_targets(optimizer: str) -> None:
    rate = {"sgd": 0.05, "adamw": 0.15, "rmsprop": 0.03}[optimizer]
    trained, curve = recover(line(), Made(sums), squared, Plan(200, rate, weight_decay=0, optimizer=optimizer))
    weights = trained.weights()
    np.testing.assert_allclose(weights["layer.weight"].detach(), [[1, -2, 0.5]], atol=2e-3)
    np.testing.assert_allclose(weights["layer.bias"].detach(), [3], atol=2e-3)
    assert curve.steps == list(range(20, 201, 20)) and len(curve.losses) == 10
    assert curve.losses[-1] < 1e-4 < curve.losses[0] and curve.seconds > 0


def test_the_curve_holds_means_of_twenty_steps_and_what_is_left() -> None:
    told: list[tuple[int, int]] = []
    plan = Plan(25, 1e-9, weight_decay=0)  # too slow to move, so that the losses are those of the first network
    workspace = Workspace(step=lambda done, total: told.append((done, total)))
    _, curve = recover(line(), Made(sums), squared, plan, workspace=workspace)
    at_start = [float(squared(line().run(sums(s).inputs), sums(s))) for s in range(25)]
    assert curve.steps == [20, 25] and told == [(20, 25), (25, 25)]
    assert (curve.planned, curve.done, curve.notes, curve.judged) == (25, 25, [], [])
    assert curve.start == pytest.approx(at_start[0], rel=1e-5)
    np.testing.assert_allclose(curve.losses, [np.mean(at_start[:20]), np.mean(at_start[20:])], rtol=1e-4)
    by_hand = [1e-9 * 0.5 * (1 + math.cos(math.pi * (last - 2) / 23)) for last in (19, 24)]
    np.testing.assert_allclose(curve.rates, by_hand, rtol=1e-6)


def test_a_loss_with_weights_of_its_own_has_them_trained_along() -> None:
    """The network gives one number, the loss adds another: together they find the bias 3."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
            return (outputs[0] + self.shift - batch.targets[0]).square().mean()

    loss = Shifted()
    trained, _ = recover(line(), Made(sums), loss, Plan(200, 0.03, weight_decay=0))
    bias, shift = trained.weights()["layer.bias"].item(), loss.shift.item()
    assert bias + shift == pytest.approx(3, abs=1e-3) and abs(shift) > 0.5


def test_batch_norm_learns_statistics_while_training_and_uses_them_afterwards() -> None:
    network = toy()
    before, mode = state(network), network.is_training()
    trained, _ = recover(network, Made(pictures), cross_entropy, Plan(5, 0.01))
    assert not mode and not trained.is_training() and not network.is_training()
    assert not torch.equal(trained.weights()["stem_norm.running_mean"], before["stem_norm.running_mean"])
    image = torch.from_numpy(patterns(8, seed=1)[0])
    alone = torch.cat([trained.run({"image": image[i : i + 1]})[0] for i in range(8)])
    torch.testing.assert_close(alone, trained.run({"image": image})[0])
    trained.verify()


def test_the_student_is_left_as_it_was_and_what_comes_back_shares_nothing_with_it() -> None:
    network = toy()
    before, code = state(network), network.module.code
    trained, _ = recover(network, Made(pictures), cross_entropy, Plan(3, 0.01))
    assert all(torch.equal(before[n], t) for n, t in network.weights().items()) and network.module.code == code
    places = {t.data_ptr() for t in network.weights().values()}
    assert places.isdisjoint(t.data_ptr() for t in trained.weights().values())
    assert all(t.is_contiguous() and t.grad is None for t in trained.weights().values())


def test_the_same_batches_and_seed_give_the_same_weights_and_another_seed_another_dropout() -> None:
    def run(seed: int) -> Network:
        torch.manual_seed(random.SystemRandom().randrange(2**31))
        return recover(with_dropout(), Made(curves), squared, Plan(6, 0.05, seed=seed))[0]

    one, same, other = run(1), run(1), run(2)
    assert differences(one, same) == [] and distance(one, other) > 1e-4
    assert distance(one, recover(layers(), Made(curves), squared, Plan(6, 0.05, seed=1))[0]) > 1e-4


def test_random_numbers_of_the_caller_stay_as_they_are() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1:]  # type: ignore[index]
    recover(with_dropout(), Made(curves), squared, Plan(6, 0.05, ema=0.9, precision="fp16"))
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert str(np.random.get_state()[1:]) == str(before[2])  # type: ignore[index]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_too_and_leaves_float32_weights(precision: str) -> None:
    def loss_of(network: Network) -> float:
        return float(cross_entropy(network.run(pictures(50).inputs), pictures(50)))

    damaged = toy()
    for tensor in damaged.module.parameters():
        tensor.data += 0.15 * torch.randn(tensor.shape)
    plan = Plan(40, 0.05, precision=precision)
    trained, curve = recover(damaged, Made(pictures), cross_entropy, plan)
    assert loss_of(trained) < 0.3 * loss_of(damaged) and curve.precision == precision
    assert {t.dtype for t in trained.weights().values()} == {torch.float32}
    exact, _ = recover(damaged, Made(pictures), cross_entropy, Plan(40, 0.05))
    assert distance(trained, exact) > 1e-4  # it did compute with fewer bits


def test_fp16_gradients_below_its_range_are_not_lost() -> None:
    """1e-8 is zero in fp16. Scaled by 2^16 it is not, and RMSprop moves by the sign of what is left."""

    def tiny(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return outputs[0].mean() * 1e-6

    network = layers()
    plan = Plan(3, 0.01, weight_decay=0, optimizer="rmsprop", precision="fp16")
    trained, _ = recover(network, Made(curves), tiny, plan)
    assert "first.weight" in differences(network, trained)


class Watch(Hook):
    """Writes down the weights after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def after_step(self, network: Network, step: int) -> None:
        assert step == len(self.seen)
        self.seen.append(state(network))


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_is_the_recursion(decay: float) -> None:
    watch = Watch()
    trained, _ = recover(layers(), Made(curves), squared, Plan(30, 0.05, ema=decay), hooks=[watch])
    for name, start in layers().weights().items():
        average = start.detach().double().numpy()
        for t, weights in enumerate(watch.seen):
            d = min(decay, (1 + t) / (10 + t))
            average = d * average + (1 - d) * weights[name].double().numpy()
        np.testing.assert_allclose(trained.weights()[name].detach(), average, atol=2e-6)
        assert not np.allclose(average, watch.seen[-1][name], atol=1e-4)


class Scripted:
    """A judge that says what it is told to, and keeps the weights that it saw."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.seen = list(scores), list[dict[str, Tensor]]()

    def __call__(self, network: Network) -> float:
        assert not network.is_training()
        self.seen.append(state(network))
        return self.scores[len(self.seen) - 1]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_patience_ends_it_early_with_the_weights_of_the_best_judgement(ema: float) -> None:
    judge, told = Scripted(0.1, 0.5, 0.3, 0.7, 0.7, 0.6, 0.69), list[str]()
    plan = Plan(100, 0.05, judge_every=5, patience=3, ema=ema)
    trained, curve = recover(layers(), Made(curves), squared, plan, judge, workspace=Workspace(note=told.append))
    assert curve.judged == [0, 5, 10, 15, 20, 25, 30] and curve.scores == judge.scores
    assert all(torch.equal(tensor, judge.seen[3][name]) for name, tensor in trained.weights().items())
    assert curve.notes == told and curve.notes == [
        "Training ended early, after step 30 of 100: no better score in 3 judgements; the weights of step 15 were kept."
    ]
    assert curve.steps == [20] and curve.planned == 100


@pytest.mark.parametrize(("patience", "kept"), [(5, 2), (0, 4)])
def test_at_the_end_the_best_weights_come_back_where_there_is_patience_else_the_last(patience: int, kept: int) -> None:
    judge = Scripted(0.0, 0.1, 0.9, 0.2, 0.3)
    plan = Plan(20, 0.05, judge_every=5, patience=patience)
    trained, curve = recover(layers(), Made(curves), squared, plan, judge)
    assert curve.judged == [0, 5, 10, 15, 20] and curve.notes == []
    assert all(torch.equal(tensor, judge.seen[kept][name]) for name, tensor in trained.weights().items())


def test_the_judge_sees_the_network_as_it_came_first_and_after_the_last_step() -> None:
    judge = Scripted(*[0.0] * 4)
    trained, curve = recover(layers(), Made(curves), squared, Plan(7, 0.05, judge_every=3), judge)
    assert curve.judged == [0, 3, 6, 7]
    assert all(torch.equal(tensor, judge.seen[0][name]) for name, tensor in layers().weights().items())
    assert all(torch.equal(tensor, judge.seen[3][name]) for name, tensor in trained.weights().items())


def test_a_judge_who_never_says_a_number_keeps_the_network_as_it_came() -> None:
    plan = Plan(20, 0.05, judge_every=5, patience=2)
    trained, curve = recover(layers(), Made(curves), squared, plan, Scripted(*[math.nan] * 5))
    assert differences(trained, layers()) == [] and "the weights of step 0 were kept" in curve.notes[-1]


def test_a_network_that_a_judge_cannot_score_any_more_is_not_the_end_of_the_search() -> None:
    """After the first step the outputs are no numbers any more; the loss shows it one step later."""
    x = curves(99).inputs["x"].numpy()
    task = Task({"x": x}, score="relative").with_original(layers()).decided(layers())
    plan = Plan(9, 1e25, judge_every=1)
    trained, curve = recover(layers(), Made(curves), squared, plan, TaskJudge(task, 32))
    assert differences(trained, layers()) == [] and curve.scores[0] == pytest.approx(1)
    assert len(curve.notes) == 1 and "Lower the learning rate (now 1e+25)" in curve.notes[0]


def agreeing(outputs: list[Array], wanted: Array) -> Array:
    """A score of the user's, which is -infinity or no number where the outputs are none."""
    result: Array = -np.abs(outputs[0] - wanted).mean(1)
    return result


@pytest.mark.parametrize("steps", [1, 9])
def test_a_score_that_is_no_number_any_more_ends_it_with_the_best_weights(steps: int) -> None:
    """At the last judgement, or one step later by the loss."""
    x = curves(99).inputs["x"].numpy()
    task = Task({"x": x}, score=agreeing).with_original(layers()).decided(layers())
    trained, curve = recover(layers(), Made(curves), squared, Plan(steps, 1e25, judge_every=1), TaskJudge(task, 32))
    assert differences(trained, layers()) == [] and curve.scores == [0] and curve.judged == [0]
    told = "the score became nan; the weights as they came" if steps == 1 else "the loss became "
    assert f"Training stopped at step {min(steps, 2)} of {steps}: {told}" in curve.notes[-1]
    assert curve.notes[:-1] == ["The score after step 1 of 9 is nan: it does not count."][: steps - 1]


def test_a_judge_that_fails_ends_the_run_with_what_it_said() -> None:
    def failing(_: Network) -> float:
        raise KeyError("no such sample")

    with pytest.raises(KeyError, match="no such sample"):
        recover(layers(), Made(curves), squared, Plan(9, 0.01), failing)


# --- when it cannot go on ---------------------------------------------------------------------------------------------


def spoiled(make: Maker, at: int, change: Callable[[Batch], Batch]) -> Made:
    """The same batches, but from step ``at`` on changed."""
    return Made(lambda step: change(make(step)) if step >= at else make(step))


def far(batch: Batch) -> Batch:
    return Batch(batch.inputs, (batch.targets[0] + 1e4,))


def test_a_loss_that_explodes_ends_it_with_the_best_weights() -> None:
    watch = Watch()
    trained, curve = recover(layers(), spoiled(curves, 45, far), squared, Plan(100, 0.03), hooks=[watch])
    assert curve.steps == [20, 40] and curve.losses[1] < curve.losses[0] and len(watch.seen) == 60
    assert all(torch.equal(tensor, watch.seen[39][name]) for name, tensor in trained.weights().items())
    (note,) = curve.notes
    assert note.startswith("Training stopped at step 60 of 100: the loss exploded to ")
    assert "the weights of step 40 were kept. Lower the learning rate (now 0.03)" in note


def test_a_rate_far_too_high_ends_it_too() -> None:
    def steep(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return (outputs[0] * 1e3 - batch.targets[0]).square().mean()

    trained, curve = recover(layers(), Made(curves), steep, Plan(50, 10.0))
    assert len(curve.notes) == 1 and "Lower the learning rate (now 10)" in curve.notes[0]
    assert curve.done < 50 and all(torch.isfinite(t).all() for t in trained.weights().values())


def test_with_a_judge_the_best_are_those_of_the_best_score() -> None:
    judge = Scripted(0.2, 0.9, 0.5, 0.4)
    plan = Plan(100, 0.03, judge_every=15)
    trained, curve = recover(layers(), spoiled(curves, 45, far), squared, plan, judge)
    assert "the weights of step 15 were kept" in curve.notes[0] and curve.judged == [0, 15, 30, 45]
    assert all(torch.equal(tensor, judge.seen[1][name]) for name, tensor in trained.weights().items())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_number_that_is_none_ends_it_and_its_input_is_named(bad: float, precision: str) -> None:
    def change(batch: Batch) -> Batch:
        x = batch.inputs["image"].clone()
        x[7, 0, 3, 3] = bad
        return Batch({"image": x}, batch.targets)

    watch, plan = Watch(), Plan(90, 0.01, precision=precision)
    trained, curve = recover(toy(), spoiled(pictures, 24, change), cross_entropy, plan, hooks=[watch])
    (note,) = curve.notes
    assert note.startswith("Training stopped at step 25 of 90: 'image' of the batch holds NaN or infinity; the weights")
    assert "the weights of step 20 were kept" in note and curve.steps == [20]
    # Those of the batch norms too, which met the number in the forward pass.
    assert all(torch.equal(tensor, watch.seen[19][name]) for name, tensor in trained.weights().items())


def test_weights_that_are_no_numbers_are_not_handed_back() -> None:
    """The last update makes them so, and no later loss shows it."""
    trained, curve = recover(layers(), Made(curves), squared, Plan(1, 3e38))
    (note,) = curve.notes
    assert "at step 1 of 1: the weights hold numbers that are not finite; the weights as they came were kept" in note
    assert differences(trained, layers()) == []


def test_a_target_that_is_no_number_is_named() -> None:
    def change(batch: Batch) -> Batch:
        return Batch(batch.inputs, (batch.targets[0] * math.nan,))

    _, curve = recover(layers(), spoiled(curves, 3, change), squared, Plan(9, 0.01))
    assert "at step 4 of 9: 'target 1' of the batch holds NaN or infinity; the weights as they came" in curve.notes[0]


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("at", [0, 3, 8])
def test_before_the_first_window_ends_the_weights_as_they_came_are_kept(at: int, ema: float) -> None:
    def change(batch: Batch) -> Batch:
        return Batch({"image": batch.inputs["image"] * math.nan}, batch.targets)

    trained, curve = recover(toy(), spoiled(pictures, at, change), cross_entropy, Plan(9, 0.01, ema=ema))
    assert differences(trained, toy()) == []
    assert "the weights as they came were kept" in curve.notes[0] and curve.losses == []


def test_a_gradient_that_is_no_number_ends_it() -> None:
    """The root of zero has the loss 0 and the gradient infinity."""

    def root(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return (outputs[0] * 0).abs().sqrt().sum()

    trained, curve = recover(layers(), Made(curves), root, Plan(9, 0.01))
    (note,) = curve.notes
    assert "at step 1 of 9: the gradient holds numbers that are not finite; the weights as they came" in note
    assert differences(trained, layers()) == []


def test_a_loss_that_starts_at_zero_may_rise() -> None:
    """As it does for a copy of the teacher from which something is taken bit by bit."""
    teacher = layers()

    class Shrink(Hook):
        def after_step(self, network: Network, step: int) -> None:
            with torch.no_grad():
                network.weights()["second.weight"] *= 0.99

    def taught(step: int) -> Batch:
        x = curves(step).inputs["x"]
        return Batch({"x": x}, teacher.run({"x": x}))

    _, curve = recover(teacher, Made(taught), squared, Plan(60, 0.001), hooks=[Shrink()])
    assert curve.notes == [] and curve.steps == [20, 40, 60]
    assert curve.start == 0 < curve.losses[0] < curve.losses[-1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda b: Batch(b.inputs, (b.targets[0][:30],)),
            r"step 3 holds unequal or no numbers of samples .x 32, target 1 30.",
        ),
        (
            lambda b: Batch({"x": b.inputs["x"][:0]}, (b.targets[0][:0],)),
            r"holds unequal or no numbers of samples .x 0, target 1 0",
        ),
        (lambda b: Batch({"x": b.inputs["x"][:, :2]}, b.targets), r"step 3 failed on a batch of x .32, 2., target 1 "),
        (
            lambda b: Batch(b.inputs, (b.targets[0][:, [0, 1, 0]],)),
            r"step 3 failed on a batch of x .32, 3., target 1 .32, 3",
        ),
    ],
    ids=["unequal numbers", "nothing", "a shape that the network does not take", "a shape that the loss does not take"],
)
def test_a_batch_that_does_not_fit_is_one_sentence(change: Callable[[Batch], Batch], told: str) -> None:
    with pytest.raises(SlimlineError, match=told) as caught:
        recover(layers(), spoiled(curves, 2, change), squared, Plan(9, 0.01))
    assert "\n" not in str(caught.value)


def test_an_index_that_an_embedding_does_not_have_is_one_sentence() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 2)

        def forward(self, word: Tensor) -> Tensor:
            result: Tensor = self.table(word)
            return result

    network = trace(Words(), [torch.arange(4)])
    batches = Made(lambda step: Batch({"word": torch.arange(8) + step}, (torch.zeros(8, 2),)), 8)
    with pytest.raises(
        SlimlineError, match=r"step 4 failed on a batch of word .8,., target 1 .8, 2.: index out of range"
    ):
        recover(network, batches, squared, Plan(9, 0.01))
