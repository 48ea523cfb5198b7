"""Every exact simplification, over and over, until none finds anything more to do.

Jia, Padon, Thomas, Warszawski, Zaharia, Aiken (2019). TASO: Optimizing Deep Learning Computation with Automatic
Generation of Graph Substitutions. doi:10.1145/3341301.3359630: equal graphs, each made from the last by a substitution:

    G, s_1(G), s_2(s_1(G)), ...  until  s(G) = G  for every s

Ours differs: every substitution here removes something and none is taken back, so that the order matters little and no
search is needed.
Helps: whatever comes next: there is less to prune, to quantise, to measure and to run.
Does not: change an answer by more than rounding; train as before, unless batch norm and dropout are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.simplify.batch_norms import fold_batch_norms_
from slimline.methods.simplify.cancel_reshapes import cancel_reshapes_
from slimline.methods.simplify.channel_affine import plan_before, plan_behind
from slimline.methods.simplify.eliminate_common import eliminate_common_
from slimline.methods.simplify.fold_constants import fold_constants_
from slimline.methods.simplify.fold_scalars import fold_scalars_
from slimline.methods.simplify.free_shapes import FreeShapes, free_shapes
from slimline.methods.simplify.merge_linear import merge_linear_
from slimline.methods.simplify.remove_no_ops import remove_no_ops_
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace

Report = tuple[list[str], dict[str, str]]


def simplify_round_(network: Network, shapes: FreeShapes, training: str) -> Report:
    """Every simplification once; what changed, after the name of the method that changes it. Edits the network."""
    steps: dict[str, Callable[[], Report]] = {
        "RemoveNoOps": lambda: remove_no_ops_(network, shapes, "keep" if training == "keep" else "remove"),
        "FoldConstants": lambda: fold_constants_(network),
        "EliminateCommon": lambda: eliminate_common_(network),
        "CancelReshapes": lambda: cancel_reshapes_(network, shapes),
        "FoldBatchNorm": lambda: fold_batch_norms_(network, shapes, plan_before),
        "FoldBatchNormBefore": lambda: fold_batch_norms_(network, shapes, plan_behind),
        "FoldScalars": lambda: fold_scalars_(network, shapes),
        "MergeLinear": lambda: merge_linear_(network, shapes),
    }
    changed: list[str] = []
    skipped: dict[str, str] = {}
    for name, step in steps.items():
        if training == "keep" and name in ("FoldBatchNorm", "FoldBatchNormBefore"):
            continue
        done, left = step()
        changed += [f"{name}: {what}" for what in done]
        for what, why in left.items():
            skipped[what] = f"{skipped[what]}; {why}" if what in skipped else why
    return changed, skipped


@register
@dataclass(frozen=True)
class Simplify(Method):
    """Apply every exact simplification until nothing changes."""

    rounds: int = param(16, low=1, high=1000, doc="at most so many times")
    training: str = param(
        "spoil", choices=("spoil", "keep"), doc="keep batch norm and dropout, for a network that will be trained"
    )

    needs = frozenset({"float weights"})
    cites = ("jia2019taso",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        shapes = free_shapes(result)  # what a node gives keeps its shape, whatever is done to the others
        changed: list[str] = []
        skipped: dict[str, str] = {}
        for _ in range(self.rounds):
            done, skipped = simplify_round_(result, shapes, self.training)
            changed += done
            if not done:
                break
        names = {node.name for node in result.module.graph.nodes}
        return Outcome(result, changed, {what: why for what, why in skipped.items() if what in names})
