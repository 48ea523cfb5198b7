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
    from slimline.methods.adjust.logits import AdjustLogits as AdjustLogits
    from slimline.methods.distill.depth_student import DepthStudent as DepthStudent
    from slimline.methods.distill.distill import Distill as Distill
    from slimline.methods.distill.own_student import OwnStudent as OwnStudent
    from slimline.methods.distill.separable_student import SeparableStudent as SeparableStudent
    from slimline.methods.distill.width_student import WidthStudent as WidthStudent
    from slimline.methods.factorize.cp import FactorizeCP as FactorizeCP
    from slimline.methods.factorize.embedding import FactorizeEmbedding as FactorizeEmbedding
    from slimline.methods.factorize.separable import FactorizeSeparable as FactorizeSeparable
    from slimline.methods.factorize.spatial import FactorizeSpatial as FactorizeSpatial
    from slimline.methods.factorize.svd import FactorizeSVD as FactorizeSVD
    from slimline.methods.factorize.tucker import FactorizeTucker as FactorizeTucker
    from slimline.methods.factorize.whitened import FactorizeWhitened as FactorizeWhitened
    from slimline.methods.prune.blocks import PruneBlocks as PruneBlocks
    from slimline.methods.prune.channels import PruneChannels as PruneChannels
    from slimline.methods.prune.selective import TrainSelectively as TrainSelectively
    from slimline.methods.prune.vocabulary import PruneVocabulary as PruneVocabulary
    from slimline.methods.quantize.static import QuantizeStatic as QuantizeStatic
    from slimline.methods.recipe import Recipe as Recipe
    from slimline.methods.share.codebook import ShareWeights as ShareWeights
    from slimline.methods.share.tie import TieWeights as TieWeights
    from slimline.methods.simplify.cancel_reshapes import CancelReshapes as CancelReshapes
    from slimline.methods.simplify.eliminate_common import EliminateCommon as EliminateCommon
    from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm as FoldBatchNorm
    from slimline.methods.simplify.fold_batch_norm_before import FoldBatchNormBefore as FoldBatchNormBefore
    from slimline.methods.simplify.fold_constants import FoldConstants as FoldConstants
    from slimline.methods.simplify.fold_scalars import FoldScalars as FoldScalars
    from slimline.methods.simplify.merge_linear import MergeLinear as MergeLinear
    from slimline.methods.simplify.remove_no_ops import RemoveNoOps as RemoveNoOps
    from slimline.methods.simplify.simplify import Simplify as Simplify
    from slimline.methods.sparsify.gradual import SparsifyGradually as SparsifyGradually
    from slimline.methods.sparsify.magnitude import SparsifyMagnitude as SparsifyMagnitude
    from slimline.methods.sparsify.random_mask import SparsifyRandom as SparsifyRandom
    from slimline.methods.sparsify.sparse_gpt import SparseGPT as SparseGPT
    from slimline.methods.sparsify.wanda import Wanda as Wanda
    from slimline.network.network import Network as Network
    from slimline.report.run_folder import optimize as optimize
    from slimline.search.budget import Budget as Budget
    from slimline.sources.source import load as load
    from slimline.task import Task as Task

__version__ = "0.1.0"
HOMES = {
    "SlimlineError": "slimline.errors",
    "AdjustLogits": "slimline.methods.adjust.logits",
    "DepthStudent": "slimline.methods.distill.depth_student",
    "Distill": "slimline.methods.distill.distill",
    "OwnStudent": "slimline.methods.distill.own_student",
    "SeparableStudent": "slimline.methods.distill.separable_student",
    "WidthStudent": "slimline.methods.distill.width_student",
    "FactorizeCP": "slimline.methods.factorize.cp",
    "FactorizeEmbedding": "slimline.methods.factorize.embedding",
    "FactorizeSeparable": "slimline.methods.factorize.separable",
    "FactorizeSpatial": "slimline.methods.factorize.spatial",
    "FactorizeSVD": "slimline.methods.factorize.svd",
    "FactorizeTucker": "slimline.methods.factorize.tucker",
    "FactorizeWhitened": "slimline.methods.factorize.whitened",
    "PruneBlocks": "slimline.methods.prune.blocks",
    "PruneChannels": "slimline.methods.prune.channels",
    "PruneVocabulary": "slimline.methods.prune.vocabulary",
    "TrainSelectively": "slimline.methods.prune.selective",
    "QuantizeStatic": "slimline.methods.quantize.static",
    "Recipe": "slimline.methods.recipe",
    "ShareWeights": "slimline.methods.share.codebook",
    "TieWeights": "slimline.methods.share.tie",
    "CancelReshapes": "slimline.methods.simplify.cancel_reshapes",
    "EliminateCommon": "slimline.methods.simplify.eliminate_common",
    "FoldBatchNorm": "slimline.methods.simplify.fold_batch_norm",
    "FoldBatchNormBefore": "slimline.methods.simplify.fold_batch_norm_before",
    "FoldConstants": "slimline.methods.simplify.fold_constants",
    "FoldScalars": "slimline.methods.simplify.fold_scalars",
    "MergeLinear": "slimline.methods.simplify.merge_linear",
    "RemoveNoOps": "slimline.methods.simplify.remove_no_ops",
    "Simplify": "slimline.methods.simplify.simplify",
    "SparsifyGradually": "slimline.methods.sparsify.gradual",
    "SparsifyMagnitude": "slimline.methods.sparsify.magnitude",
    "SparsifyRandom": "slimline.methods.sparsify.random_mask",
    "SparseGPT": "slimline.methods.sparsify.sparse_gpt",
    "Wanda": "slimline.methods.sparsify.wanda",
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
