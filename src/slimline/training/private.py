"""A task whose data only judge: what is trained on is made from the network.

Half of the samples come from `slimline.training.synthetic`; the other half are mixtures of two of them, which cost
nothing and fill the space between:

    x = l x_i + (1 - l) x_j,    l uniform in (0, 1)

Zhang, Cisse, Dauphin, Lopez-Paz (2018). mixup: Beyond Empirical Risk Minimization. arXiv:1710.09412, equation 1. Ours
differs: the label of a mixture is what the teacher says to it. Samples with inputs of whole numbers are not mixed.
`Task(augment="mix")` mixes what comes out once more.
"""

from dataclasses import replace

import torch
from torch import Tensor

from slimline.network.network import Network
from slimline.numerics.augment import mixed
from slimline.task import Samples, Task
from slimline.training.checkpoint import read_checkpoint, write_checkpoint
from slimline.training.engine import processes
from slimline.training.synthetic import synthesize
from slimline.training.views import nothing_between
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
    tensors = _made(network, seed, workspace or Workspace())
    if nothing_between(network) is None:
        tensors = with_mixtures(tensors, seed)
    return replace(task, train=Samples({name: x.numpy() for name, x in tensors.items()}), synthetic=True)


def _made(network: Network, seed: int, workspace: Workspace) -> dict[str, Tensor]:
    """Synthetic samples, which are kept in the workspace's folder: they take minutes."""
    facts = {"network": network.digest(), "seed": seed, "count": SYNTHETIC_SAMPLES}
    folder = None if workspace.folder is None else workspace.folder / "synthetic"
    stored = None if folder is None else read_checkpoint(folder)
    if stored is not None and stored[1] == facts:
        return stored[0]
    made = synthesize(network, SYNTHETIC_SAMPLES, seed, workspace.step, precision="auto")
    failed = write_checkpoint(folder, made, facts) if folder is not None and processes()[0] == 0 else ""
    if failed:
        workspace.note(
            f"The synthetic samples cannot be kept in {folder} ({failed}): if this stops, they are made anew."
        )
    return made


def with_mixtures(samples: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The samples, and behind them as many mixtures of two."""
    generator = torch.Generator().manual_seed(seed)
    count = len(next(iter(samples.values())))
    other, share = torch.randperm(count, generator=generator), torch.rand(count, generator=generator)
    return {name: torch.cat([x, mixed(x, x[other], share)]) for name, x in samples.items()}
