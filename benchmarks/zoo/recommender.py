"""Recommenders: tables of embeddings, crossed with each other.

He, Liao, Zhang, Nie, Hu, Chua (2017). Neural Collaborative Filtering. arXiv:1708.05031
Cheng et al. (2016). Wide & Deep Learning for Recommender Systems. arXiv:1606.07792
Naumov et al. (2019). Deep Learning Recommendation Model for Personalization and Recommendation Systems.
arXiv:1906.00091
Yi et al. (2019). Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations.
doi:10.1145/3298689.3346996 (two towers)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, floats, integers, seeded, together

USERS, ITEMS, KINDS, DENSE, HISTORY = 60, 90, 12, 7, 5


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers with a relu behind each."""
    made: list[nn.Module] = []
    for inside, outside in zip(sizes, sizes[1:], strict=False):
        made += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*made)


class TwoTowers(nn.Module):
    """A user and an item as vectors; the table of items serves the history of the user and the item itself."""

    def __init__(self, width: int = 16, code: int = 12) -> None:
        super().__init__()
        self.users, self.items, self.kinds = (nn.Embedding(n, width) for n in (USERS, ITEMS, KINDS))
        self.user_tower = nn.Sequential(perceptron(2 * width, 32), nn.Linear(32, code))
        self.item_tower = nn.Sequential(perceptron(2 * width, 24), nn.Linear(24, code))

    def forward(self, user: Tensor, history: Tensor, item: Tensor, kind: Tensor) -> dict[str, Tensor]:
        liked = self.items(history).mean(1)
        u = F.normalize(self.user_tower(torch.cat([self.users(user), liked], -1)), dim=-1)
        v = F.normalize(self.item_tower(torch.cat([self.items(item), self.kinds(kind)], -1)), dim=-1)
        return {"score": (u * v).sum(-1), "user_vector": u, "item_vector": v}


class NeuMF(nn.Module):
    """A product of two embeddings beside a perceptron on two others."""

    def __init__(self, factors: int = 8, hidden: tuple[int, ...] = (32, 16, 8)) -> None:
        super().__init__()
        half = hidden[0] // 2
        self.user_product, self.item_product = nn.Embedding(USERS, factors), nn.Embedding(ITEMS, factors)
        self.user_deep, self.item_deep = nn.Embedding(USERS, half), nn.Embedding(ITEMS, half)
        self.deep = perceptron(*hidden)
        self.head = nn.Linear(factors + hidden[-1], 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        product = self.user_product(user) * self.item_product(item)
        deep = self.deep(torch.cat([self.user_deep(user), self.item_deep(item)], 1))
        return torch.sigmoid(self.head(torch.cat([product, deep], 1))).squeeze(1)


class WideAndDeep(nn.Module):
    """A linear model of crossed features, with dense ones too, added to a perceptron on embeddings."""

    def __init__(self, width: int = 8, hidden: tuple[int, ...] = (32, 24)) -> None:
        super().__init__()
        self.wide = nn.EmbeddingBag(USERS, 1, mode="sum")
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n in (ITEMS, KINDS))
        self.deep = perceptron(2 * width + DENSE, *hidden)
        self.head, self.plain = nn.Linear(hidden[-1], 1), nn.Linear(DENSE, 1)

    def forward(self, crossed: Tensor, features: Tensor, dense: Tensor) -> Tensor:
        looked_up = [table(features[:, i]) for i, table in enumerate(self.tables)]
        deep = self.deep(torch.cat([*looked_up, dense], 1))
        result: Tensor = self.head(deep) + self.plain(dense) + self.wide(crossed)
        return result


class DLRM(nn.Module):
    """Dense features become one more embedding; the products of all pairs go to a perceptron."""

    def __init__(self, width: int = 16, bottom: int = 32, top: tuple[int, ...] = (32, 16)) -> None:
        super().__init__()
        self.bottom = perceptron(DENSE, bottom, width)
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n in (USERS, ITEMS, KINDS))
        vectors = 1 + len(self.tables)
        self.register_buffer("pairs", torch.tril_indices(vectors, vectors, -1), persistent=False)
        self.top = perceptron(width + vectors * (vectors - 1) // 2, *top)
        self.head = nn.Linear(top[-1], 1)

    def forward(self, dense: Tensor, user: Tensor, item: Tensor, kind: Tensor) -> Tensor:
        x = self.bottom(dense)
        looked_up = [table(index) for table, index in zip(self.tables, (user, item, kind), strict=True)]
        crossed = self.interactions(torch.stack([x, *looked_up], 1))
        result: Tensor = torch.sigmoid(self.head(self.top(torch.cat([x, crossed], 1))))
        return result

    def interactions(self, vectors: Tensor) -> Tensor:
        """The product of every two of the vectors of a sample."""
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        pairs = self.get_buffer("pairs")
        return products[:, pairs[0], pairs[1]]


def architectures() -> list[Architecture]:
    """Small tables; several inputs each, several outputs of the two towers."""
    ids = {"user": (USERS, ()), "item": (ITEMS, ()), "kind": (KINDS, ())}
    towers = integers({"user": ids["user"], "history": (ITEMS, (HISTORY,)), "item": ids["item"], "kind": ids["kind"]})
    pair = integers({"user": ids["user"], "item": ids["item"]})
    wide = integers({"crossed": (USERS, (4,)), "features": (KINDS, (2,))})
    dense = floats(dense=(DENSE,))
    return [
        seeded("two_towers", "recommender", TwoTowers, towers),
        seeded("neumf", "recommender", NeuMF, pair),
        seeded("wide_and_deep", "recommender", WideAndDeep, together(wide, dense)),
        seeded("dlrm", "recommender", DLRM, together(dense, integers(ids))),
    ]
