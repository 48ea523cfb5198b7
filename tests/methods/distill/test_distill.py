"""Training on what the original answers brings a damaged network closer to it, with what the files beside it say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill import distill as distill_module
from slimline.methods.distill.distill import TEACHER, Distill, Points
from slimline.methods.distill.logits import Matched
from slimline.methods.prune.channels import PruneChannels
from slimline.network.network import Network
from slimline.network.taps import with_taps
from slimline.network.trace import trace
from slimline.task import Array, Samples, Task
from slimline.training.curve import Curve
from slimline.training.teacher import Teacher
from slimline.training.workspace import Workspace
from tests.methods.distill.test_logits import Ended
from tests.network.test_taps import encoder
from tests.toys import patterns, toy, toy_channels_last, toy_task


def distance(student: Network, teacher: Network) -> float:
    """KL from the teacher's answers, in nats, on images that nobody trained on."""
    images = {"image": torch.from_numpy(patterns(300, seed=9, noise=1.0)[0])}
    p, q = (n.run(images)[0].double().log_softmax(1) for n in (teacher, student))
    return float(F.kl_div(q, p, log_target=True, reduction="batchmean"))


def damaged() -> Network:
    return PruneChannels(keep=0.5, importance="l1", multiple=4).apply(toy()).network


def curve_of(method: Distill, task: Task, student: Network | None = None, workspace: Workspace | None = None) -> Curve:
    curve = method.apply(student or damaged(), task, workspace).curve
    assert isinstance(curve, Curve)
    return curve


def kept() -> Tensor:
    """The teacher's answers that were kept."""
    (answers,) = TEACHER.values.values()
    return answers


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """No test finds what another one left."""
    TEACHER.key, TEACHER.values = ("", ""), {}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_teacher_alone_brings_the_student_closer_on_data_it_never_saw(precision: str) -> None:
    teacher, student = toy(), damaged()
    task = toy_task(labels=False).with_original(teacher)
    outcome = Distill(epochs=6.0, batch=32, precision=precision).apply(student, task)
    assert distance(outcome.network, teacher) < 0.4 * distance(student, teacher)
    assert outcome.curve is not None and outcome.curve.losses[-1] < 0.5 * outcome.curve.losses[0]
    assert outcome.curve.precision == precision and outcome.skipped == {}


@pytest.mark.parametrize("hint", [{"feature_weight": 1.0}, {"map_weight": 100.0}])
def test_the_inside_helps_to_learn_and_leaves_no_trace(hint: dict[str, Any]) -> None:
    teacher, student = toy(), damaged()
    outcome = Distill(epochs=6.0, batch=32, **hint).apply(student, toy_task(labels=False).with_original(teacher))
    assert distance(outcome.network, teacher) < 0.4 * distance(student, teacher)
    assert outcome.network.output_names == student.output_names
    assert outcome.network.weights().keys() == student.weights().keys()
    assert len(outcome.network.run(student.examples)) == 1
    outcome.network.verify()


def looks(network: Network, name: str, x: Tensor) -> Tensor:
    """Where a layer of attention looks, as the mean over its heads: (N, queries, keys)."""
    return with_taps(network, [name]).run({"x": x})[-1].double().mean(1)


@pytest.mark.parametrize("heads", [2, 4])
def test_a_student_learns_to_look_where_its_teacher_looks(heads: int) -> None:
    """The queries and keys of the teacher are large, so that it looks at single places, and the student's are not."""
    teacher, student = encoder(kind="plain"), encoder(heads=heads)
    with torch.no_grad():
        for name, weight in teacher.weights().items():
            weight.mul_(4.0 if name.startswith("projections") else 1.0)
    rng = np.random.default_rng(0)
    train, unseen = (rng.normal(size=(n, 7, 5)).astype(np.float32) for n in (512, 64))
    task = Task(validate={"x": unseen}, train={"x": train}).with_original(teacher)
    seen = [looks(teacher, name, torch.from_numpy(unseen)) for name in ("softmax", "softmax_1")]
    gaps = []
    for weight in (0.0, 10.0):
        method = Distill(
            epochs=10.0, batch=32, optimizer="adamw", learning_rate=0.003, attention_weight=weight, judgements=0
        )
        outcome = method.apply(student, task)
        assert outcome.network.output_names == student.output_names and outcome.skipped == {}
        names = ("scaled_dot_product_attention:weights", "scaled_dot_product_attention_1:weights")
        ours = [looks(outcome.network, name, torch.from_numpy(unseen)) for name in names]
        gaps.append(sum(float((t * (t / s).log()).sum(2).mean()) for s, t in zip(ours, seen, strict=True)))
    assert gaps[1] < 0.5 * gaps[0]


