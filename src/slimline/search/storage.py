"""Recipes that store a network in fewer bytes: codebooks in place of weights, tables of fewer rows and lower rank.

None of them makes anything faster (benchmarks/results/methods.json), so they are tried where size is minimised. Where
weights are integers already, what is left in floating point are the tables, which no runtime reads as integers.
"""

import torch

from slimline.methods.factorize.embedding import FactorizeEmbedding
from slimline.methods.method import Method
from slimline.methods.prune.vocabulary import PruneVocabulary
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.share.codebook import ShareWeights, weights_read
from slimline.network.network import Network, get_tensor
from slimline.task import Task

CLUSTERS = (256, 16)
"""A byte and half a byte for every weight."""
TABLE_BUDGET = 0.5
"""Share of a table's numbers that its two factors store."""


def smaller(network: Network, base: Recipe, task: Task) -> list[Recipe]:
    """Recipes that store less than ``base``, mildest first.

    Args:
        network: the original.
        base: simplifies, and may quantise after that.
        task: tells which words are common.
    """
    split = next((i for i, m in enumerate(base.methods) if isinstance(m, QuantizeStatic)), len(base.methods))
    before, integers = base.methods[:split], base.methods[split:]
    simple = Recipe(before).apply(network, task).network
    starts: list[list[Method]] = [[]]
    if tables(simple):
        rows: list[list[Method]] = [[]] if task.wants_synthetic else [[], [PruneVocabulary()]]
        starts = [[*fewer, *narrower] for fewer in rows for narrower in ([], [FactorizeEmbedding(budget=TABLE_BUDGET)])]
    found = []
    for start in starts:
        names = tables(Recipe(start).apply(simple, task).network)
        if integers and not names:
            continue
        layers = names if integers else ()
        found += [Recipe([*before, *start, ShareWeights(clusters=c, layers=layers), *integers]) for c in CLUSTERS]
    return found


def tables(network: Network) -> tuple[str, ...]:
    """Tables that are read by number and by nothing else, and that are worth a codebook."""
    lookup = torch.ops.aten.embedding.default
    return tuple(
        name
        for name, nodes in weights_read(network).items()
        if {user.target for n in nodes for user in n.users} == {lookup}
        and get_tensor(network.module, str(nodes[0].target)).numel() >= ShareWeights.smallest
    )
