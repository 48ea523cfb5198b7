"""No weight of that rank comes closer on the data: reduced-rank regression in numpy finds the same error."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods import readers as readers_module
from slimline.methods.factorize import whitened as module
from slimline.methods.factorize.factors import Decomposed, Layer
from slimline.methods.factorize.ranks import Ranks
from slimline.methods.factorize.whitened import (
    FactorizeWhitened,
    decompose,
    parts,
    project,
    seen,
    spread_outputs,
)
from slimline.methods.readers import rows_of, second_moments
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.numerics.decomposition import split
from slimline.task import Samples, Task
from tests.methods.factorize.chains import FLAT, POINTWISE, WIDE, answer, one_layer, random_weight, rewritten, the_layer
from tests.toys import toy, toy_task

KINDS = {k: v for k, v in (FLAT | POINTWISE | WIDE).items() if k not in ("conv2d same", "conv2d valid", "conv3d")}
Rows = NDArray[np.float64]


def data(rows: int, inputs: int, rank: int, seed: int = 0) -> Rows:
    """Correlated rows around a mean that is not zero, in a space of ``rank`` dimensions."""
    rng = np.random.default_rng(seed)
    scale = np.geomspace(1, 0.03, rank)
    return (rng.standard_normal((rows, rank)) * scale) @ rng.standard_normal((rank, inputs)) + rng.random(inputs)


def moments_of(rows: Rows) -> torch.Tensor:
    with_one = torch.from_numpy(np.hstack([rows, np.ones((len(rows), 1))]))
    return with_one.T @ with_one


def read_by(layer: Layer, x: torch.Tensor) -> Rows:
    return rows_of(layer.node, x, layer.weight)[:, :-1].double().numpy()


def best_error(weight: Rows, rows: Rows, rank: int) -> float:
    """Mean squared error of reduced-rank regression with an intercept (Izenman 1975): centre, decompose the fit."""
    outputs = (rows - rows.mean(0)) @ weight.T
    s = np.linalg.svd(outputs, compute_uv=False)
    return float((s[rank:] ** 2).sum() / len(rows))


def errors(weight: torch.Tensor, rows: Rows, rank: int) -> tuple[float, float]:
    """Mean squared errors on the data, of ours and of the plain decomposition."""
    first, last, shift = project(weight, seen(weight, moments_of(rows)), rank)
    plain = split(weight, rank)[1] @ split(weight, rank)[0]
    outputs = rows @ weight.double().numpy().T
    ours = rows @ (last @ first).numpy().T + shift.numpy()
    return tuple(float(((o - outputs) ** 2).sum() / len(rows)) for o in (ours, rows @ plain.numpy().T))  # type: ignore[return-value]


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("dimensions", [12, 5])
def test_the_error_is_the_smallest_there_is(rank: int, dimensions: int) -> None:
    """Also where the inputs fill only 5 of their 12 dimensions, and a rank of 6 is more than they have."""
    weight, rows = random_weight(9, 12), data(400, 12, dimensions)
    ours, plain = errors(weight, rows, rank)
    best = best_error(weight.double().numpy(), rows, rank)
    assert ours == pytest.approx(best, rel=1e-6, abs=1e-7)
    assert ours < plain


def test_descent_from_our_solution_finds_nothing_better() -> None:
    weight, rows = random_weight(6, 8), data(300, 8, 8)
    x = torch.from_numpy(rows)
    y = x @ weight.double().T
    parameters = [p.contiguous().clone().requires_grad_() for p in project(weight, seen(weight, moments_of(rows)), 2)]
    first, last, shift = parameters
    before = float((x @ (last @ first).T + shift - y).square().sum(1).mean().detach())
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (x @ (last @ first).T + shift - y).square().sum(1).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    assert float(loss().detach()) >= before * (1 - 1e-6)


def test_without_any_data_it_is_the_plain_decomposition() -> None:
    weight = random_weight(9, 6)
    silent = torch.zeros(7, 7).double()
    silent[-1, -1] = 10.0
    first, last, shift = project(weight, seen(weight, silent), 3)
    plain = split(weight, 3)
    torch.testing.assert_close(last @ first, plain[1] @ plain[0])
    assert not shift.any()
    torch.testing.assert_close(first.norm(dim=1), last.norm(dim=0))


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_network_the_error_is_that_of_the_regression(kind: str) -> None:
    network, _ = one_layer(KINDS[kind])
    (name,) = network.input_names
    layer = the_layer(network)
    x = np.maximum(np.random.default_rng(1).standard_normal((40, *network.examples[name].shape[1:])), -0.3)
    x = x.cumsum(-1).astype(np.float32)  # neighbours are alike
    outcome = FactorizeWhitened(rank=2, samples=40).apply(network, Task(validate={name: x}, train={name: x}))
    assert outcome.changed == [layer.name]
    rows = read_by(layer, torch.from_numpy(x))
    best = best_error(layer.weight.flatten(1).double().numpy(), rows, 2)
    difference = answer(outcome.network, torch.from_numpy(x)) - answer(network, torch.from_numpy(x))
    assert float(difference.double().square().sum()) / len(rows) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_of_full_rank_the_chain_is_the_layer(kind: str) -> None:
    network, x = one_layer(KINDS[kind])

    def made(layer: Layer, ranks: Ranks) -> Decomposed:
        return decompose(layer, ranks, seen(layer.weight.flatten(1), moments_of(read_by(layer, x))))

    chain = rewritten(network, module.sizes(the_layer(network)), parts, made)
    torch.testing.assert_close(answer(chain, x), answer(network, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "linear on a sequence", "conv1d"])
def test_singular_values_are_the_spread_of_the_outputs(kind: str) -> None:
    """So choose='energy' keeps a share of the variance of what the layer puts out."""
    network, x = one_layer(KINDS[kind])
    layer = the_layer(network)
    weight, rows = layer.weight.flatten(1), read_by(layer, x)
    matrix = spread_outputs(layer, seen(weight, moments_of(rows)))
    assert matrix.shape == weight.shape
    variances = np.linalg.eigvalsh(np.cov(rows @ weight.double().numpy().T, rowvar=False, bias=True))[::-1]
    np.testing.assert_allclose(torch.linalg.svdvals(matrix) ** 2, variances[: min(weight.shape)], rtol=1e-3, atol=1e-5)


def test_layers_take_turns_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = FactorizeWhitened().apply(toy(), toy_task()).network.weights()
    looked: list[int] = []

    def counting(network: Network, weights: set[str], samples: Samples) -> dict[str, Tensor]:
        looked.append(len(weights))
        return second_moments(network, weights, samples)

    monkeypatch.setattr(readers_module, "LARGEST_MEMORY", 8 * 145**2)
    monkeypatch.setattr(readers_module, "second_moments", counting)
    found = FactorizeWhitened().apply(toy(), toy_task()).network.weights()
    assert looked == [1, 1, 2]  # 9, 144, 24 and 16 inputs
    assert all(torch.equal(t, expected[name]) for name, t in found.items())


def test_layers_that_are_too_wide_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_INPUTS", 100)
    assert FactorizeWhitened().apply(toy(), toy_task()).skipped["inner"] == "reads 144 values at once, over 100"


def doubled_bias() -> Network:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> Any:
            return nn.functional.linear(x, self.layer.weight, self.layer.bias * 2)

    return trace(Doubled(), {"x": torch.randn(2, 16)})


@pytest.mark.parametrize(
    "network", [doubled_bias, *(lambda k=k: one_layer(WIDE[k])[0] for k in ("conv2d same", "conv3d"))]
)
def test_layers_whose_inputs_cannot_be_looked_at_are_told(network: Any) -> None:
    made = network()
    (name,) = made.input_names
    x = np.zeros((8, *made.examples[name].shape[1:]), np.float32)
    (reason,) = FactorizeWhitened().apply(made, Task(validate={name: x})).skipped.values()
    assert reason == "has a bias that is shared or computed, a kernel of three axes, or padding given by a word"


def test_it_asks_for_data() -> None:
    with pytest.raises(SlimlineError, match="Factorisation by the data needs data: pass a Task"):
        FactorizeWhitened().apply(toy())
