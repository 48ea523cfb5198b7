"""Taylor importance: how much the loss would change, to first order, if a channel were zero.

Molchanov, Mallya, Tyree, Frosio, Kautz (2019). Importance Estimation for Neural Network Pruning. arXiv:1906.10771,
equation 8.

    importance(c) = sum over batches of ( sum over the weights w of channel c of  w * dL/dw ) ^ 2

Ours differs: the sum runs over all weights that put out the channel's group, biases and the scale and shift of norms
among them; those that read it would count the same change again. Labels are drawn from the network's own output
distribution when there are none, which makes it the Fisher information.
Helps: ranks coupled channels by their effect on the output.  Does not: hold far from the trained weights.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from slimline.methods.method import needs_data
from slimline.methods.prune.filters import channel_axes
from slimline.network.axes import Group
from slimline.network.network import Network, first_floating
from slimline.scores import FirstOutput
from slimline.task import Samples, Task

BATCH = 32
MOST_SAMPLES = 512


def taylor_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group, from up to 512 training samples."""
    samples = needs_data("Taylor importance", task, network)
    probe = network.copy().set_training_(False)
    for parameter in probe.module.parameters():
        parameter.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    total = {g.name: np.zeros(g.width) for g in groups}
    weights = probe.weights()
    written = channel_axes(probe)
    output = task.output if task is not None else None
    most = MOST_SAMPLES // 4 if output is not None and output.positions else MOST_SAMPLES  # a position is an answer
    for start in range(0, min(len(samples), most), BATCH):
        batch = samples.take(slice(start, start + BATCH))
        probe.module.zero_grad()
        _loss(probe, batch, generator, output).backward()  # type: ignore[no-untyped-call]
        products = {n: (w.detach() * w.grad) for n, w in weights.items() if w.requires_grad and w.grad is not None}
        for group in groups:
            total[group.name] += _first_order_change(group, products, written) ** 2
    return total


def _loss(network: Network, batch: Samples, generator: torch.Generator, first: FirstOutput | None = None) -> Tensor:
    inputs = batch.tensors()
    outputs = network.module(*(inputs[name] for name in network.input_names))
    output = first_floating(outputs, network.output_names)
    if first is not None and not first.integers and first.score in ("accuracy", "agreement"):
        output = output.movedim(first.axis, -1).flatten(0, -2)  # (answers, classes)
        output = output.clamp_min(torch.finfo(torch.float32).tiny).log() if first.probabilities else output
    elif output.ndim != 2 or first is not None:
        # not class scores: how far the output would move from a noisy copy of itself
        noise = torch.randn(output.shape, generator=generator)
        return F.mse_loss(output, output.detach() + noise * output.detach().std())
    classes = output.shape[1]
    usable = (
        batch.labels is not None
        and batch.labels.shape == (len(output),)
        and np.issubdtype(batch.labels.dtype, np.integer)
    )
    if usable and batch.labels is not None and batch.labels.min() >= 0 and batch.labels.max() < classes:
        return F.cross_entropy(output, torch.from_numpy(batch.labels.astype(np.int64)))
    drawn = torch.multinomial(output.detach().softmax(1), 1, generator=generator)[:, 0]
    return F.cross_entropy(output, drawn)


def _first_order_change(group: Group, products: dict[str, Tensor], written: dict[str, int]) -> NDArray[np.float64]:
    change = np.zeros(group.width)
    for (weight, axis), positions in group.slices.items():
        if weight not in products or written.get(weight) != axis:
            continue
        by_channel = products[weight].movedim(axis, 0)
        values = by_channel.reshape(len(by_channel), -1).sum(1).double().numpy()
        change += np.array([values[p].sum() for p in positions])
    return change
