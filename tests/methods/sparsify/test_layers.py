"""Which weights may become zero, how they lie in a matrix, and that zeros land where the matrix says."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.sparsify.layers import Layer, dense, layers, zero_
from slimline.methods.sparsify.patterns import pattern_of, zeros
from slimline.network.network import Network, get_tensor
from slimline.network.trace import trace
from tests.methods.sparsify.checks import follows
from tests.toys import toy


class Odd(nn.Module):
    """Weights that are read in every way: tied to a table, of a product, by a plain sum, transposed, in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.tied = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
        self.tied.weight = self.table.weight
        self.places = nn.Parameter(torch.randn(1, 4, 8))
        self.product, self.stack = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(4, 8, 8))
        self.twice, self.grouped = nn.Linear(8, 8), nn.Conv1d(4, 8, 3, padding=1, groups=2)
        self.up, self.up_grouped = (
            nn.ConvTranspose1d(8, 4, 3, padding=1),
            nn.ConvTranspose1d(4, 4, 3, groups=2, padding=1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens) + self.places
        x = torch.matmul(x, self.product)
        x = torch.matmul(x[:, :, None], self.stack)[:, :, 0]
        x = self.twice(F.relu(self.twice(x)))
        x = self.up_grouped(self.up(F.relu(self.grouped(x))))
        result: Tensor = self.tied(x)
        return result


@functools.cache
def odd() -> Network:
    torch.manual_seed(0)
    return trace(Odd(), [torch.randint(0, 9, (2, 4))])


def test_what_may_become_zero_and_why_the_rest_may_not() -> None:
    found, reasons = layers(odd(), pattern_of("any"))
    assert [layer.name for layer in found] == ["product", "twice", "grouped", "up"]
    assert [layer.transposed for layer in found] == [True, False, False, True]
    assert set(reasons) == {"table", "places", "stack", "up_grouped"}
    assert "embedding" in reasons["table"] and "not as the weight of a layer" in reasons["table"]
    assert "add.Tensor" in reasons["places"] and "matmul" in reasons["stack"]
    assert reasons["up_grouped"] == "belongs to a transposed convolution of 2 groups"


def test_a_pattern_that_does_not_fit_is_a_reason() -> None:
    found, reasons = layers(toy(), pattern_of("2:4"))
    assert [layer.name for layer in found] == ["inner", "outer", "head"]
    assert reasons == {"stem": "1 inputs are no multiple of 4"}
    found, reasons = layers(odd(), pattern_of("4x8"))
    assert [layer.name for layer in found] == ["product", "twice", "up"]
    assert reasons["grouped"] == "2 inputs are no multiple of 8"


def test_layers_can_be_left_alone_by_name() -> None:
    found, reasons = layers(toy(), pattern_of("any"), ("stem", "head"))
    assert [layer.name for layer in found] == ["inner", "outer"]
    assert reasons == {"stem": "is named in skip", "head": "is named in skip"}
    with pytest.raises(SlimlineError, match="skip names 'inne', which is no layer; near names: inner"):
        layers(toy(), pattern_of("any"), ("inne",))


def test_what_is_known_of_inputs() -> None:
    network = odd()
    found, reasons = dense(network, layers(network, pattern_of("any"))[0])
    assert found == []
    assert reasons["twice"] == "runs 2 times, so that what it reads is not known before it runs"
    assert all(why.startswith("is no linear layer or convolution") for n, why in reasons.items() if n != "twice")
    found, reasons = dense(toy(), layers(toy(), pattern_of("any"))[0])
    assert [layer.name for layer in found] == ["stem", "inner", "outer", "head"] and reasons == {}


@pytest.mark.parametrize("transposed", [False, True])
def test_inputs_are_the_channels_under_one_place_of_the_kernel_after_the_other(transposed: bool) -> None:
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 4, 2, 3)))
    layer = Layer("a.weight", transposed)
    matrix = layer.matrix(weight)
    outputs, inputs = layer.matrix_shape(weight)
    assert (outputs, inputs) == ((4, 5) if transposed else (5, 4)) and matrix.shape == (outputs, 6 * inputs)
    for o, i, y, x in np.ndindex(outputs, inputs, 2, 3):
        assert matrix[o, (y * 3 + x) * inputs + i] == (weight[i, o, y, x] if transposed else weight[o, i, y, x])
    assert torch.equal(layer.unmatrix(matrix, weight), weight)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "linear": (lambda: nn.Linear(8, 4), (2, 8), 1),
    "conv1d": (lambda: nn.Conv1d(8, 4, 3), (2, 8, 9), 1),
    "conv2d": (lambda: nn.Conv2d(8, 4, (3, 2)), (2, 8, 9, 9), 1),
    "conv3d": (lambda: nn.Conv3d(4, 4, 2), (2, 4, 3, 3, 3), 1),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(8, 4, 3), (2, 8, 5, 5), 0),
}


@pytest.mark.parametrize("pattern", ["2:4", "1:2", "1x4", "4x4", "2x2"])
@pytest.mark.parametrize("name", LAYERS)
def test_patterns_lie_along_the_inputs_of_every_kind_of_layer(name: str, pattern: str) -> None:
    make, shape, inputs = LAYERS[name]
    torch.manual_seed(0)
    network = trace(nn.Sequential(make()), [torch.randn(shape)])
    (layer,), _ = layers(network, pattern_of(pattern))
    before = get_tensor(network.module, layer.weight).detach().clone()
    mask = zeros(layer.stored(network).abs(), 0.5, pattern_of(pattern))
    assert zero_(network, {layer: mask}) == ["0"]
    weight = get_tensor(network.module, layer.weight)
    assert follows(weight, pattern, inputs)
    assert int((weight == 0).sum()) == weight.numel() // 2
    left = weight != 0
    assert torch.equal(weight[left], before[left])
    smallest = before.abs() <= before.abs().flatten().sort().values[weight.numel() // 2 - 1]
    assert not follows(before.masked_fill(smallest, 0.0), pattern, inputs)


def test_zeros_are_plain_zeros() -> None:
    """A zero with a sign is another number of 32 bits, and packs worse."""
    network = toy()
    found, _ = layers(network, pattern_of("any"))
    zero_(network, {layer: torch.ones_like(layer.stored(network), dtype=torch.bool) for layer in found})
    for layer in found:
        assert not get_tensor(network.module, layer.weight).detach().numpy().tobytes().strip(b"\0")


def test_layers_without_zeros_are_not_named() -> None:
    network = toy()
    found, _ = layers(network, pattern_of("any"))
    masks = {layer: torch.zeros_like(layer.stored(network), dtype=torch.bool) for layer in found}
    masks[found[1]][0, 0] = True
    assert zero_(network, masks) == ["inner"]
