"""A table of words becomes a narrower table and a linear layer.

Lan et al. (2020). ALBERT: A Lite BERT for Self-supervised Learning of Language Representations. arXiv:1909.11942,
section 3.1, of a table that is trained already; rows weighed by how often they are read as in Chen, Si, Li, Chelba,
Hsieh (2018), GroupReduce, arXiv:1806.06950, section 3.2.

    min over A, B of  sum over words i of  f_i | E_i - A_i B |^2          f_i: how often word i is read, plus one

B holds the first right singular vectors of diag(f)^1/2 E, and A = E B^T.

Ours differs: one rank for the whole table; f counts the words of the task's samples, and is one without a task.
Helps: bytes, where a table holds most of the weights, as in small encoders and recommenders.  Does not: save time; the
linear layer even costs some.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.factorize.ranks import check_rank, energy_rank, layers_param, multiple_param, too_large
from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.tables import own_lookups, reads, table_of
from slimline.network.calls import part_name
from slimline.network.network import Network, get_tensor
from slimline.network.surgery import set_weight, unused_name
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten


def split(table: Tensor, frequency: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (words, rank) and B (rank, width) of the equation above.

    Args:
        table: E, (words, width).
        frequency: f, (words,), all above 0.
    """
    weighed = frequency.double().sqrt()[:, None] * table.double()
    _, vectors = torch.linalg.eigh(weighed.T @ weighed)  # (width, width) instead of (words, width)
    b = vectors.flip(1)[:, :rank].T
    # eigh leaves the signs open: the largest entry of every row is positive
    b = b * torch.where(b.gather(1, b.abs().argmax(1, keepdim=True)) < 0, -1.0, 1.0)
    return table.double() @ b.T, b


@register
@dataclass(frozen=True)
class FactorizeEmbedding(Method):
    """Replace tables that are read by number by narrower ones and a linear layer."""

    rank: int = param(0, low=0, high=65536, doc="width of the narrower table; 0 chooses one for every table")
    budget: float = param(0.5, low=0.001, high=1.0, doc="share of a table's numbers that are stored, where rank is 0")
    energy: float = param(0.0, low=0.0, high=1.0, doc="share of the squares that is kept instead, if above 0")
    multiple: int = multiple_param()
    samples: int = param(4096, low=0, high=1000000, doc="samples whose words are counted; 0 counts all words alike")
    layers: tuple[str, ...] = layers_param()

    needs = frozenset({"float weights"})
    cites = ("lan2020albert", "chen2018groupreduce")

    def learns_from_data(self) -> bool:
        return self.samples > 0

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        calls, skipped = own_lookups(result, self.layers, "FactorizeEmbedding")
        counts: dict[str, Tensor] = {}
        if calls and task is not None and self.samples and not (task.wants_synthetic or task.synthetic):
            counts = reads(network, task, "Counting words", self.samples)
        changed, widths = [], {}
        for name, node in calls.items():
            table = get_tensor(result.module, table_of(node)).detach()
            if not bool(table.isfinite().all()):
                skipped[name] = "has values that are not finite"
                continue
            widths[name] = table.shape[1]
            if reasons := too_large(self, self.rank, name, widths[name], bool(self.layers)):
                skipped[name] = "; ".join(reasons)
                continue
            frequency = 1 + counts.get(name, torch.zeros(len(table), dtype=torch.double))
            rank = self.chosen_rank(table, frequency)
            if rank * sum(table.shape) >= table.numel():
                skipped[name] = f"would not get smaller: rank {rank} of {tuple(table.shape)}"
                continue
            _replace_(result, name, node, *split(table, frequency, rank))
            changed.append(name)
        check_rank(self, self.rank, widths)
        return Outcome(result.tidy_(), changed, skipped)

    def chosen_rank(self, table: Tensor, frequency: Tensor) -> int:
        """The width of the narrower table."""
        words, width = table.shape
        if self.rank:
            return self.rank
        if self.energy:
            found = energy_rank(frequency.sqrt()[:, None] * table.double(), self.energy)
            return min(width, -(-found // self.multiple) * self.multiple)
        most = int(self.budget * words * width / (words + width))
        return max(1, most - most % self.multiple if most >= self.multiple else most)


def _replace_(network: Network, name: str, node: Node, a: Tensor, b: Tensor) -> None:
    """Put the narrower table and the linear layer in the place of a table; edits the network."""
    dtype = get_tensor(network.module, table_of(node)).dtype
    graph = network.module.graph
    with graph.inserting_before(node):
        narrow = unused_name(network, part_name(name, table_of(node), "first.weight"))
        set_weight(network, narrow, a.to(dtype).contiguous())
        table = graph.create_node("get_attr", narrow)
        found = graph.call_function(aten.embedding.default, (table, *node.args[1:]), node.kwargs)
        wide = unused_name(network, part_name(name, table_of(node), "last.weight"))
        set_weight(network, wide, b.T.to(dtype).contiguous())
        value = graph.call_function(aten.linear.default, (found, graph.create_node("get_attr", wide), None))
    node.replace_all_uses_with(value)
    graph.erase_node(node)
