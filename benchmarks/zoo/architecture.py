"""An architecture of the zoo: a name, a module with random weights that are alive everywhere, and inputs for it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Inputs = Callable[[int], dict[str, Tensor]]
"""Inputs for a batch, by name; the same for the same batch."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BATCH_NORMS, nn.GroupNorm, nn.LayerNorm)
CALIBRATION = 8  # samples
SPREAD = 0.1
"""Standard deviation of what is added to parameters that start at 0, at 1 or close to them."""


@dataclass(frozen=True)
class Architecture:
    """A recipe for a module: building it twice gives the same numbers."""

    name: str
    family: str
    build: Callable[[], nn.Module]
    """A seeded module in eval mode that returns a tensor or a dict of tensors."""
    inputs: Inputs


def seeded(name: str, family: str, make: Callable[[], nn.Module], inputs: Inputs) -> Architecture:
    """An architecture that is built with live random weights."""
    return Architecture(name, family, lambda: built(make, inputs), inputs)


def built(make: Callable[[], nn.Module], inputs: Inputs, seed: int = 0) -> nn.Module:
    """What ``make`` gives, in eval mode, without weights that do nothing; the global generator is left as it was.

    A network that was only initialised hides mistakes: a norm that multiplies by 1, a bias of 0 and a layer scale of
    1e-6 may be lost, or go to the wrong channel, and nobody sees it. Here no two channels do the same, and activations
    keep their size from layer to layer.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = make().eval()
        randomise_(module)
        estimate_(module, inputs(CALIBRATION))
    return module


@torch.no_grad()
def randomise_(module: nn.Module) -> None:
    """Draw kernels and matrices anew (He et al. 2015) and move every other parameter.

    Frozen parameters stay: they are constants of the architecture, such as sines of positions.
    """
    seen: set[int] = set()
    for part in module.modules():
        own = [p for p in part.parameters(recurse=False) if p.requires_grad and id(p) not in seen]  # tied: once
        seen |= {id(p) for p in own}
        for parameter in own:
            fan_in = _fan_in(part, parameter)
            if fan_in is None:
                if isinstance(part, NORMS):  # some libraries start the last norm of a branch at 0
                    parameter.fill_(parameter is part.weight)
                parameter.add_(SPREAD * torch.randn_like(parameter))
            else:
                parameter.normal_(0, math.sqrt(_gain(part) / fan_in))


@torch.no_grad()
def estimate_(module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Give batch norms the statistics of a batch, moved a little; without them a deep network answers a constant."""
    norms = [part for part in module.modules() if isinstance(part, BATCH_NORMS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        module(**inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        mean += SPREAD * variance.sqrt() * torch.randn_like(mean)
        variance *= torch.empty_like(variance).uniform_(0.7, 1.4)


def _fan_in(part: nn.Module, parameter: Tensor) -> int | None:
    """How many numbers one output is the sum of, where that is known."""
    if isinstance(part, (nn.Linear, *CONVOLUTIONS)) and parameter is part.weight:
        return parameter.numel() // len(parameter)
    if isinstance(part, TRANSPOSED) and parameter is part.weight:
        return max(1, parameter.numel() // parameter.shape[1] // math.prod(part.stride))
    return None


def _gain(part: nn.Module) -> float:
    """He's 2 makes up for the half that a relu cuts off; linear layers mostly have none behind them."""
    return 1.0 if isinstance(part, nn.Linear) else 2.0


def images(channels: int, height: int, width: int | None = None, name: str = "image") -> Inputs:
    """Normally distributed images."""
    return floats(**{name: (channels, height, width or height)})


def floats(**shapes: tuple[int, ...]) -> Inputs:
    """Normally distributed tensors by name, of these shapes without the batch."""

    def make(batch: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(batch)
        return {name: torch.randn(batch, *shape, generator=generator) for name, shape in shapes.items()}

    return make


def tokens(below: int, shape: tuple[int, ...], name: str = "tokens") -> Inputs:
    """Evenly distributed whole numbers."""
    return integers({name: (below, shape)})


def integers(sizes: Mapping[str, tuple[int, tuple[int, ...]]]) -> Inputs:
    """Evenly distributed whole numbers by name, below a limit, of a shape without the batch."""

    def make(batch: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(batch)
        return {
            name: torch.randint(below, (batch, *shape), generator=generator) for name, (below, shape) in sizes.items()
        }

    return make


def together(*parts: Inputs) -> Inputs:
    """The inputs of several kinds of one network."""
    return lambda batch: {name: value for part in parts for name, value in part(batch).items()}
