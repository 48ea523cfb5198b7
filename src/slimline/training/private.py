"""A task whose data only judge: what is trained on is made from the network.

Half of the samples come from `slimline.training.synthetic`; the other half are mixtures of two of them, which cost
nothing and fill the space between:

    x = l x_i + (1 - l) x_j,    l uniform in (0, 1)

Zhang, Cisse, Dauphin, Lopez-Paz (2018). mixup: Beyond Empirical Risk Minimization. arXiv:1710.09412, equation 1. Ours
differs: the label of a mixture is what the teacher says to it. Samples with inputs of whole numbers are not mixed.
"""

from dataclasses import replace

import torch
from torch import Tensor

from slimline.network.network import Network
from slimline.task import Samples, Task
from slimline.training.synthetic import synthesize
from slimline.training.workspace import Workspace

SYNTHETIC_SAMPLES = 512
"""Each takes as long as some fifty training steps on it."""


def with_training_samples(task: Task, network: Network, seed: int = 0, workspace: Workspace | None = None) -> Task:
    """The task with synthetic training samples where it asks for them; any other task as it is.

    Args:
        network: the original.

    Raises:
        SlimlineError: nothing can be made from this network.
    """
    if not task.wants_synthetic:
        return task
    made = synthesize(network, SYNTHETIC_SAMPLES, seed, (workspace or Workspace()).step)
    samples = Samples({name: x.numpy() for name, x in with_mixtures(made, seed).items()})
    return replace(task, train=samples, synthetic=True)


def with_mixtures(samples: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The samples, and behind them as many mixtures of two; those with whole numbers in them as they are."""
    if not all(x.is_floating_point() for x in samples.values()):
        return samples
    generator = torch.Generator().manual_seed(seed)
    count = len(next(iter(samples.values())))
    other, share = torch.randperm(count, generator=generator), torch.rand(count, generator=generator)
    return {
        name: torch.cat([x, torch.lerp(x, x[other], share.view(-1, *[1] * (x.ndim - 1)).to(x.dtype))])
        for name, x in samples.items()
    }
