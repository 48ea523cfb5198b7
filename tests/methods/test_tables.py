"""Counts of rows are those of the data, wherever the numbers come from."""

import numpy as np
import torch
from torch import Tensor, nn

from slimline.methods.tables import lookups, numbers_read, own_lookups, reads
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task

WORDS = 50


class Several(nn.Module):
    """A table read by input, one by what is computed from it, one by place, one that serves twice, one computed."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.folded, self.places = nn.Embedding(WORDS, 8), nn.Embedding(7, 8), nn.Embedding(16, 8)
        self.twice, self.seen = nn.Embedding(WORDS, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
        x = self.words(ids) + self.folded(ids % 7) + self.places(torch.arange(ids.shape[1]).expand(ids.shape))
        x = x + self.twice(ids) + nn.functional.embedding(ids, self.seen(self.twice.weight))
        result: Tensor = self.seen(x).mean(1) * scale
        return result


def ids(count: int = 70) -> np.ndarray:
    return np.random.default_rng(0).integers(0, WORDS - 9, (count, 6))


def several() -> Network:
    torch.manual_seed(0)
    return trace(Several().eval(), {"ids": torch.from_numpy(ids(2)), "scale": torch.ones(2, 1)})


def test_rows_are_counted_by_what_reads_them() -> None:
    task = Task(validate={"ids": ids(), "scale": np.ones((70, 1), np.float32)}, score="relative")
    found = reads(several(), task, "Counting", 65)
    expected = ids()[:65]
    np.testing.assert_array_equal(found["words"], np.bincount(expected.ravel(), minlength=WORDS))
    np.testing.assert_array_equal(found["folded"], np.bincount(expected.ravel() % 7, minlength=7))
    np.testing.assert_array_equal(found["places"], [65] * 6 + [0] * 10)
    assert set(found) == {"words", "folded", "places", "twice"}


def test_why_a_table_cannot_be_replaced() -> None:
    network = several()
    found, skipped = own_lookups(network, (), "Test")
    assert list(found) == ["words", "folded", "places"]
    assert skipped.pop("twice") == "has a table that is read elsewhere too"
    assert list(skipped.values()) == ["has a table that is computed"]
    assert own_lookups(network, ("folded", "twice"), "Test")[0].keys() == {"folded"}


def test_tables_of_one_parent_have_names_of_their_own() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = nn.ParameterDict({"user": torch.randn(WORDS, 4), "item": torch.randn(WORDS, 4)})

        def forward(self, ids: Tensor) -> Tensor:
            return nn.functional.embedding(ids, self.tables["user"]) * nn.functional.embedding(ids, self.tables["item"])

    assert set(lookups(trace(Pair().eval(), {"ids": torch.from_numpy(ids(2))}))) == {"tables.user", "tables.item"}


def test_what_lies_behind_the_numbers_is_not_computed() -> None:
    class Late(nn.Module):
        """To torch, a dropout is no dead code."""

        def __init__(self) -> None:
            super().__init__()
            self.words, self.drop = nn.Embedding(WORDS, 8), nn.Dropout(0.5)

        def forward(self, ids: Tensor) -> Tensor:
            result: Tensor = self.drop(self.words(ids)).mean(1)
            return result

    network = trace(Late().eval(), {"ids": torch.from_numpy(ids(2))})
    module = numbers_read(network, list(lookups(network).values()))
    assert [node.op for node in module.graph.nodes] == ["placeholder", "output"]
