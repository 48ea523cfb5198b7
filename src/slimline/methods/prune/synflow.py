"""SynFlow: how much of what flows through a network flows through a channel, without any data.

Tanaka, Kunin, Yamins, Ganguli (2020). Pruning neural networks without any data by iteratively conserving synaptic flow.
arXiv:2006.05467, equation 2.

    R = sum of the outputs of the network with |w| in the place of every w, for an input of ones
    score(w) = w dR/dw        importance(c) = sum of the scores of the weights that put out channel c

All that flows into a channel flows out of it: the scores of its incoming weights add up to those of its outgoing ones
(their section 4), so that it does not matter on which side they are counted.

Ours differs: that law holds for sums, products with weights and ReLU only, so everything else is made linear. Batch
norm multiplies with |gamma| / std, other norms with |gamma|; activations and the softmax of an output pass on what they
are given; attention takes the mean of its values, and how well queries and keys agree is an output of its own, since
nothing else would flow through them; biases are zero. One round instead of a hundred. Double precision: R grows with
every layer.
Helps: no data needed; sees the whole network, not one layer at a time.
Does not: see correlations, nor signs. A group that feeds no output is an error.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.fx.node import Argument, Target

from slimline.errors import SlimlineError
from slimline.methods.prune.filters import filters
from slimline.network.axes import Group
from slimline.network.network import Network
from slimline.network.operators import WEIGHTED
from slimline.network.taps import ACTIVATIONS, FUSED_ATTENTION, PRODUCTS, SOFTMAX
from slimline.network.trace import put_tensor
from slimline.task import Task

aten = torch.ops.aten
EPS = 2
"""Place of the number that is added to the variance, among the last arguments of a batch norm."""


def synflow_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group; needs no data.

    Raises:
        SlimlineError: the flow is no finite number, or a group gets none of it.
    """
    scores = synflow_scores(network)
    found = {}
    for group in groups:
        held = filters(network, group, scores)
        found[group.name] = np.sum([each.sum(1).numpy() for each in held], 0) if held else np.zeros(group.width)
        if not found[group.name].any():
            raise SlimlineError(
                f"Nothing of SynFlow's flow passes group {group.name}: choose another importance, or keep its width."
            )
    return found


def synflow_scores(network: Network) -> dict[str, Tensor]:
    """The score w dR/dw of every stored tensor that R depends on, float64.

    Raises:
        SlimlineError: the flow is too large even for double precision, or cannot be computed in it.
    """
    probe = network.copy().set_training_(False)
    for name, tensor in probe.weights().items():
        if tensor.is_floating_point():
            put_tensor(probe.module, name, torch.nn.Parameter(tensor.detach().double().abs()))
    weights = {name: w for name, w in probe.weights().items() if w.requires_grad}
    walk = _Flow(probe)
    try:
        outputs = walk.run(*(_ones(example) for example in probe.examples.values()))
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SlimlineError(f"SynFlow cannot run this network ({reason}): choose another importance.") from error
    flows = [output.sum() for output in (*outputs, *walk.agreements) if output.requires_grad]
    if not flows:
        raise SlimlineError("SynFlow needs an output that holds floating-point numbers: choose another importance.")
    slopes = torch.autograd.grad(torch.stack(flows).sum(), list(weights.values()), allow_unused=True)
    scores = {n: (w * g).detach() for (n, w), g in zip(weights.items(), slopes, strict=True) if g is not None}
    if not all(bool(torch.isfinite(score).all()) for score in scores.values()):
        raise SlimlineError(
            "SynFlow grows beyond what double precision holds in a network of so many layers: choose another "
            "importance."
        )
    return scores


def _ones(example: Tensor) -> Tensor:
    """One sample; what counts or names something stays as it is in the example."""
    return torch.ones_like(example[:1], dtype=torch.float64) if example.is_floating_point() else example[:1]