def test_networks_without_attention_are_told_that_its_weight_does_nothing() -> None:
    outcome = Distill(epochs=0.1, attention_weight=1.0).apply(damaged(), toy_task().with_original(toy()))
    assert outcome.skipped == {"attention": "the two networks have no attention over the same places inside"}


def test_what_has_no_effect_is_told() -> None:
    task = toy_task(labels=False)
    alone = Task(validate=task.validate).with_original(toy())
    outcome = Distill(epochs=0.1, label_weight=0.5, views=3, patience=2).apply(damaged(), alone)
    assert set(outcome.skipped) == {"label_weight", "views", "patience"}
    whole = replace(toy_task(), augment="image").with_original(toy())
    assert Distill(epochs=0.1, label_weight=0.5, views=3, patience=2).apply(damaged(), whole).skipped == {}


@pytest.mark.parametrize("kind", [str, float])
def test_labels_that_are_no_class_numbers_are_one_sentence(kind: type) -> None:
    x, labels = patterns(64, seed=3)
    named = {"image": x, "labels": labels.astype(kind)}
    task = Task(validate=named, train=named, score="agreement").with_original(toy())
    with pytest.raises(SlimlineError, match="label_weight needs labels that are class numbers, and these are"):
        Distill(epochs=0.1, label_weight=0.5).apply(damaged(), task)


def test_mixtures_are_answered_by_the_teacher_and_have_no_labels() -> None:
    teacher, student = toy(), damaged()
    task = replace(toy_task(train=64), augment="mix").with_original(teacher)
    samples = task.read(("image",)).train
    batches = Distill(views=3).batches(task, samples, Points(), Workspace())
    answers, index = batches.answers, np.arange(64)
    assert isinstance(answers, torch.Tensor)
    for view in range(3):
        shown = batches.views.batch(index, np.full(64, view))
        assert torch.allclose(answers[view], teacher.run(shown)[0], atol=1e-5)
    assert len({answers[view].numpy().tobytes() for view in range(3)}) == 3
    with pytest.raises(SlimlineError, match=r"label_weight=0.5 needs a label for every view.*leave 'mix' out of"):
        Distill(epochs=0.1, views=3, label_weight=0.5).apply(student, task)
    assert Distill(epochs=0.1, views=1, label_weight=0.5).apply(student, task).skipped == {}


def test_that_whole_numbers_cannot_be_mixed_is_told() -> None:
    network = trace(
        nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(12, 3)).eval(),
        (torch.zeros(2, 3, dtype=torch.long),),
    )
    (name,) = network.input_names
    words = {name: np.random.default_rng(0).integers(0, 20, (30, 3))}
    task = Task(validate=words, train=words, augment="mix").with_original(network)
    outcome = Distill(epochs=0.1, views=3).apply(network, task)
    assert set(outcome.skipped) == {"mix"} and "holds whole numbers" in outcome.skipped["mix"]
    assert kept().shape == (1, 30, 3)  # views that do not differ are not asked for


def test_wrong_labels_do_not_count_unless_they_are_asked_for() -> None:
    teacher, student, task = toy(), damaged(), toy_task()
    x, wrong = task.train["image"], 3 - task.train["labels"]
    misled = Task(validate=task.validate, train={"image": x, "labels": wrong}).with_original(teacher)
    deaf = Distill(epochs=4.0, batch=32).apply(student, misled).network
    led = Distill(epochs=4.0, batch=32, label_weight=1.0).apply(student, misled).network
    assert distance(deaf, teacher) < 0.5 * distance(student, teacher) < distance(led, teacher)


def test_views_of_the_images_are_used_when_the_task_allows_them() -> None:
    teacher, student, seen = toy(), damaged(), []
    for augment in ("", "image"):
        task = replace(toy_task(train=64), augment=augment).with_original(teacher)
        Distill(epochs=0.1, batch=32, views=3).apply(student, task)
        seen.append(kept().shape)
    assert seen == [(1, 64, 4), (3, 64, 4)]


