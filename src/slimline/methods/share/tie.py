"""Weight tying: tensors that are equal bit for bit are stored once.

Press, Wolf (2017). Using the Output Embedding to Improve Language Models. arXiv:1608.05859, section 3: the two
embeddings of a network are one matrix. Here nothing is made equal; what is equal already is found.

    W_a = W_b  ->  every reader of W_b reads W_a

Helps: files in which an exporter wrote a shared weight once for every layer that reads it, and layers that were copied
and never trained apart.  Does not: change an answer; but what is tied stays equal in later training.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.method import Method, Outcome, param, register
from slimline.network.network import Network, get_tensor
from slimline.task import Task
from slimline.training.workspace import Workspace

STATISTICS = slice(3, 5)
"""Arguments of a batch norm that training writes to: two that start equal do not stay so."""


def fingerprint(tensor: Tensor) -> tuple[object, ...]:
    """The same for two tensors only if they have one shape, one kind and the same bits, and learn or do not alike."""
    content = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
    learns = isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad
    return tuple(tensor.shape), tensor.dtype, learns, hashlib.sha256(content.data).digest()


@register
@dataclass(frozen=True)
class TieWeights(Method):
    """Let layers whose weights are equal read one stored tensor."""

    smallest: int = param(1024, low=1, high=2**31, doc="tensors of fewer numbers are left as they are")

    cites = ("press2017using",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        first: dict[tuple[object, ...], str] = {}
        changed, skipped = [], dict[str, str]()
        for name, nodes in reads(result).items():
            tensor = get_tensor(result.module, name)
            if tensor.numel() < self.smallest:
                continue
            mark = fingerprint(tensor)
            if any(map(is_statistic, nodes)):
                skipped |= {name: f"equals {first[mark]}, but training writes to it"} if mark in first else {}
                continue
            kept = first.setdefault(mark, name)
            if kept == name:
                continue
            for node in nodes:
                node.target = kept
            changed.append(name)
        return Outcome(result.tidy_(), changed, skipped)


def reads(network: Network) -> dict[str, list[Node]]:
    """The nodes that read each stored tensor, in the order of the graph."""
    found: dict[str, list[Node]] = {}
    for node in network.module.graph.nodes:
        if node.op == "get_attr":
            found.setdefault(str(node.target), []).append(node)
    return found


def is_statistic(node: Node) -> bool:
    """Whether a stored tensor is the running mean or variance of a batch norm."""
    norms = [user for user in node.users if user.target is torch.ops.aten.batch_norm.default]
    return any(node in norm.args[STATISTICS] for norm in norms)
