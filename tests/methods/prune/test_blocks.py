"""Blocks that do least go first, by a module that is looked at with hooks."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.prune.blocks import PruneBlocks, block_influence, influences
from slimline.network.residual import residual_blocks
from slimline.network.trace import trace
from slimline.task import Task
from tests.network.networks import network_of
from tests.network.residual_networks import Encoder, Stack


def stack() -> Stack:
    """Five blocks whose branches are scaled by hand: 3 and 0 do least."""
    torch.manual_seed(0)
    module = Stack(5).eval()
    for block, scale in zip(module.blocks, (0.1, 1.0, 2.0, 0.01, 0.5), strict=True):
        block[3].weight.data *= scale  # type: ignore[index, union-attr, operator]
        block[3].bias.data *= scale  # type: ignore[index, union-attr, operator]
    return module


IMAGES = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)


def by_hand(module: Stack, x: Tensor) -> list[float]:
    """1 - cosine between what enters a sum and what leaves it, sample by sample in numpy."""
    found, y = [], F.relu(module.stem(x))
    for block in module.blocks:
        after = y + block(y)
        pairs = zip(y.detach().double().numpy(), after.detach().double().numpy(), strict=True)
        found.append(np.mean([1 - (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()) for a, b in pairs]))
        y = F.relu(after)
    return [float(f) for f in found]


def test_influence_is_that_of_the_module() -> None:
    module = stack()
    network = trace(module, {"x": torch.from_numpy(IMAGES[:2])})
    blocks, _ = residual_blocks(network)
    samples = Task(validate={"x": IMAGES}, score="relative").read(("x",)).validate
    found = influences(network, blocks, samples)
    np.testing.assert_allclose(list(found.values()), by_hand(module, torch.from_numpy(IMAGES)), rtol=1e-3, atol=1e-6)


def test_the_least_influential_blocks_go() -> None:
    module = stack()
    network = trace(module, {"x": torch.from_numpy(IMAGES[:2])})
    order = np.argsort(by_hand(module, torch.from_numpy(IMAGES)))
    outcome = PruneBlocks(keep=0.6).apply(network, Task(validate={"x": IMAGES}, score="relative"))
    assert set(outcome.changed) == {f"blocks.{i}" for i in order[:2]} == {"blocks.0", "blocks.3"}
    kept = [i for i in range(5) if i not in order[:2]]
    assert all("has an influence of" in outcome.skipped[f"blocks.{i}"] for i in kept)
    x, y = torch.from_numpy(IMAGES), F.relu(module.stem(torch.from_numpy(IMAGES)))
    for i in range(5):
        y = F.relu(y + module.blocks[i](y)) if i in kept else F.relu(y)
    torch.testing.assert_close(outcome.network.run({"x": x})[0], module.head(y.mean((2, 3))).detach())


def test_halves_of_transformer_layers_are_blocks() -> None:
    torch.manual_seed(0)
    network = trace(Encoder(pre_norm=True).eval(), {"x": torch.randint(0, 30, (2, 5))})
    words = np.random.default_rng(0).integers(0, 30, (20, 5))
    outcome = PruneBlocks(keep=0.5).apply(network, Task(validate={"x": words}, score="relative"))
    assert len(outcome.changed) == 4 and outcome.network.parameter_count() < network.parameter_count()


def test_influence_is_zero_where_nothing_changes_and_two_where_all_is_turned() -> None:
    x = torch.randn(4, 3, 2)
    torch.testing.assert_close(block_influence(x, 3 * x), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(block_influence(x, -x), torch.full((4,), 2.0))


def test_what_cannot_be_done_is_one_sentence() -> None:
    task = Task(validate={"x": IMAGES}, score="relative")
    with pytest.raises(SlimlineError, match="found no residual block with an identity shortcut: prune channels"):
        PruneBlocks().apply(network_of("flatten"), task)
    with pytest.raises(SlimlineError, match=r"PruneBlocks\(keep=0.95\) takes none of the 5 residual blocks out"):
        PruneBlocks(keep=0.95).apply(trace(stack(), {"x": torch.from_numpy(IMAGES[:2])}), task)