def test_images_with_their_channels_last_are_changed_as_those_with_them_first() -> None:
    """The same network once for (N, 1, 8, 8) and once for (N, 8, 8, 1): the same views, and the same answers."""
    taken = []
    for network, order in ((toy(), (0, 1, 2, 3)), (toy_channels_last(), (0, 2, 3, 1))):
        images = np.ascontiguousarray(patterns(40, seed=3)[0].transpose(order))
        task = Task(validate={"image": images}, train={"image": images}, augment="image,rotate,light")
        task = task.read(["image"]).with_original(network)
        batches = Distill(batch=40, views=3).batches(task, task.train, Points(), Workspace())
        taken.append(batches.batch(0, slice(0, 40)))
    first, last = taken
    assert torch.equal(last.inputs["image"], first.inputs["image"].permute(0, 2, 3, 1))
    torch.testing.assert_close(last.targets[0], first.targets[0], rtol=1e-4, atol=1e-4)


def test_the_teacher_answers_once_for_all_candidates_of_a_search() -> None:
    teacher, other, task = toy(), damaged(), toy_task(train=64)
    method = Distill(epochs=0.1, batch=32)
    method.apply(damaged(), task.with_original(teacher))
    first = kept()
    method.apply(toy(), task.with_original(teacher))
    assert kept() is first
    method.apply(toy(), task.with_original(other))
    assert kept() is not first and not torch.equal(kept(), first)
    expected = other.run({"image": torch.from_numpy(task.train["image"])})[0]
    torch.testing.assert_close(kept()[0], expected, rtol=1e-4, atol=1e-4)


def test_every_sample_has_its_own_answer_and_label() -> None:
    task = toy_task(train=20).with_original(toy()).decided(toy())
    batches = Distill(batch=5, label_weight=0.5).batches(task, task.train, Points(), Workspace())
    taken = [batches.batch(step, slice(0, 5)) for step in range(4)]
    x = torch.cat([b.inputs["image"] for b in taken])
    labels = torch.cat([b.labels for b in taken if b.labels is not None])
    places = [int((torch.from_numpy(task.train.inputs["image"]) == image).flatten(1).all(1).nonzero()) for image in x]
    assert sorted(places) == list(range(20)) and (labels.numpy() == task.train.labels[places]).all()
    said = torch.cat([b.targets[0] for b in taken])
    torch.testing.assert_close(said, toy().run({"image": x})[0], rtol=1e-4, atol=1e-4)


def shrunk(end: Callable[[Tensor], Any]) -> tuple[Network, Network]:
    """The toy with this end, and the same of half the channels."""
    network = trace(Ended(end), {"image": toy().examples["image"]})
    return network, PruneChannels(keep=0.5, importance="l1", multiple=4).apply(network).network


@pytest.mark.parametrize(
    ("end", "score"),
    [
        (lambda x: x.softmax(1), ""),
        (lambda x: torch.stack([x, -x], 1).softmax(2), ""),
        (lambda x: F.normalize(x, dim=1), "cosine"),
        (lambda x: 100 * x[:, 0], "relative"),
    ],
    ids=["probabilities", "a sequence of probabilities", "an embedding", "a number"],
)
def test_other_outputs_are_recovered_too(end: Callable[[Tensor], Any], score: str) -> None:
    teacher, student = shrunk(end)
    data = toy_task(labels=False)
    task = Task(validate=data.validate, train=data.train, score=score).with_original(teacher).decided(teacher)
    outcome = Distill(epochs=10.0, batch=32).apply(student, task)
    unseen = Samples({"image": patterns(200, seed=9, noise=1.0)[0]})
    answers = [[o.numpy() for o in n.run(unseen.tensors())] for n in (teacher, student, outcome.network)]
    before, after = (1 - task.per_sample(a, unseen, answers[0]).mean() for a in answers[1:])
    assert after < 0.5 * before


