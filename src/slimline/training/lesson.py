"""One forward pass with its loss, as one module: whatever wraps it sees every weight that gets a gradient."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from slimline.network.network import Network
from slimline.training.batch import Batch
from slimline.training.layout import channels_last

Loss = Callable[[tuple[Tensor, ...], Batch], Tensor]
"""The floating-point outputs of the network, in float32, and the batch, to a scalar: the mean over the samples. A loss
that is a module with weights of its own, such as a projection, has them trained along."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def loss_identity(loss: Loss) -> str:
    """Says which loss this is: its name, and its ``identity`` where it has hyperparameters."""
    kind = loss if hasattr(loss, "__qualname__") else type(loss)
    return f"{kind.__module__}.{kind.__qualname__} {getattr(loss, 'identity', '')}"


def autocast(precision: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """A context in which convolutions and products run in ``precision``."""
    return torch.autocast(device, TYPES[precision], enabled=precision != "fp32")


class Lesson(nn.Module):
    """Batch in, loss out."""

    def __init__(self, network: Network, loss: Loss, precision: str, device: torch.device, compiled: bool) -> None:
        super().__init__()
        self.network, self.loss = network, loss  # a loss that is a module becomes a part of this one
        self.student = network.module
        self.precision, self.device = precision, device
        self.call: Callable[..., Any] = torch.compile(network.module) if compiled else network.module

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch, in float32."""
        with autocast(self.precision, self.device.type):
            outputs = self.call(*(channels_last(batch.inputs[name]) for name in self.network.input_names))
        # What holds whole numbers has no gradient.
        floating = tuple(output.float() for output in outputs if output.is_floating_point())
        return self.loss(floating, batch)
