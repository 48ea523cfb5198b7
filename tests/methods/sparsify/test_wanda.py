"""Scores and masks against loops over samples, positions and weights."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.methods.sparsify.magnitude import SparsifyMagnitude
from slimline.methods.sparsify.wanda import Wanda, wanda_scores
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from tests.methods.sparsify.checks import chosen, follows, zero_masks
from tests.toys import toy, toy_task

Array = NDArray[np.float64]


def by_row(scores: Array, share: float) -> NDArray[np.bool_]:
    """The lowest of every row of a matrix."""
    mask = np.zeros(scores.shape, bool)
    for row, gone in zip(scores, mask, strict=True):
        gone[sorted(chosen(row.tolist(), round(share * len(row))))] = True
    return mask


def made(module: nn.Module, x: NDArray[np.float32]) -> tuple[Network, Task]:
    network = trace(module.eval(), [torch.from_numpy(x[:2])])
    return network, Task(validate={network.input_names[0]: x}, score="relative")


class Two(nn.Module):
    """Two linear layers on a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.two(torch.relu(self.one(x)))
        return result


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_linear_layers_against_loops(share: float) -> None:
    """The second layer is scored on what the first puts out once it is sparse."""
    torch.manual_seed(0)
    module = Two()
    x = (np.random.default_rng(0).normal(size=(40, 5, 6)) * [0.1, 1, 1, 3, 1, 10]).astype(np.float32)
    network, task = made(module, x)
    one, two = (layer.weight.detach().double().numpy() for layer in (module.one, module.two))
    norms = np.array([np.sqrt(sum(v**2 for v in x[:, :, i].flatten().tolist())) for i in range(6)])
    first = by_row(abs(one) * norms, share)
    hidden = np.maximum(x @ np.where(first, 0, one).T + module.one.bias.detach().numpy(), 0)
    norms = np.array([np.sqrt(sum(v**2 for v in hidden[:, :, i].flatten().tolist())) for i in range(8)])
    second = by_row(abs(two) * norms, share)
    masks = zero_masks(Wanda(sparsity=share).apply(network, task).network.verify())
    np.testing.assert_array_equal(masks["one.weight"], first)
    np.testing.assert_array_equal(masks["two.weight"], second)


@pytest.mark.parametrize(
    "conv",
    [
        lambda: nn.Conv2d(3, 4, 3, padding=1),
        lambda: nn.Conv2d(3, 4, (3, 2), stride=2, bias=False),
        lambda: nn.Conv2d(3, 4, 2, dilation=2, padding=2),
        lambda: nn.Conv2d(3, 4, 1),
    ],
    ids=["padded", "strided", "dilated", "pointwise"],
)
def test_a_convolution_is_scored_on_its_unfolded_input(conv: type) -> None:
    torch.manual_seed(0)
    layer = conv()
    x = (np.random.default_rng(1).normal(size=(9, 3, 6, 5)) * np.array([0.2, 1, 4])[:, None, None]).astype(np.float32)
    network, task = made(nn.Sequential(layer), x)
    weight = layer.weight.detach().double().numpy()
    (top, left), (down, right), (far, wide) = layer.padding, layer.stride, layer.dilation
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, top), (left, left)))
    outputs = layer(torch.from_numpy(x)).shape[2:]
    squares = np.zeros(weight.shape[1:])
    for i, ky, kx in np.ndindex(*squares.shape):
        for oy, ox in np.ndindex(*outputs):
            squares[i, ky, kx] += (padded[:, i, oy * down + ky * far, ox * right + kx * wide] ** 2).sum()
    expected = by_row((abs(weight) * np.sqrt(squares)).reshape(4, -1), 0.5)
    found = Wanda(sparsity=0.5).apply(network, task).network
    np.testing.assert_array_equal(zero_masks(found)["0.weight"].reshape(4, -1), expected)


def test_scores_by_hand() -> None:
    scores = wanda_scores(torch.tensor([[1.0, -2.0], [3.0, 0.5]]), torch.tensor([4.0, 1.0]))
    assert scores.tolist() == [[4.0, 2.0], [12.0, 0.5]]


def test_a_small_weight_of_a_large_input_stays() -> None:
    """Magnitude takes it, and loses nearly all of the answers."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(100, 8)) * [100, 1, 1, 1, 1, 1, 1, 1]).astype(np.float32)
    layer = nn.Linear(8, 5, bias=False)
    layer.weight.data = torch.from_numpy(np.hstack([np.full((5, 1), 0.1), rng.uniform(0.2, 1, (5, 7))])).float()
    network, task = made(nn.Sequential(layer), x)
    whole, *sparse = (
        n.run({"input": torch.from_numpy(x)})[0]
        for n in (network, Wanda().apply(network, task).network, SparsifyMagnitude().apply(network).network)
    )
    wanda, magnitude = (float((y - whole).square().sum() / whole.square().sum()) for y in sparse)
    assert wanda < 0.05 and magnitude > 0.9


@pytest.mark.parametrize("pattern", ["2:4", "1x4", "4x4", "2x2"])
def test_patterns_hold_and_rows_keep_their_share(pattern: str) -> None:
    outcome = Wanda(pattern=pattern, sparsity=0.5, samples=64).apply(toy(), toy_task())
    weights = outcome.network.verify().weights()
    assert outcome.changed == ["inner", "outer", "head"] and outcome.skipped == {
        "stem": "1 inputs are no multiple of " + pattern[-1]
    }
    for name in outcome.changed:
        weight = weights[f"{name}.weight"]
        assert follows(weight, pattern)
        assert ((weight == 0).flatten(1).sum(1) == weight[0].numel() // 2).all()


def test_zeros_are_as_many_as_asked_for() -> None:
    masks = zero_masks(Wanda(sparsity=0.37).apply(toy(), toy_task()).network)
    for mask in masks.values():
        rows = mask.reshape(len(mask), -1)
        assert (rows.sum(1) == round(0.37 * rows.shape[1])).all()
