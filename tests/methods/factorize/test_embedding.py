"""The factors of a table are the best there are for the words that are read."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods.factorize.embedding import FactorizeEmbedding, split
from slimline.methods.recipe import Recipe
from slimline.network import container
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task

WORDS, WIDTH = 200, 24


class Bag(nn.Module):
    """The mean of words, and of the places they stand at, through a linear layer."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(16, WIDTH)
        self.head, self.tied = nn.Linear(WIDTH, 3), tied

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x) + self.places(torch.arange(x.shape[1]).expand(x.shape))
        result: Tensor = self.head(torch.tanh(y).mean(1))
        return result + (y @ self.words.weight.T).mean((1, 2))[:, None] if self.tied else result


def texts(count: int = 64) -> np.ndarray:
    """The first words are far more frequent than the last."""
    rng = np.random.default_rng(0)
    return (WORDS * rng.random((count, 8)) ** 4).astype(np.int64)


def bag(tied: bool = False) -> Network:
    torch.manual_seed(0)
    return trace(Bag(tied).eval(), {"x": torch.from_numpy(texts(2))})


def task() -> Task:
    return Task(validate={"x": texts()}, score="relative")


@pytest.mark.parametrize("rank", [1, 5, 23])
def test_the_factors_are_the_weighted_optimum(rank: int) -> None:
    """What is left of the squares are the tail singular values of the weighed table (Eckart & Young)."""
    rng = np.random.default_rng(1)
    table, frequency = rng.normal(size=(40, WIDTH)), rng.integers(1, 90, 40).astype(float)
    a, b = split(torch.from_numpy(table), torch.from_numpy(frequency), rank)
    left = (frequency[:, None] * (table - (a @ b).numpy()) ** 2).sum()
    tail = np.linalg.svd(np.sqrt(frequency)[:, None] * table, compute_uv=False)[rank:]
    np.testing.assert_allclose(left, (tail**2).sum(), rtol=1e-9)
    np.testing.assert_allclose((b @ b.T).numpy(), np.eye(rank), atol=1e-9)


def test_a_full_rank_changes_nothing_but_is_not_smaller() -> None:
    network = bag()
    outcome = FactorizeEmbedding(rank=WIDTH, layers=("words",)).apply(network)
    assert not outcome.changed and outcome.skipped["words"] == "would not get smaller: rank 24 of (200, 24)"


def test_the_words_that_are_read_keep_more() -> None:
    """By error on the answers; counting all words alike serves those that never come."""
    network = bag()
    x = torch.from_numpy(texts(200))
    expected = network.run({"x": x})[0]

    def off(method: FactorizeEmbedding) -> float:
        return float((method.apply(network, task()).network.run({"x": x})[0] - expected).square().mean())

    assert off(FactorizeEmbedding(rank=8, layers=("words",))) < off(
        FactorizeEmbedding(rank=8, samples=0, layers=("words",))
    )


def test_numbers_and_shapes_are_those_of_the_rank() -> None:
    network = bag()
    outcome = FactorizeEmbedding(budget=0.5).apply(network, task())
    weights = outcome.network.weights()
    assert outcome.changed == ["words", "places"]
    assert weights["words.first.weight"].shape == (WORDS, 8) and weights["words.last.weight"].shape == (WIDTH, 8)
    stored = sum(weights[f"words.{part}.weight"].numel() for part in ("first", "last"))
    assert stored <= 0.5 * WORDS * WIDTH
    by_energy = FactorizeEmbedding(energy=0.9, multiple=1, samples=0, layers=("words",)).apply(network).network
    rank = by_energy.weights()["words.first.weight"].shape[1]
    squares = np.linalg.svd(network.weights()["words.weight"].detach().numpy(), compute_uv=False) ** 2
    assert squares[:rank].sum() >= 0.9 * squares.sum() > squares[: rank - 1].sum()


def test_it_saves_exports_and_learns(tmp_path) -> None:  # type: ignore[no-untyped-def]
    result = Recipe([FactorizeEmbedding(rank=8)]).apply(bag(), task()).network
    again = container.load(container.save(result, tmp_path / "a.slim"))
    x = torch.from_numpy(texts(5))
    assert torch.equal(again.run({"x": x})[0], result.run({"x": x})[0])
    result.module(x)[0].sum().backward()
    assert all(result.weights()[f"words.{part}.weight"].grad is not None for part in ("first", "last"))


def test_what_cannot_be_done_is_told() -> None:
    outcome = FactorizeEmbedding(rank=4).apply(bag(tied=True), task())
    assert outcome.skipped["words"] == "has a table that is read elsewhere too" and outcome.changed == ["places"]
    with pytest.raises(SlimlineError, match=r"rank=25\) is too large: the rank of words is 24 at most; choose 1 to 24"):
        FactorizeEmbedding(rank=25).apply(bag())
    with pytest.raises(SlimlineError, match=r"names 'word', which is no table; near names: words"):
        FactorizeEmbedding(layers=("word",)).apply(bag())


def test_a_table_that_is_too_narrow_or_broken_does_not_end_the_others() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow, self.broken = (nn.Embedding(64, w) for w in (32, 8, 32))
            self.broken.weight.data[3, 5] = torch.inf

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.wide(x), self.narrow(x), self.broken(x)], 2)

    network = trace(Two(), {"x": torch.zeros(2, 5, dtype=torch.int64)})
    outcome = FactorizeEmbedding(rank=16).apply(network)
    assert outcome.changed == ["wide"]
    assert outcome.skipped["narrow"] == "has rank 8 at most, fewer than 16"
    assert outcome.skipped["broken"] == "has values that are not finite"
    with pytest.raises(SlimlineError, match=r"rank=16\) is too large: the rank of narrow is 8 at most; choose 1 to 8"):
        FactorizeEmbedding(rank=16, layers=("narrow",)).apply(network)
