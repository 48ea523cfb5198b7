"""Vocabulary pruning: rows of a table that the data do not read go, and the row nearest to each takes its place.

Yang, Cui, Chen (2022). TextPruner: A Model Pruning Toolkit for Pre-Trained Language Models. arXiv:2203.15996, section
3.1, and Abdaoui, Pradel, Sigel (2020). Load What You Need, arXiv:2010.05609: words of languages that nobody asks for.

    kept = { i : f_i >= least },   row(i) = i if i is kept, else argmin over kept k of |E_i - E_k|^2
                                                                          f_i: how often row i is read

Ours differs: the inputs stay what they are, since the numbers of the new rows stand in the graph, four bytes a word; a
word that never came is read as the kept one that is most like it, not as unknown.
Helps: the bytes of small encoders and recommenders, most of which are tables, at no cost in time.
Does not: know words that only other data would bring; make anything faster.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.tables import own_lookups, reads, table_of
from slimline.network.calls import part_name
from slimline.network.network import Network, get_tensor
from slimline.network.surgery import set_weight, unused_name
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
NUMBER = torch.int32
"""How the number of a row is stored."""
AT_ONCE = 1024
"""Rows whose nearest ones are looked for together."""


def nearest(rows: Tensor, kept: Tensor) -> Tensor:
    """For each of the rows (n, width) the place of the nearest one of ``kept`` (k, width); the first of several."""
    half_squares = kept.square().sum(1) / 2
    parts = [(half_squares - part @ kept.T).argmin(1) for part in torch.split(rows, AT_ONCE)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)


@register
@dataclass(frozen=True)
class PruneVocabulary(Method):
    """Drop rows of tables that are seldom or never read."""

    least: int = param(1, low=1, high=1000000, doc="times that a row is read in the samples, at least, to stay")
    samples: int = param(1000000, low=1, high=2**31, doc="training samples that are looked at, at most")
    layers: tuple[str, ...] = param((), doc="names of the tables to take; none for all that qualify")

    needs = frozenset({"data", "float weights"})
    cites = ("yang2022textpruner", "abdaoui2020load")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        calls, skipped = own_lookups(result, self.layers, "PruneVocabulary")
        if task is not None and (task.wants_synthetic or task.synthetic):
            raise SlimlineError(
                "PruneVocabulary cannot tell from synthetic samples which words come: give real training samples."
            )
        counts = reads(network, task, "Vocabulary pruning", self.samples)
        changed = []
        for name, node in calls.items():
            reasons = self.unsupported(name, counts[name], get_tensor(result.module, table_of(node)))
            if reasons:
                skipped[name] = "; ".join(reasons)
            else:
                _replace_(result, name, node, (counts[name] >= self.least).nonzero()[:, 0])
                changed.append(name)
        return Outcome(result.tidy_(), changed, skipped)

    def unsupported(self, name: str, count: Tensor, table: Tensor) -> list[str]:
        """Why a table stays as it is; [] means that rows can go.

        Raises:
            SlimlineError: no row would stay.
        """
        kept = int((count >= self.least).sum())
        if not kept:
            raise SlimlineError(
                f"PruneVocabulary(least={self.least}) would leave no row of {name}: its most common one is read "
                f"{int(count.max())} times; choose less, or give more samples."
            )
        if kept == len(count):
            return ["has no row that is read less"]
        gone, added = (len(count) - kept) * table[0].numel() * table.element_size(), len(count) * NUMBER.itemsize
        return [f"would not get smaller: {gone} bytes of rows go, {added} of numbers come"] if added >= gone else []


def _replace_(network: Network, name: str, node: Node, kept: Tensor) -> None:
    """Put the kept rows and the numbers they have now in the place of a table; edits the network."""
    table = get_tensor(network.module, table_of(node))
    rows = table.detach()
    numbers = nearest(rows.float(), rows[kept].float()).to(NUMBER)
    numbers[kept] = torch.arange(len(kept), dtype=NUMBER)
    graph = network.module.graph
    with graph.inserting_before(node):
        place = unused_name(network, part_name(name, table_of(node), "row"))
        set_weight(network, place, numbers)
        found = graph.call_function(aten.index.Tensor, (graph.create_node("get_attr", place), [node.args[1]]))
        smaller = unused_name(network, part_name(name, table_of(node), "kept.weight"))
        set_weight(network, smaller, rows[kept].clone(), table.requires_grad)
        rest = list(node.args[2:])
        if rest and isinstance(rest[0], int) and rest[0] >= 0:  # the row of the padding, which does not learn
            rest[0] = int(numbers[rest[0]])
        value = graph.call_function(aten.embedding.default, (graph.create_node("get_attr", smaller), found, *rest))
    node.replace_all_uses_with(value)
    graph.erase_node(node)