def test_of_whole_numbers_and_logits_the_logits_are_learned() -> None:
    teacher, student = shrunk(lambda x: (x.argmax(1), x))
    curve = curve_of(Distill(epochs=6.0, batch=32), toy_task(labels=False).with_original(teacher), student)
    assert curve.losses[-1] < 0.5 * curve.losses[0] and kept().shape == (1, 256, 4)
    teacher, student = shrunk(lambda x: x.argmax(1))
    with pytest.raises(SlimlineError, match=r"No output of the network \(output\) holds floating-point numbers"):
        Distill(epochs=1.0).apply(student, toy_task(labels=False).with_original(teacher))


def test_regression_is_in_units_of_the_variance_of_the_answers() -> None:
    """So that outputs a hundred times as large have the same losses."""
    found = []
    for first in (lambda x: x[:, 0], lambda x: 100 * x[:, 0]):
        teacher, student = shrunk(first)
        task = toy_task(labels=False).with_original(teacher).decided(teacher)
        batches = Distill().batches(task, task.train, Points(), Workspace())
        batch = batches.batch(0, slice(0, batches.size))
        loss = Distill().loss(student, batches, Matched(False))
        found.append(float(loss(student.run(batch.inputs), batch)))
        variance = float(np.var(batch.targets[0].numpy()))
        by_hand = float((student.run(batch.inputs)[0] - batch.targets[0]).square().mean()) / variance
        assert found[-1] == pytest.approx(by_hand, rel=1e-4)
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_teacher_whose_answers_would_fill_the_memory_is_asked_in_every_step() -> None:
    """To the same end: 64 samples of 4 classes and 3 views are 3072 bytes."""
    task = replace(toy_task(train=64), augment="image").with_original(toy())
    trained = []
    for limit, known in ((3072, True), (3071, False)):
        TEACHER.values.clear()
        with patch.object(distill_module, "LARGEST_MEMORY", limit):
            outcome = Distill(epochs=2.0, batch=32, views=3).apply(damaged(), task)
        assert len(TEACHER.values) == known
        trained.append(outcome.network.weights())
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_of_endless_views_the_teacher_is_asked_in_every_step() -> None:
    task = replace(toy_task(train=64), augment="image").with_original(toy()).decided(toy())
    batches = Distill(batch=32, views=0).batches(task, task.train, Points(), Workspace())
    assert isinstance(batches.answers, Teacher) and TEACHER.values == {}
    torch.testing.assert_close(
        *(batches.batch(5, slice(0, 32)).targets[0], toy().run(batches.batch(5, slice(0, 32)).inputs)[0]),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    assert curve_of(Distill(epochs=4.0, batch=32, views=0), task).losses[-1] > 0


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(3.0, 5, 6), (3.0, 10, 3), (3.0, 64, 3), (0.001, 5, 1)])
def test_an_epoch_is_every_sample_once_also_where_a_batch_is_larger_than_the_data(
    epochs: float, batch: int, steps: int
) -> None:
    curve = curve_of(Distill(epochs=epochs, batch=batch), toy_task(train=10).with_original(toy()))
    assert curve.planned == steps and np.isfinite(curve.losses).all()


def test_it_needs_the_original() -> None:
    with pytest.raises(SlimlineError, match="Distill needs the original network: apply it in a Recipe"):
        Distill().apply(damaged(), toy_task())


def test_every_hyperparameter_reaches_the_loop() -> None:
    task = toy_task(train=100).with_original(toy()).decided(toy())
    method = Distill(
        epochs=40.0, learning_rate=0.01, optimizer="rmsprop", schedule="step", batch=10, accumulate=3,
        precision="fp16", execution="compiled", ema=0.9, judgements=2, patience=3, seed=4,
    )  # fmt: skip
    plan = method.plan(method.batches(task, task.train, Points(), Workspace()))
    assert (plan.steps, plan.learning_rate, plan.optimizer, plan.schedule) == (400, 0.01, "rmsprop", "step")
    assert (plan.accumulate, plan.precision, plan.compiled, plan.ema) == (3, "fp16", True, 0.9)
    assert (plan.judge_every, plan.patience, plan.seed) == (200, 3, 4)


