"""slimline: make a trained network small and fast, and prove that it still does its job.

    import slimline as sl
    result = sl.optimize(model, sl.Task(validate=loader), sl.Budget(max_drop=0.01), time="10m", out="runs/x")
    print(result.verdict, result.speedup, result.path)

Names are loaded when they are first used, so that `import slimline` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimline.errors import SlimlineError as SlimlineError
    from slimline.methods.distill.depth_student import DepthStudent as DepthStudent
    from slimline.methods.distill.distill import Distill as Distill
    from slimline.methods.distill.own_student import OwnStudent as OwnStudent
    from slimline.methods.distill.separable_student import SeparableStudent as SeparableStudent
    from slimline.methods.distill.width_student import WidthStudent as WidthStudent
    from slimline.methods.prune.channels import PruneChannels as PruneChannels
    from slimline.methods.quantize.static import QuantizeStatic as QuantizeStatic
    from slimline.methods.recipe import Recipe as Recipe
    from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm as FoldBatchNorm
    from slimline.network.network import Network as Network
    from slimline.report.run_folder import optimize as optimize
    from slimline.search.budget import Budget as Budget
    from slimline.sources.source import load as load
    from slimline.task import Task as Task

__version__ = "0.1.0"
HOMES = {
    "SlimlineError": "slimline.errors",
    "DepthStudent": "slimline.methods.distill.depth_student",
    "Distill": "slimline.methods.distill.distill",
    "OwnStudent": "slimline.methods.distill.own_student",
    "SeparableStudent": "slimline.methods.distill.separable_student",
    "WidthStudent": "slimline.methods.distill.width_student",
    "PruneChannels": "slimline.methods.prune.channels",
    "QuantizeStatic": "slimline.methods.quantize.static",
    "Recipe": "slimline.methods.recipe",
    "FoldBatchNorm": "slimline.methods.simplify.fold_batch_norm",
    "Network": "slimline.network.network",
    "optimize": "slimline.report.run_folder",
    "Budget": "slimline.search.budget",
    "load": "slimline.sources.source",
    "Task": "slimline.task",
}
__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'slimline' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
