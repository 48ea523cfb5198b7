"""Against a slow twin that refits every row after every column, and against what the method claims."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.methods.method import Method
from slimline.methods.readers import rows_of
from slimline.methods.sparsify.magnitude import SparsifyMagnitude
from slimline.methods.sparsify.patterns import pattern_of
from slimline.methods.sparsify.sparse_gpt import SparseGPT, left_over, upper_factor
from slimline.methods.sparsify.wanda import Wanda
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from tests.methods.sparsify.checks import follows, slow_zeros, zero_masks
from tests.toys import patterns, toy, toy_task

Array = NDArray[np.float64]
DAMPING = 0.01


def correlated(rows: int, columns: int, seed: int = 0) -> Array:
    """Columns that are mixtures of a third as many, with a little of their own; their means are not zero."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, columns // 3)) @ rng.normal(size=(columns // 3, columns))
    return mixed + 0.3 * rng.normal(size=(rows, columns)) + rng.normal(size=columns)


def slow_twin(weight: Array, hessian: Array, columns: int, share: float, pattern: str, block: int) -> Array:
    """Every row is fitted anew, by a linear system over the columns that are left, whenever a weight became zero."""
    size = int(pattern.split(":")[1]) if ":" in pattern else 0
    left = weight.copy()
    gone = np.zeros(weight.shape, bool)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        for j in range(start, end):
            if j == start or (size and (j - start) % size == 0):
                stop = j + size if size else end
                inverses = [np.linalg.inv(hessian[c:, c:])[0, 0] for c in range(j, stop)]
                costs = left[:, j:stop] ** 2 / np.array(inverses)
                gone[:, j:stop] = _chosen(costs, weight, j, stop, share, pattern)
            for row in np.flatnonzero(gone[:, j]):
                left[row, j] = 0
                fixed = left[row, : j + 1] - weight[row, : j + 1]
                pushed = hessian[j + 1 :, : j + 1] @ fixed
                left[row, j + 1 :] = weight[row, j + 1 :] - np.linalg.solve(hessian[j + 1 :, j + 1 :], pushed)
    return left


def _chosen(costs: Array, weight: Array, begin: int, end: int, share: float, pattern: str) -> NDArray[np.bool_]:
    if ":" in pattern:
        kept, size = map(int, pattern.split(":"))
        return slow_zeros(costs, (size - kept) / size, pattern)
    height, width = (1, 1) if pattern == "any" else map(int, pattern.split("x"))
    before, after = (len(weight) // height * (c // width) for c in (begin, end))
    count = round(share * after) - round(share * before)
    return slow_zeros(costs, count / (after - before), pattern)


@pytest.mark.parametrize("pattern", ["any", "2:4", "1:2", "1x4", "2x2", "4x4"])
@pytest.mark.parametrize("block", [4, 8, 24])
def test_what_is_left_is_what_the_slow_twin_leaves(pattern: str, block: int) -> None:
    x = np.hstack([correlated(200, 24), np.ones((200, 1))])
    weight = np.random.default_rng(5).normal(size=(8, 25))
    hessian = x.T @ x
    upper = upper_factor(torch.from_numpy(hessian), DAMPING)
    share = pattern_of(pattern).share(0.4)
    found, mask = left_over(torch.from_numpy(weight), upper, 24, share, pattern_of(pattern), block)
    damped = hessian + DAMPING * np.trace(hessian) / 25 * np.eye(25)
    expected = slow_twin(weight, damped, 24, share, pattern, block)
    np.testing.assert_array_equal(mask.numpy(), expected == 0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-10)
    assert not mask[:, 24].any() and (pattern == "any" or follows(found[:, :24], pattern))


def test_the_factor_is_that_of_the_inverse() -> None:
    x = correlated(60, 9)
    hessian = x.T @ x
    upper = upper_factor(torch.from_numpy(hessian), DAMPING).numpy()
    damped = hessian + DAMPING * np.trace(hessian) / 9 * np.eye(9)
    np.testing.assert_allclose(upper.T @ upper, np.linalg.inv(damped), rtol=1e-8)
    for j in range(9):
        np.testing.assert_allclose(upper[j, j] * upper[j, j:], np.linalg.inv(damped[j:, j:])[0], rtol=1e-8)


def test_of_uncorrelated_inputs_the_least_products_go_and_the_others_stay_as_they_are() -> None:
    """Then it is magnitude times norm within the layer: e = w^2 H_jj."""
    rng = np.random.default_rng(0)
    weight, squares = rng.normal(size=(6, 16)), rng.uniform(0.1, 10, 16)
    hessian = torch.from_numpy(np.diag(squares))
    found, mask = left_over(torch.from_numpy(weight), upper_factor(hessian, 1e-12), 16, 0.4, pattern_of("any"))
    expected = slow_zeros(weight**2 * squares, 0.4, "any")
    np.testing.assert_array_equal(mask.numpy(), expected)
    np.testing.assert_allclose(found.numpy(), np.where(expected, 0, weight), rtol=1e-10)


@pytest.mark.parametrize("block", [1, 5, 128])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.93, 1.0])
def test_the_number_of_zeros_is_what_was_asked_for(share: float, block: int) -> None:
    x = correlated(50, 15)
    weight = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 15)))
    _, mask = left_over(weight, upper_factor(torch.from_numpy(x.T @ x), DAMPING), 15, share, pattern_of("any"), block)
    assert int(mask.sum()) == round(share * 105)


def linear(bias: bool = True) -> tuple[Network, Task, Array]:
    torch.manual_seed(0)
    x = correlated(400, 24).astype(np.float32)
    network = trace(nn.Sequential(nn.Linear(24, 16, bias=bias)), {"input": torch.from_numpy(x[:2])})
    return network, Task(validate={"input": x}, score="relative"), x


