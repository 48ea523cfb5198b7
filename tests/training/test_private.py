"""Private data only judge: what is trained on comes from the network."""

import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from slimline.errors import SlimlineError
from slimline.methods.distill.distill import Distill
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.recipe import Recipe
from slimline.network.trace import trace
from slimline.task import Samples, Task
from slimline.training import private, synthetic
from slimline.training.private import with_mixtures, with_training_samples
from tests.toys import patterns, toy, toy_task


@pytest.fixture(autouse=True)
def few() -> object:
    """Enough for a toy, in one precision however busy the machine."""
    with patch.object(private, "SYNTHETIC_SAMPLES", 256), patch.object(synthetic, "CLEARLY", math.inf):
        yield


def hidden() -> Task:
    return Task(validate=toy_task().validate, train="synthetic")


def test_samples_are_made_where_they_are_asked_for_and_nowhere_else() -> None:
    given = toy_task()
    assert with_training_samples(given, toy()) is given
    made = with_training_samples(hidden(), toy(), seed=1)
    assert isinstance(made.train, Samples) and made.train.labels is None
    assert made.train.inputs["image"].shape == (512, 1, 8, 8) and not made.wants_synthetic and made.synthetic
    again, other = (with_training_samples(hidden(), toy(), seed).train.inputs["image"] for seed in (1, 2))
    assert np.array_equal(again, made.train.inputs["image"]) and not np.array_equal(other, again)


def test_the_second_half_lies_between_two_samples_of_the_first() -> None:
    x, y = torch.rand(40, 3), torch.arange(40.0)[:, None, None].expand(40, 2, 2)
    mixed = with_mixtures({"x": x, "y": y}, seed=0)
    assert torch.equal(mixed["x"][:40], x) and torch.equal(mixed["y"][:40], y) and len(mixed["x"]) == 80
    shares = []
    for i in range(40):
        place = float(mixed["y"][40 + i, 0, 0])
        fits = [
            j for j in range(40)
            if j != i and torch.allclose(mixed["x"][40 + i], x[i] + (place - i) / (j - i) * (x[j] - x[i]), atol=1e-4)
        ]  # fmt: skip
        shares += [(place - i) / (fits[0] - i)] if fits else []
    assert len(shares) >= 38 and 0 <= min(shares) < 0.2 and 0.8 < max(shares) <= 1


def test_rows_of_a_table_are_not_mixed() -> None:
    network = trace(
        nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval(), (torch.ones(2, 3).long(),)
    )
    (name,) = network.input_names
    made = {name: torch.randint(0, 9, (40, 3))}
    task = Task(validate={name: made[name].numpy()}, train="synthetic")
    with patch.object(private, "synthesize", return_value=made):
        assert np.array_equal(with_training_samples(task, network).train.inputs[name], made[name])


def test_mixtures_do_not_depend_on_where_the_channels_lie() -> None:
    first = torch.rand(10, 3, 4, 5)
    mixed = with_mixtures({"x": first.permute(0, 2, 3, 1).contiguous(), "y": torch.rand(10, 2)}, seed=1)["x"]
    assert torch.equal(mixed, with_mixtures({"x": first}, seed=1)["x"].permute(0, 2, 3, 1))


def accuracy(network: object, seed: int = 9) -> float:
    images, labels = patterns(600, seed)
    task = replace(toy_task(), validate={"image": images, "labels": labels}).decided(toy())
    outputs = [o.numpy() for o in network.run(task.validate.tensors())]  # type: ignore[attr-defined]
    return float(task.per_sample(outputs, task.validate, []).mean())


def test_a_recipe_recovers_a_network_whose_data_it_never_sees() -> None:
    """The validation samples are noise, so only the network's own statistics can have helped."""
    noise = Task(validate={"image": np.random.default_rng(0).normal(size=(60, 1, 8, 8)).astype(np.float32)})
    prune = PruneChannels(keep=0.5, importance="l1", multiple=4)
    pruned = prune.apply(toy()).network
    recipe = Recipe([prune, Distill(epochs=12.0, batch=32, judgements=0)])
    recovered = recipe.apply(toy(), replace(noise, train="synthetic")).network
    assert accuracy(recovered) > accuracy(pruned) + 0.15


def test_a_method_alone_does_not_take_the_judging_samples_instead() -> None:
    with pytest.raises(SlimlineError, match="train='synthetic' are not made yet: apply it in a Recipe"):
        Distill().apply(toy(), hidden().with_original(toy()))


def test_any_other_word_is_refused() -> None:
    with pytest.raises(SlimlineError, match=r"Task\(train='syntetic'\) is unknown: give samples, or the word 'synth"):
        Task(validate=toy_task().validate, train="syntetic")
