"""A method applied to a small network in double precision, whose answers have to stay what they were."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from slimline.methods.method import Method, Outcome
from slimline.network.network import Network
from slimline.network.trace import trace


class Does(nn.Module):
    """What a function does with an input and the parts given."""

    def __init__(self, does: Callable[..., Tensor | tuple[Tensor, ...]], *parts: nn.Module) -> None:
        super().__init__()
        self.does, self.parts = does, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.does(x, *self.parts)


class Constant(nn.Module):
    """A tensor that the network stores, trainable or not."""

    def __init__(self, value: Tensor, trainable: bool = False) -> None:
        super().__init__()
        self.value = nn.Parameter(value) if trainable else nn.Buffer(value)

    def forward(self) -> Tensor:
        return self.value


def network_of(module: nn.Module, *shape: int) -> Network:
    """A network in double precision for an input (N, *shape), with batch norms that are not the identity."""
    torch.set_num_threads(1)  # a second thread costs networks of this size more than it brings
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            if part.running_mean is not None and part.running_var is not None:
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return trace(module.double().eval(), {"x": torch.randn(2, *shape, dtype=torch.float64)})


def applied(method: Method, network: Network) -> Outcome:
    """What a method makes of a network; checked for the same answers to one and to three random samples."""
    outcome = method.apply(network)
    outcome.network.verify()
    for batch in (1, 3):
        inputs = {name: torch.randn(batch, *x.shape[1:], dtype=x.dtype) for name, x in network.examples.items()}
        for ours, theirs in zip(outcome.network.run(inputs), network.run(inputs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    return outcome


def count(network: Network, *operators: str) -> int:
    """How many calls of operators with these names a network makes; of all operators when none is named."""
    calls = [n.target for n in network.module.graph.nodes if n.op == "call_function"]
    names = [str(t).split(".")[1] if isinstance(t, torch._ops.OpOverload) else t.__name__ for t in calls]
    return sum(not operators or name in operators for name in names)