def error(method: Method, network: Network, task: Task, x: Array) -> float:
    """The share of the answers' squares that is lost on the samples."""
    whole, sparse = (n.run({"input": torch.from_numpy(x)})[0] for n in (network, method.apply(network, task).network))
    return float((whole - sparse).square().sum() / whole.square().sum())


@pytest.mark.parametrize("pattern", ["any", "2:4", "1x4", "4x4"])
@pytest.mark.parametrize("bias", [True, False])
def test_correlated_inputs_lose_less_than_by_wanda_or_magnitude_with_as_many_zeros(pattern: str, bias: bool) -> None:
    network, task, x = linear(bias)
    methods = [
        SparseGPT(pattern=pattern, samples=400),
        Wanda(pattern=pattern, samples=400),
        SparsifyMagnitude(pattern=pattern),
    ]
    zeros = {int(zero_masks(m.apply(network, task).network)["0.weight"].sum()) for m in methods}
    assert zeros == {24 * 16 // 2}
    ours, *others = (error(method, network, task, x) for method in methods)
    assert 2.5 * ours < min(others)


def test_no_other_weights_on_these_places_would_be_better_at_the_end() -> None:
    """The bias, which comes last, is at its optimum: what is lost has no mean but for the damping."""
    network, task, x = linear()
    sparse = SparseGPT(sparsity=0.6, samples=400, damping=1e-6).apply(network, task).network
    whole, ours = (n.run({"input": torch.from_numpy(x)})[0].double() for n in (network, sparse))
    lost = whole - ours
    assert lost.mean(0).abs().max() < 1e-3 * lost.std(0).min()


def test_more_zeros_cost_more_and_none_cost_nothing() -> None:
    network, task, x = linear()
    errors = [error(SparseGPT(sparsity=s, samples=400), network, task, x) for s in (0.0, 0.3, 0.5, 0.7, 0.9)]
    assert errors[0] < 1e-12 and all(a < b for a, b in pairwise(errors))


class Convolution(nn.Module):
    """One convolution, so that its answers are the network's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(4, 8, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


@pytest.mark.parametrize("pattern", ["any", "2:4", "2x4"])
def test_a_convolution_is_the_linear_layer_of_its_patches(pattern: str) -> None:
    """The slow twin on patches whose columns are sorted by place of the kernel, then channel."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 4, 7, 6)).astype(np.float32)
    x[:, 1:] += x[:, :1]
    module = Convolution()
    network = trace(module, {"x": torch.from_numpy(x[:2])})
    task = Task(validate={"x": x}, score="relative")
    (node,) = [n for n in network.module.graph.nodes if n.op == "call_function"]
    rows = rows_of(node, torch.from_numpy(x), module.layer.weight).double().numpy()
    order = [channel * 9 + place for place in range(9) for channel in range(4)] + [36]
    hessian = rows[:, order].T @ rows[:, order]
    hessian += DAMPING * np.trace(hessian) / 37 * np.eye(37)
    whole = np.hstack([module.layer.weight.detach().flatten(1), module.layer.bias.detach()[:, None]])
    share = pattern_of(pattern).share(0.5)
    expected = slow_twin(whole.astype(np.float64)[:, order], hessian, 36, share, pattern, 36)
    outcome = SparseGPT(pattern=pattern, sparsity=0.5).apply(network, task)
    weights = outcome.network.verify().weights()
    found = np.hstack([weights["layer.weight"].detach().flatten(1), weights["layer.bias"].detach()[:, None]])[:, order]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found[:, :36] == 0, expected[:, :36] == 0)


def test_a_network_answers_more_like_itself_than_after_the_others() -> None:
    network, task = toy(), toy_task()
    images = {"image": torch.from_numpy(patterns(300, seed=9, noise=1.0)[0])}
    methods = (SparseGPT(sparsity=0.6), SparsifyMagnitude(sparsity=0.6), Wanda(sparsity=0.6))
    whole, *sparse = (n.run(images)[0] for n in (network, *(m.apply(network, task).network for m in methods)))
    ours, *others = (float((answers - whole).square().mean()) for answers in sparse)
    assert 2 * ours < min(others)


def test_inputs_that_are_always_zero_cost_nothing_and_break_nothing() -> None:
    x = correlated(100, 12).astype(np.float32)
    x[:, 3:9] = 0
    torch.manual_seed(0)
    network = trace(nn.Sequential(nn.Linear(12, 5)), {"input": torch.from_numpy(x[:2])})
    outcome = SparseGPT(damping=1e-6).apply(network, Task(validate={"input": x}, score="relative"))
    mask = zero_masks(outcome.network.verify())["0.weight"]
    assert mask[:, 3:9].all() and mask.sum() == 30
    whole, ours = (n.run({"input": torch.from_numpy(x)})[0] for n in (network, outcome.network))
    torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-5)
    nothing = Task(validate={"input": np.zeros_like(x)}, score="cosine")
    assert zero_masks(SparseGPT().apply(network, nothing).network)["0.weight"].sum() == 30


@pytest.mark.parametrize(("there", "asked"), [(0.7, 0.5), (0.3, 0.6)])
def test_zeros_that_were_there_stay_and_count(there: float, asked: float) -> None:
    """What makes up for a weight may not be one that is zero on purpose."""
    network, task = toy(), toy_task()
    sparse = SparsifyMagnitude(sparsity=there).apply(network).network
    result = SparseGPT(sparsity=asked).apply(sparse, task).network
    before, after = zero_masks(sparse), zero_masks(result)
    for name, mask in before.items():
        assert (after[name] | ~mask).all() and after[name].sum() == max(mask.sum(), round(asked * mask.size))
        if there > asked:
            torch.testing.assert_close(result.weights()[name], sparse.weights()[name])
