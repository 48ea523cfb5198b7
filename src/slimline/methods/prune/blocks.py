"""Depth pruning: the residual blocks that change their input least are taken out.

Men et al. (2024). ShortGPT: Layers in Large Language Models are More Redundant Than You Expect. arXiv:2403.03853,
section 2.2, equation 1. That residual networks survive it: Veit, Wilber, Belongie (2016), arXiv:1605.06431.

    BI(block) = 1 - E[ x . (x + f(x)) / (|x| |x + f(x)|) ]          the blocks with the least BI go

Ours differs: blocks are found in the graph, so convolutional ones, attention and feed-forward halves are one case; x is
all of a sample's values, since the channels of a feature map and the words of a sentence are changed together.
Helps: latency at batch 1, where many small layers cost more than their arithmetic.  Does not: keep the score without
recovery; a `Distill` has to follow.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, needs_data, param, register
from slimline.methods.readers import batches
from slimline.network.network import Network
from slimline.network.residual import Block, residual_blocks, take_out_
from slimline.network.shapes import recorded
from slimline.task import Samples, Task
from slimline.training.workspace import Workspace


def block_influence(x: Tensor, y: Tensor) -> Tensor:
    """BI of the equation above for every sample: x and y are (samples, ...)."""
    return 1 - torch.cosine_similarity(x.flatten(1), y.flatten(1), dim=1)


@register
@dataclass(frozen=True)
class PruneBlocks(Method):
    """Take out whole residual blocks."""

    keep: float = param(0.5, low=0.0, high=1.0, doc="share of the residual blocks with an identity shortcut that stay")
    samples: int = param(256, low=1, high=100000, doc="samples on which the blocks are compared")

    needs = frozenset({"data", "float weights"})
    cites = ("men2024shortgpt", "veit2016residual")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        samples = needs_data("Depth pruning", task, network).take(slice(0, self.samples))
        result = network.copy()
        blocks, skipped = residual_blocks(result)
        if not blocks:
            raise SlimlineError(
                "PruneBlocks found no residual block with an identity shortcut: prune channels instead (PruneChannels)."
            )
        influence = influences(network, blocks, samples)
        order = sorted(blocks, key=lambda block: influence[block.sum.name])
        gone = order[: len(blocks) - round(self.keep * len(blocks))]
        if not gone and self.keep < 1:
            raise SlimlineError(
                f"PruneBlocks(keep={self.keep:g}) takes none of the {len(blocks)} residual blocks out: keep less."
            )
        for block in order[len(gone) :]:
            skipped[block.name] = f"has an influence of {influence[block.sum.name]:.3g} and stays"
        names = [block.name for block in gone]  # while the graph still holds their layers
        take_out_(result, [block for block in blocks if block in gone])
        return Outcome(result.verify(), names, skipped)


def influences(network: Network, blocks: list[Block], samples: Samples) -> dict[str, float]:
    """Mean BI of every block, by the name of its sum."""
    network = network.copy().set_training_(False)
    pairs = {block.sum.name: block.kept.name for block in blocks}
    wanted = {*pairs, *pairs.values()}
    totals = dict.fromkeys(pairs, 0.0)
    for inputs in batches(network, samples):
        values = recorded(network, inputs, lambda node, value: value if node.name in wanted else None)
        for name, shortcut in pairs.items():
            totals[name] += float(block_influence(values[shortcut], values[name]).sum())
    return {name: total / len(samples) for name, total in totals.items()}
