"""Recipes that store a network in fewer bytes: codebooks in place of weights, tables of fewer rows and lower rank.

None of them takes work away at run time, some add a look-up, so they are tried where size is minimised only. Where
weights are integers already, what is left in floating point are the tables, which no runtime reads as integers.
"""

from slimline.methods.factorize.embedding import FactorizeEmbedding
from slimline.methods.method import Method
from slimline.methods.prune.vocabulary import PruneVocabulary
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.share.codebook import ShareWeights, is_table, weights_read
from slimline.network.network import Network
from slimline.task import Task

CLUSTERS = (256, 16)
"""A byte and half a byte for every weight."""
TABLES: tuple[Method, ...] = (PruneVocabulary(), FactorizeEmbedding(budget=0.5))
"""What makes tables smaller before they are shared: each, and both."""


def smaller(network: Network, base: Recipe, task: Task) -> list[Recipe]:
    """Recipes that store less than ``base``. They name no layers, so that they fit narrower networks too.

    Args:
        network: the original.
        base: simplifies, and may quantise after that.
        task: tells which words are common.
    """
    split = next((i for i, m in enumerate(base.methods) if isinstance(m, QuantizeStatic)), len(base.methods))
    before, integers = base.methods[:split], base.methods[split:]
    simple = Recipe(before).apply(network, task).network
    tables = any(map(is_table, weights_read(simple).values()))
    if integers and not tables:
        return []
    starts: list[tuple[Method, ...]] = [()]
    if tables:
        working = [m for m in TABLES if _is_real(m, task) and m.apply(simple, task).changed]
        starts += [(method,) for method in working] + ([tuple(working)] if len(working) > 1 else [])
    of = "tables" if integers else "everything"
    return [
        Recipe([*before, *start, ShareWeights(clusters=clusters, of=of), *integers])
        for start in starts
        for clusters in CLUSTERS
    ]


def _is_real(method: Method, task: Task) -> bool:
    """Whether the samples tell a method what it has to know."""
    return not (task.synthetic and isinstance(method, PruneVocabulary))