def test_the_score_on_the_validation_samples_is_watched_and_judged_by_patience() -> None:
    task = toy_task(labels=False, train=64).with_original(toy())
    curve = curve_of(Distill(epochs=100.0, batch=32, judgements=2), task)
    assert curve.judged == [0, 100, 200] and min(curve.scores) >= 0 and max(curve.scores) <= 1
    said, wanted = (n.run({"image": torch.from_numpy(task.validate["image"])})[0] for n in (damaged(), toy()))
    assert curve.scores[0] == pytest.approx(float((said.argmax(1) == wanted.argmax(1))[:256].float().mean()))
    # A rate at which nothing is learnt: the score never rises.
    still = Distill(epochs=1000.0, batch=32, judgements=20, patience=2, learning_rate=1e-6)
    outcome = still.apply(toy(), task)
    assert outcome.curve is not None and outcome.curve.judged == [0, 100, 200]
    assert any("no better score in 2 judgements" in why for why in outcome.skipped.values())


def test_patience_alone_looks_at_the_score_too() -> None:
    task = toy_task(labels=False, train=64).with_original(toy())
    still = Distill(epochs=1000.0, batch=32, judgements=0, patience=2, learning_rate=1e-6)
    assert any("no better score in 2 judgements" in why for why in still.apply(toy(), task).skipped.values())


def test_samples_that_are_trained_on_are_not_judged() -> None:
    data = toy_task(labels=False).validate
    assert curve_of(Distill(epochs=1.0, batch=32), Task(validate=data).with_original(toy())).judged == []


def test_each_score_has_its_own_judge() -> None:
    """Although two functions may have the same name."""
    found = []
    for value in (0.25, 0.75):

        def score(outputs: list[Array], labels: Array, value: float = value) -> Array:
            return np.full(len(labels), value)

        task = replace(toy_task(train=64), score=score).with_original(toy())
        found.append(curve_of(Distill(epochs=0.5, batch=32), task).scores[0])
    assert found == [0.25, 0.75]


class Killed(Exception):
    """The run ends here."""


def test_a_killed_distillation_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        if (done, total) == (40, 64):
            raise Killed

    task = replace(toy_task(train=64), augment="image").with_original(toy())
    method = Distill(epochs=32.0, batch=32, views=3, ema=0.9, feature_weight=0.5)
    whole = method.apply(damaged(), task).network
    with pytest.raises(Killed):
        method.apply(damaged(), task, Workspace(tmp_path, 0.0, step=kill))
    outcome = method.apply(damaged(), task, Workspace(tmp_path, 0.0))
    assert list(outcome.skipped.values()) == ["Continued after step 39 of 64."]
    assert all(torch.equal(w, whole.weights()[name]) for name, w in outcome.network.weights().items())


@pytest.mark.parametrize("change", [{"temperature": 1.0}, {"label_weight": 0.5}, {"feature_weight": 0.5}], ids=str)
def test_what_was_learnt_from_another_loss_is_not_continued(change: dict[str, float], tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        if (done, total) == (20, 32):
            raise Killed

    task, method = toy_task(train=64).with_original(toy()), Distill(epochs=16.0, batch=32)
    with pytest.raises(Killed):
        method.apply(damaged(), task, Workspace(tmp_path, 0.0, step=kill))
    outcome = replace(method, **change).apply(damaged(), task, Workspace(tmp_path, 0.0))  # type: ignore[arg-type]
    expected = replace(method, **change).apply(damaged(), task).network  # type: ignore[arg-type]
    assert all(torch.equal(w, expected.weights()[name]) for name, w in outcome.network.weights().items())


@pytest.mark.parametrize("inside", [0.0, 1.0])
def test_weights_that_are_zero_stay_zero_where_they_are_many(inside: float) -> None:
    """Two thirds of the inner weights; the two zeros of the last layer are an accident."""
    student, task = toy(), toy_task(train=64).with_original(toy())
    weights = student.weights()
    weights["inner.weight"].detach()[torch.rand(weights["inner.weight"].shape) < 2 / 3] = 0.0
    weights["head.weight"].detach()[0, :2] = 0.0
    zeros = weights["inner.weight"] == 0
    outcome = Distill(epochs=8.0, batch=32, feature_weight=inside).apply(student, task)
    learnt = outcome.network.weights()
    assert torch.equal(learnt["inner.weight"] == 0, zeros) and not torch.equal(
        learnt["inner.weight"], weights["inner.weight"]
    )
    assert (learnt["head.weight"] != 0).all()
    assert outcome.skipped == {"zeros": f"{int(zeros.sum()):,} weights that are zero stay zero, of inner.weight"}
    assert Distill(epochs=0.1, batch=32).apply(toy(), task).skipped == {}
