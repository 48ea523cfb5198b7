"""Zeros follow the cubic at every step, in whatever pattern and scope, and are all there at the end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill.distill import Distill
from slimline.methods.recipe import Recipe
from slimline.methods.sparsify.gradual import Schedule, SparsifyGradually
from slimline.methods.sparsify.magnitude import SparsifyMagnitude
from slimline.methods.sparsify.random_mask import SparsifyRandom
from slimline.network.network import Network
from slimline.training.hook import Hook
from slimline.training.workspace import Workspace
from tests.methods.sparsify.checks import Bools, follows, zero_masks
from tests.toys import patterns, toy, toy_task

NAMES = ("stem", "inner", "outer", "head")


class Watch(Hook):
    """The zeros of every step, seen by its forward pass."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Bools]] = []

    def penalty(self, network: Network, step: int) -> Tensor | None:
        self.seen.append(zero_masks(network))
        return None


def cubic(step: int, first: int, last: int, every: int, final: float) -> float:
    """s_t of the paper, for the last t_0 + n Dt that is not after the step."""
    if step < first:
        return 0.0
    if step >= last:
        return final
    t = max(t for t in range(first, last, every) if t <= step)
    return final + (0 - final) * (1 - (t - first) / (last - first)) ** 3


def watched(method: SparsifyGradually, network: Network | None = None) -> tuple[list[dict[str, Bools]], Network]:
    """40 steps."""
    watch, task = Watch(), toy_task(train=64).with_original(toy())
    method = replace(method, epochs=20.0, training={"batch": 32, **method.training})
    outcome = method.apply(network or toy(), task, Workspace(hooks=(watch,)))
    assert len(watch.seen) == 40
    return watch.seen, outcome.network.verify()


@pytest.mark.parametrize(
    ("begin", "end", "every"), [(0.0, 0.5, 1), (0.25, 0.75, 3), (0.1, 1.0, 10), (0.5, 0.2, 1)], ids=str
)
def test_the_share_follows_the_cubic_at_every_step(begin: float, end: float, every: int) -> None:
    first, last = int(begin * 40), max(int(begin * 40) + 1, int(end * 40))
    seen, result = watched(SparsifyGradually(sparsity=0.8, begin=begin, end=end, every=every))
    for step, masks in enumerate(seen):
        for mask in masks.values():
            assert mask.sum() == round(cubic(step, first, last, every, 0.8) * mask.size), step
    assert all(mask.sum() == round(0.8 * mask.size) for mask in zero_masks(result).values())


def test_the_schedule_is_that_of_the_paper() -> None:
    """s_f = 0.9 over 1000 steps from the 100th on: nothing at the beginning, 7/8 of it half-way, all at the end."""
    schedule = Schedule(0.1, 0.9, 1, 0.9)
    assert [schedule.share(t, 1000) for t in (0, 99, 100, 900, 999)] == [0, 0, 0, 0.9, 0.9]
    assert schedule.share(500, 1000) == pytest.approx(0.9 * 7 / 8)
    shares = [schedule.share(t, 1000) for t in range(100, 901)]
    steps = np.diff(shares)
    assert (steps > 0).all() and (np.diff(steps) < 1e-12).all(), "ever slower"
    assert [Schedule(0.0, 1.0, 4, 0.5).share(t, 12) for t in range(4)] == [0.0] * 4


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
@pytest.mark.parametrize("scope", ["layer", "network"])
@pytest.mark.parametrize("pattern", ["any", "2:4", "2x4"])
def test_zeros_only_become_more(criterion: str, scope: str, pattern: str) -> None:
    """Also of blocks and of N:M, which holds whole at the end; the share is that of all layers or of each."""
    method = SparsifyGradually(sparsity=0.5, criterion=criterion, scope=scope, pattern=pattern, every=2, end=0.7)
    seen, result = watched(method)
    seen.append(zero_masks(result))
    names = [f"{name}.weight" for name in NAMES[pattern != "any" :]]
    for fewer, more in zip(seen, seen[1:], strict=False):
        assert all((more[name] | ~fewer[name]).all() for name in names)
    for step, masks in enumerate(seen):
        share = cubic(step, 0, 28, 2, 0.5)
        counts, sizes = ([f(masks[name]) for name in names] for f in (np.sum, np.size))
        unit = 8 if pattern == "2x4" else 1
        pairs = [(sum(counts), sum(sizes))] if scope == "network" else zip(counts, sizes, strict=True)
        assert all(count == unit * round(share * size / unit) for count, size in pairs)
    if pattern != "any":
        assert all(follows(result.weights()[name], pattern) for name in names)