class _Flow(Interpreter):
    """Runs a graph with its operators made linear."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.module)
        self.attending = {node.name for node in network.module.graph.nodes if _attends(node)}
        self.agreements: list[Tensor] = []

    def run_node(self, n: Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.name in self.attending:
            self.agreements.append(args[0])
            dim = int(args[1] if len(args) > 1 else kwargs["dim"])
            return torch.full_like(args[0], 1 / args[0].shape[dim])
        if n.target is FUSED_ATTENTION:
            query, key, value = args[:3]
            key, value = (_for_every_head(x, query) for x in (key, value))
            scale = kwargs.get("scale") or query.shape[-1] ** -0.5
            self.agreements.append(scale * query.sum(-2) * key.sum(-2))
            return value.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])
        return super().run_node(n)

    def call_function(self, target: Target, args: tuple[Argument, ...], kwargs: dict[str, Any]) -> Any:
        linear = LINEAR.get(target)
        args, kwargs = tuple(map(_double, args)), {name: _double(value) for name, value in kwargs.items()}
        return super().call_function(target, args, kwargs) if linear is None else linear(*args, **kwargs)


def _double(value: Argument) -> Argument:
    """Whatever asks for another floating-point format asks for double precision."""
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def _attends(node: Node) -> bool:
    """Whether a softmax weighs what is summed over later, in place of being an answer."""
    reached, waiting = set[Node](), [node] if node.target in SOFTMAX else []
    while waiting:
        found = set(waiting.pop().users) - reached
        reached |= found
        waiting += found
    return any(reader.target in PRODUCTS for reader in reached)


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _without_bias(layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, weight, bias=None, *rest, **more: layer(x, weight, None, *rest, **more)


def _batch_norm(x: Tensor, gamma: Tensor | None, _: Any, __: Any, variance: Tensor | None, *rest: Any) -> Tensor:
    scale = x.new_ones(x.shape[1]) if gamma is None else gamma
    scale = scale if variance is None else scale / torch.sqrt(variance + rest[EPS])
    return _by_channel(x, scale)


def _by_channel(x: Tensor, scale: Tensor | None, *_: Any) -> Tensor:
    return x if scale is None else x * scale.view(-1, *[1] * (x.ndim - 2))


def _norm(x: Tensor, _: Any, gamma: Tensor | None = None, *__: Any) -> Tensor:
    return x if gamma is None else x * gamma


def _for_every_head(x: Tensor, query: Tensor) -> Tensor:
    """Fewer heads of keys and values serve several queries each."""
    return x.repeat_interleave(query.shape[1] // x.shape[1], 1) if x.ndim == 4 else x


def _sum(x: Tensor, y: Tensor | float, *_: Any, **__: Any) -> Tensor:
    return x + (y.abs() if isinstance(y, Tensor) else abs(y))


def _quotient(x: Tensor, y: Tensor | float, *_: Any, **__: Any) -> Tensor:
    """A number that is stored divides; one that was computed, such as a length, would take out the flow."""
    if isinstance(y, Tensor):
        return x if y.grad_fn is not None else x / y.abs()
    return x / abs(y)


PASSED_ON = (
    *ACTIVATIONS, *SOFTMAX, aten.sigmoid.default, aten.hardsigmoid.default, aten.log_softmax.int,
    aten._log_softmax.default, aten.dropout.default, aten.neg.default,
)  # fmt: skip
LINEAR: Mapping[Any, Callable[..., Tensor]] = {
    **{layer: _without_bias(layer) for layer in WEIGHTED},
    **dict.fromkeys(PASSED_ON, _same),
    **dict.fromkeys((aten.layer_norm.default, aten.rms_norm.default), _norm),
    aten.group_norm.default: lambda x, groups, gamma=None, *_: _by_channel(x, gamma),
    aten.instance_norm.default: _by_channel,
    aten.batch_norm.default: _batch_norm,
    aten.sub.Tensor: _sum,
    aten.div.Tensor: _quotient,
}
"""What stands in the place of an operator; those that are not here are linear, or taken for it."""
