"""A task whose data only judge: what is trained on is made from the network."""

from dataclasses import replace

import numpy as np

from slimline.network.network import Network
from slimline.task import Samples, Task
from slimline.training.synthetic import synthesize
from slimline.training.workspace import Workspace

SYNTHETIC_SAMPLES = 4096


def with_training_samples(task: Task, network: Network, seed: int = 0, workspace: Workspace | None = None) -> Task:
    """The task with synthetic training samples where it asks for them; any other task as it is.

    Args:
        network: the original.

    Raises:
        SlimlineError: nothing can be made from this network.
    """
    if not task.wants_synthetic:
        return task
    tensors = synthesize(network, SYNTHETIC_SAMPLES, seed, (workspace or Workspace()).step)
    return replace(task, train=Samples({name: np.asarray(x) for name, x in tensors.items()}), synthetic=True)
