"""Batch-norm folding: an inference-time batch norm after a convolution or linear layer is part of its weights.

Jacob et al. (2018), arXiv:1712.05877, equation 14; with g = gamma / sqrt(variance + eps):

    W' = g W          b' = g (b - mean) + beta

Helps: always, it is exact and saves a pass over memory.  Does not: change what a runtime that folds by itself runs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.method import Method, Outcome, register
from slimline.network.network import Network, get_tensor
from slimline.network.surgery import set_bias_, set_weight
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
FOLDS_INTO = (
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.linear.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
)  # fmt: skip


def folded(
    weight: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """W' and b' of the equation above; weight (out, ...), the others (out,)."""
    g = gamma.double() / torch.sqrt(variance.double() + eps)
    start = torch.zeros_like(mean) if bias is None else bias
    new_weight = weight.double() * g.view(-1, *[1] * (weight.ndim - 1))
    new_bias = g * (start.double() - mean.double()) + beta.double()
    return new_weight.to(weight.dtype), new_bias.to(weight.dtype)


@register
@dataclass(frozen=True)
class FoldBatchNorm(Method):
    """Fold every batch norm that follows a convolution or linear layer read by nothing else."""

    needs = frozenset({"float weights"})
    cites = ("jacob2018quantization",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        changed, skipped = [], {}
        for node in list(result.module.graph.nodes):
            if node.target is not aten.batch_norm.default:
                continue
            reasons = unsupported(node)
            if reasons:
                skipped[node.name] = "; ".join(reasons)
            else:
                changed.append(_fold_(result, node))
        result.module.graph.eliminate_dead_code()
        return Outcome(result.tidy_(), changed, skipped)


def unsupported(node: Node) -> list[str]:
    """Why a batch norm cannot be folded; [] means it can."""
    before = node.args[0]
    if not isinstance(before, Node) or before.target not in FOLDS_INTO:
        return ["does not follow a convolution or linear layer"]
    if len(before.users) > 1:
        return [f"{before.name} is read by other operators too"]
    weight = before.args[1]
    if not isinstance(weight, Node) or weight.op != "get_attr" or len(weight.users) > 1:
        return [f"the weight of {before.name} is shared or computed"]
    if node.args[3] is None or node.args[5]:
        return ["uses the statistics of the batch"]
    return []


def _fold_(network: Network, node: Node) -> str:
    layer = node.args[0]
    assert isinstance(layer, Node)

    def read(value: object) -> Tensor | None:
        return get_tensor(network.module, str(value.target)).detach() if isinstance(value, Node) else None

    weight, bias = read(layer.args[1]), read(layer.args[2]) if len(layer.args) > 2 else None
    mean, variance = read(node.args[3]), read(node.args[4])
    assert weight is not None and mean is not None and variance is not None
    gamma, beta = read(node.args[1]), read(node.args[2])
    gamma = torch.ones_like(mean) if gamma is None else gamma
    beta = torch.zeros_like(mean) if beta is None else beta
    new_weight, new_bias = folded(weight, bias, gamma, beta, mean, variance, float(node.args[7]))  # type: ignore[arg-type]
    name = str(layer.args[1].target)  # type: ignore[union-attr]
    set_weight(network, name, new_weight)
    set_bias_(network, layer, new_bias)
    node.replace_all_uses_with(layer)
    network.module.graph.erase_node(node)
    return name.rpartition(".")[0]
