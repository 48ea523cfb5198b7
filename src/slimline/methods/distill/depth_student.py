"""A shallower student: residual blocks are taken out, evenly over the depth; the others keep their weights.

Fan, Grave, Joulin (2020). Reducing Transformer Depth on Demand with Structured Dropout. arXiv:1909.11556, section 3.
Sajjad et al. (2023), On the Effect of Dropping Layers of Pre-trained Transformer Models, arXiv:2004.03844, section 3.
That residual networks survive it: Huang et al. (2016), Deep Networks with Stochastic Depth, arXiv:1603.09382.

    x + f(x)  ->  x        for all but about keep of the blocks f

Ours differs: blocks are found in the graph, so convolutional ones and the two halves of a transformer layer are one
case. Blocks with attention and those without are thinned apart, since every second half of a transformer layer would be
all of its attention; where both alternate, whole layers go. Nothing was trained to lose blocks: a `Distill` has to
follow. A norm behind the sum (post-norm transformers) stays. A network without such a block is an error, since a
student as large as its teacher is not what was asked for.
Helps: where many blocks of one shape follow each other, on every runtime.  Does not: reach blocks that change the
shape, whose shortcut computes something.
"""

import math
from dataclasses import dataclass

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, param, register
from slimline.network.network import Network
from slimline.network.residual import Block, residual_blocks, take_out_
from slimline.task import Task
from slimline.training.workspace import Workspace

REASONS_TOLD = 3


@register
@dataclass(frozen=True)
class DepthStudent(Method):
    """Take residual blocks out; put a `Distill` behind it."""

    keep: float = param(0.5, low=0.0, high=1.0, doc="share of the residual blocks with an identity shortcut that stay")

    needs = frozenset({"float weights"})
    cites = ("fan2020reducing", "sajjad2023effect", "huang2016deep")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        blocks, skipped = residual_blocks(result)
        if not blocks:
            reasons = "; ".join(f"{name} {why}" for name, why in [*skipped.items()][:REASONS_TOLD])
            raise SlimlineError(
                "DepthStudent found no residual block that can be taken out "
                f"({reasons or 'the network has no sums'}): use WidthStudent or SeparableStudent."
            )
        staying = self.staying(blocks)
        gone = [block for block in blocks if block not in staying]
        if not gone and self.keep < 1:
            raise SlimlineError(
                f"DepthStudent(keep={self.keep:g}) takes none of the {len(blocks)} residual blocks out: keep less."
            )
        for block in staying:
            skipped[block.name] = f"is one of the {len(staying)} of {len(blocks)} blocks that stay"
        names = [block.name for block in gone]  # while the graph still holds their layers
        take_out_(result, gone)
        return Outcome(result.verify(), names, skipped)

    def staying(self, blocks: list[Block]) -> list[Block]:
        """The blocks that are not taken out, in their order."""
        chosen: list[Block] = []
        for attends in (True, False):
            alike = [block for block in blocks if block.attends == attends]
            chosen += [alike[i] for i in spread_evenly(len(alike), self.keep)]
        return [block for block in blocks if block in chosen]


def spread_evenly(count: int, keep: float) -> list[int]:
    """About ``keep * count`` of the indices below ``count``, each in the middle of its share; a half is dropped."""
    stay = max(0, math.ceil(round(count * keep - 0.5, 9)))
    return [int((i + 0.5) * count / stay) for i in range(stay)]