def test_random_zeros_are_those_of_random_zeroing() -> None:
    """Whatever the network learns meanwhile."""
    _, result = watched(SparsifyGradually(sparsity=0.6, criterion="random", seed=5))
    expected = zero_masks(SparsifyRandom(sparsity=0.6, seed=5).apply(toy()).network)
    assert all((mask == expected[name]).all() for name, mask in zero_masks(result).items())


def test_zeros_that_were_there_stay_and_count() -> None:
    before = SparsifyMagnitude(sparsity=0.3, skip=("stem",)).apply(toy()).network
    seen, result = watched(SparsifyGradually(sparsity=0.7, every=1), before)
    there = zero_masks(before)
    for masks in [*seen, zero_masks(result)]:
        assert all((masks[name] | ~mask).all() for name, mask in there.items())
    assert all(mask.sum() == round(0.7 * mask.size) for mask in zero_masks(result).values())


@pytest.mark.parametrize(
    "training", [{"ema": 0.95}, {"learning_rate": 10.0, "optimizer": "rmsprop"}], ids=["averaged", "exploding"]
)
def test_the_whole_share_is_there_whatever_becomes_of_the_run(training: dict[str, Any]) -> None:
    """An average remembers weights from before they were zero; a run that explodes hands back earlier ones."""
    method = SparsifyGradually(sparsity=0.8, epochs=20.0, end=0.9, training={"batch": 32, **training})
    outcome = method.apply(toy(), toy_task(train=64).with_original(toy()))
    assert ("learning_rate" in training) == any("exploded" in why for why in outcome.skipped.values())
    assert all(mask.sum() == round(0.8 * mask.size) for mask in zero_masks(outcome.network).values())


def test_it_keeps_more_than_zeroing_in_one_step_does() -> None:
    """As many steps, and zeros; KL from the original on images that nobody trained on."""
    task = toy_task(labels=False).with_original(toy())
    images = {"image": torch.from_numpy(patterns(300, seed=9, noise=1.0)[0])}
    gradual = SparsifyGradually(sparsity=0.85, epochs=24.0, every=4, training={"batch": 32, "judgements": 0})
    at_once = Recipe([SparsifyMagnitude(sparsity=0.85), Distill(epochs=24.0, batch=32, judgements=0)])
    said = [m.apply(toy(), task).network.run(images)[0].log_softmax(1) for m in (gradual, at_once)]
    wanted = toy().run(images)[0].log_softmax(1)
    ours, theirs = (float(F.kl_div(s, wanted, log_target=True, reduction="batchmean")) for s in said)
    assert ours < 0.8 * theirs


class Killed(Exception):
    """The run ends here."""


@pytest.mark.parametrize("kill", [20, 40])
def test_a_killed_run_goes_on_to_the_same_weights(kill: int, tmp_path: Path) -> None:
    """The masks follow from weights that are gone by then."""

    def told(done: int, total: int) -> None:
        if (done, total) == (kill, 64):
            raise Killed

    task = toy_task(train=64).with_original(toy())
    method = SparsifyGradually(sparsity=0.7, scope="network", epochs=32.0, every=3, training={"batch": 32, "ema": 0.9})
    whole = method.apply(toy(), task).network
    with pytest.raises(Killed):
        method.apply(toy(), task, Workspace(tmp_path, 0.0, step=told))
    outcome = method.apply(toy(), task, Workspace(tmp_path, 0.0))
    assert f"Continued after step {kill - 1} of 64." in outcome.skipped.values()
    assert all(torch.equal(w, whole.weights()[name]) for name, w in outcome.network.weights().items())


def test_other_masks_do_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    def told(done: int, total: int) -> None:
        if done == 20:
            raise Killed

    task, method = toy_task(train=64).with_original(toy()), SparsifyGradually(epochs=16.0, training={"batch": 32})
    with pytest.raises(Killed):
        method.apply(toy(), task, Workspace(tmp_path, 0.0, step=told))
    outcome = replace(method, sparsity=0.6).apply(toy(), task, Workspace(tmp_path, 0.0))
    assert any("is that of another training" in why for why in outcome.skipped.values())


def test_patience_would_hand_back_weights_from_before() -> None:
    with pytest.raises(SlimlineError, match="leave patience out"):
        SparsifyGradually(training={"patience": 3}).apply(toy(), toy_task().with_original(toy()))


def test_a_network_without_layers_that_fit_is_one_sentence() -> None:
    sentence = r"found no layer whose weights may become zero \(stem: 16 outputs are no multiple of 64; .*; head: "
    with pytest.raises(SlimlineError, match=sentence):
        SparsifyGradually(pattern="64x64").apply(toy(), toy_task().with_original(toy()))
