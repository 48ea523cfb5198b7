"""Recipes that store less: what they take, what they leave; files get smaller and answers stay about the same."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.methods.factorize.embedding import FactorizeEmbedding
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.prune.vocabulary import PruneVocabulary
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.share.codebook import ShareWeights
from slimline.methods.simplify.simplify import Simplify
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.search.storage import CLUSTERS, smaller
from slimline.task import Task
from tests.toys import toy, toy_task

WORDS, WIDTH = 400, 24


class Words(nn.Module):
    """The mean of words, two of which tables are worth a codebook; the third also serves as the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.few, self.tied = nn.Embedding(WORDS, WIDTH), nn.Embedding(4, WIDTH), nn.Embedding(60, WIDTH)
        self.inner = nn.Linear(WIDTH, 64)
        self.outer = nn.Linear(64, WIDTH)

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words) + self.few(words % 4) + self.tied(words % 60)
        result: Tensor = F.linear(self.outer(self.inner(x).relu()).mean(1), self.tied.weight)
        return result


def words_network() -> Network:
    torch.manual_seed(0)
    return trace(Words().eval(), {"words": torch.randint(0, WORDS, (2, 9))})


def words_task() -> Task:
    rng = np.random.default_rng(0)
    words = rng.integers(0, WORDS, (64, 9))
    return Task(
        validate={"words": words, "labels": words[:, 0] % 60}, train={"words": words, "labels": words[:, 0] % 60}
    )


def test_without_tables_floats_get_codebooks_and_integers_nothing() -> None:
    simplify, integers = Simplify(), QuantizeStatic()
    task = toy_task()
    found = smaller(toy(), Recipe([simplify]), task)
    assert [list(r.methods) for r in found] == [[simplify, ShareWeights(clusters=c)] for c in CLUSTERS]
    assert smaller(toy(), Recipe([simplify, integers]), task) == []


def test_tables_get_fewer_rows_and_a_lower_rank_too_and_are_shared_beside_integers() -> None:
    network, task = words_network(), words_task()
    simplify, integers = Simplify(), QuantizeStatic(samples=16)
    floats = smaller(network, Recipe([simplify]), task)
    starts = [tuple(type(m) for m in recipe.methods[1:-1]) for recipe in floats[:: len(CLUSTERS)]]
    assert starts == [(), (PruneVocabulary,), (FactorizeEmbedding,), (PruneVocabulary, FactorizeEmbedding)]
    for recipe in smaller(network, Recipe([simplify, integers]), task):
        weights = recipe.apply(network, task).network.weights()
        assert any(name.startswith("table") and "codebook" in name for name in weights)
        assert any(t.dtype is torch.int8 for t in weights.values())


def test_rows_stay_where_no_real_sample_tells_which_are_read_or_all_are() -> None:
    network, task = words_network(), words_task()
    everything = np.arange(WORDS).reshape(-1, 8)
    labels = np.zeros(len(everything), np.int64)
    read = Task(validate=task.validate, train={"words": everything, "labels": labels})
    for told in (replace(task, synthetic=True), read):
        recipes = smaller(network, Recipe([Simplify()]), told)
        assert recipes and not [r for r in recipes if "PruneVocabulary" in r.to_yaml()]


def test_recipes_fit_narrower_networks() -> None:
    network, task = words_network(), words_task()
    narrow = PruneChannels(keep=0.1, importance="l1").apply(network).network
    for recipe in smaller(network, Recipe([Simplify(), QuantizeStatic(samples=16)]), task):
        assert recipe.apply(narrow, task).network.run({"words": torch.randint(0, WORDS, (3, 9))})[0].shape[0] == 3


def stored_bytes(network: Network) -> int:
    return sum(t.numel() * t.element_size() for t in network.weights().values())


def test_each_recipe_stores_less_than_its_base_and_the_milder_ones_answer_alike() -> None:
    network, task = words_network(), words_task()
    given = {"words": torch.from_numpy(np.asarray(task.validate["words"]))}
    before = network.run(given)[0]
    for base in (Recipe([Simplify()]), Recipe([Simplify(), QuantizeStatic(samples=16)])):
        plain = base.apply(network, task).network
        recipes = smaller(network, base, task)
        sizes = [stored_bytes(recipe.apply(network, task).network) for recipe in recipes]
        assert max(sizes) < stored_bytes(plain)
        assert sizes[1] < sizes[0], "16 clusters take half of the bytes of 256"
        mild = recipes[0].apply(network, task).network.run(given)[0]
        errors = [float((after - before).norm() / before.norm()) for after in (mild, plain.run(given)[0])]
        assert errors[0] < errors[1] + 0.05
