"""Recipes that store less: what they take, what they leave; files get smaller and answers stay about the same."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.methods.factorize.embedding import FactorizeEmbedding
from slimline.methods.prune.vocabulary import PruneVocabulary
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.share.codebook import ShareWeights
from slimline.methods.simplify.simplify import Simplify
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.search.storage import CLUSTERS, smaller, tables
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


def synthetic(task: Task) -> Task:
    return Task(validate=task.validate, train="synthetic")


def test_tables_are_what_is_only_looked_up_in_and_large_enough() -> None:
    assert tables(words_network()) == ("table",)
    assert tables(toy()) == ()


def test_without_tables_floats_get_codebooks_and_integers_nothing() -> None:
    simplify, integers = Simplify(), QuantizeStatic()
    task = toy_task()
    found = smaller(toy(), Recipe([simplify]), task)
    assert [list(r.methods) for r in found] == [[simplify, ShareWeights(clusters=c)] for c in CLUSTERS]
    assert smaller(toy(), Recipe([simplify, integers]), task) == []


def test_tables_are_factorized_too_and_shared_beside_integers() -> None:
    network, task = words_network(), words_task()
    simplify, integers = Simplify(), QuantizeStatic(samples=16)
    floats = smaller(network, Recipe([simplify]), task)
    assert len(floats) == len(CLUSTERS) * 4
    beside = smaller(network, Recipe([simplify, integers]), task)
    assert len(beside) == len(floats)
    for recipe in beside:
        assert recipe.methods[0] == simplify and recipe.methods[-1] == integers
        (share,) = [m for m in recipe.methods if isinstance(m, ShareWeights)]
        kinds = {type(m) for m in recipe.methods}
        name = "table" + ".kept" * (PruneVocabulary in kinds) + ".first" * (FactorizeEmbedding in kinds)
        assert share.layers == (name,)
    assert not [r for r in smaller(network, Recipe([simplify]), synthetic(task)) if "PruneVocabulary" in r.to_yaml()]


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
