"""Words that come stay as they are; those that never came are read as the nearest that did."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimline.errors import SlimlineError
from slimline.methods.factorize.embedding import FactorizeEmbedding
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.prune.vocabulary import PruneVocabulary, nearest
from slimline.methods.recipe import Recipe
from slimline.network import container
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Artifact
from slimline.task import Task
from tests.methods.factorize.test_embedding import WIDTH, WORDS, bag

ONLY_WORDS = ("words",)


def texts(count: int = 64, seed: int = 0) -> np.ndarray:
    """Even words only, and few of the last."""
    rng = np.random.default_rng(seed)
    return (WORDS / 2 * rng.random((count, 8)) ** 4).astype(np.int64) * 2


def task() -> Task:
    return Task(validate={"x": texts()}, score="relative")


def pruned(least: int = 1) -> Network:
    return PruneVocabulary(least=least, layers=ONLY_WORDS).apply(bag(), task()).network


@pytest.mark.parametrize("count", [0, 5, 3000])
def test_the_nearest_row_is_that_of_all_distances(count: int) -> None:
    rng = np.random.default_rng(2)
    rows, kept = rng.normal(size=(count, 7)), rng.normal(size=(40, 7)) * rng.uniform(0.1, 3, (40, 1))
    expected = ((rows[:, None] - kept) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(nearest(torch.from_numpy(rows), torch.from_numpy(kept)), expected)


def test_samples_of_words_that_came_are_answered_as_before() -> None:
    x = torch.from_numpy(texts())
    network = pruned()
    assert torch.equal(network.run({"x": x})[0], bag().run({"x": x})[0])
    assert network.weights()["words.kept.weight"].shape == (len(np.unique(texts())), WIDTH)
    assert "words.weight" not in network.weights()


@pytest.mark.parametrize("least", [1, 4, 20])
def test_every_other_word_is_read_as_the_nearest_one_that_stays(least: int) -> None:
    count = np.bincount(texts().ravel(), minlength=WORDS)
    before = bag()
    table = before.weights()["words.weight"].detach().numpy().copy()
    kept = np.flatnonzero(count >= least)
    apart = ((table[:, None] - table[kept]) ** 2).sum(2)
    with torch.no_grad():
        before.weights()["words.weight"].copy_(torch.from_numpy(table[kept[apart.argmin(1)]]))
    x = torch.arange(WORDS)[:, None]
    assert torch.equal(pruned(least).run({"x": x})[0], before.run({"x": x})[0])


def test_it_goes_with_what_makes_the_rest_smaller() -> None:
    network, x = bag(), torch.from_numpy(texts())
    recipe = Recipe([PruneVocabulary(), FactorizeEmbedding(rank=20), PruneChannels(keep=0.75, importance="l2")])
    result = recipe.apply(network, task()).network
    assert result.parameter_count() < 0.6 * network.parameter_count()
    assert result.run({"x": x})[0].shape == (64, 3)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_files_answer_like_the_network_and_are_smaller(runtime: str, tmp_path: Path) -> None:
    engine, x = get_runtime(runtime), np.random.default_rng(1).integers(0, WORDS, (9, 8))
    sizes = []
    for name, network in (("whole", bag()), ("pruned", pruned(20))):
        (tmp_path / name).mkdir()
        artifact = Artifact(engine.export(network, tmp_path / name), runtime)
        answer = engine.open(artifact, 1).run({"x": x})[0]
        np.testing.assert_allclose(answer, network.run({"x": torch.from_numpy(x)})[0], atol=1e-5)
        sizes.append(artifact.size_bytes)
    assert sizes[1] < sizes[0]


def test_it_saves_and_learns(tmp_path: Path) -> None:
    result = pruned()
    x = torch.from_numpy(texts(5))
    again = container.load(container.save(result, tmp_path / "a.slim"))
    assert torch.equal(again.run({"x": x})[0], result.run({"x": x})[0])
    result.module(x)[0].sum().backward()
    assert result.weights()["words.kept.weight"].grad is not None


def test_what_cannot_be_done_is_told() -> None:
    outcome = PruneVocabulary().apply(bag(tied=True), task())
    assert outcome.skipped["words"] == "has a table that is read elsewhere too" and outcome.changed == ["places"]
    everything = Task(validate={"x": np.arange(WORDS * 2).reshape(-1, 16) % WORDS}, score="relative")
    assert PruneVocabulary().apply(bag(), everything).skipped["words"] == "has no row that is read less"
    with pytest.raises(
        SlimlineError, match=r"least=100000\) would leave no row of words: its most common one is read "
    ):
        PruneVocabulary(least=100000).apply(bag(), task())
    with pytest.raises(SlimlineError, match=r"names 'word', which is no table; near names: words"):
        PruneVocabulary(layers=("word",)).apply(bag(), task())
    with pytest.raises(SlimlineError, match="needs data"):
        PruneVocabulary().apply(bag())
    mostly = Task(validate={"x": np.arange(WORDS - 8).reshape(-1, 8)}, score="relative")
    expected = f"would not get smaller: {8 * WIDTH * 4} bytes of rows go, {WORDS * 4} of numbers come"
    assert PruneVocabulary().apply(bag(), mostly).skipped["words"] == expected


@pytest.mark.parametrize("synthetic", [{"train": "synthetic"}, {"synthetic": True}])
def test_samples_that_were_made_do_not_tell_which_words_come(synthetic: dict[str, Any]) -> None:
    made = replace(Task(validate={"x": texts()}, score="relative"), **synthetic)
    with pytest.raises(SlimlineError, match="cannot tell from synthetic samples"):
        PruneVocabulary().apply(bag(), made)


def test_the_row_of_the_padding_does_not_learn_afterwards() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(WORDS, WIDTH, padding_idx=6), nn.Flatten(), nn.Linear(8 * WIDTH, 3))
    network = trace(module.eval(), {"input": torch.from_numpy(texts(2))})
    result = PruneVocabulary().apply(network, Task(validate={"input": texts()}, score="relative")).network
    result.module(torch.from_numpy(texts()))[0].sum().backward()
    place = int(result.weights()["0.row"][6])
    learnt = result.weights()["0.kept.weight"].grad.abs().sum(1)
    assert learnt[place] == 0 and learnt.count_nonzero() == len(learnt) - 1
