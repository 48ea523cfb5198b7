"""Zeros that were made on purpose stay zero while a network trains."""

from dataclasses import dataclass

import torch
from torch import Tensor

from slimline.network.network import Network
from slimline.training.codebooks import weights_of_entries
from slimline.training.hook import Hook

LEAST_SHARE = 0.1
"""Of zeros, from which on they are no accident."""


def zeros_to_keep(network: Network) -> dict[str, Tensor]:
    """Masks of the zeros of the trainable weights of two or more axes of which at least a tenth is exactly zero.

    An entry of a codebook counts as all the weights that it stands for.

    A weight that is nothing but zeros has none: it was set up so, as the last layer of a new branch often is, and would
    never learn anything.
    """
    masks, entries = {}, weights_of_entries(network)
    for name, weight in network.weights().items():
        if isinstance(weight, torch.nn.Parameter) and weight.ndim > 1 and weight.is_floating_point():
            mask = weight.detach() == 0
            each = entries.get(name, torch.ones(()).expand(mask.shape))
            if LEAST_SHARE * float(each.sum()) <= float(each[mask].sum()) and not mask.all():
                masks[name] = mask
    return masks


@dataclass
class KeepZeros(Hook):
    """The weights in the masks are zero at the beginning and after every step.

    A network of which weights became zero is trained as one with as many weights fewer.
    """

    masks: dict[str, Tensor]

    @property
    def identity(self) -> str:
        """Only the names: the zeros themselves are part of the network that a stored training is known by."""
        return f"{type(self).__qualname__} {sorted(self.masks)}"

    def after_step(self, network: Network, step: int) -> None:
        zero_(network, self.masks)

    def end(self, network: Network) -> Network:
        zero_(network, self.masks)
        return network

    def told(self) -> str:
        """What an outcome says of it."""
        zeros = sum(int(mask.sum()) for mask in self.masks.values())
        return f"{zeros:,} weights that are zero stay zero, of {', '.join(self.masks)}"


@torch.no_grad()
def zero_(network: Network, masks: dict[str, Tensor]) -> None:
    """Make weights zero; edits the network.

    Args:
        masks: by the name of the weight, true for those that become zero; they move to where the weights are.
    """
    weights = network.weights()
    for name, mask in masks.items():
        masks[name] = mask.to(weights[name].device)
        weights[name].masked_fill_(masks[name], 0.0)
