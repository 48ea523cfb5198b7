"""Layers by group, against torch's own layers and sums written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.methods.simplify.layers import (
    Layer,
    grouped,
    read_layer,
    scaled_inputs,
    scaled_outputs,
    ungrouped,
    write_bias_,
    write_layer_,
)
from slimline.network.network import Network
from tests.methods.simplify.equality import Does, network_of
from tests.runtimes.networks import Quantized, traced

aten = torch.ops.aten
KINDS = [
    (nn.Linear(6, 4), 1, False),
    (nn.Conv2d(6, 4, (3, 2)), 1, False),
    (nn.Conv1d(6, 4, 3, groups=2), 2, False),
    (nn.Conv2d(6, 6, 3, groups=6), 6, False),
    (nn.ConvTranspose2d(6, 4, (3, 2)), 1, True),
    (nn.ConvTranspose1d(6, 4, 3, groups=2), 2, True),
]


@pytest.mark.parametrize(("module", "groups", "transposed"), KINDS)
def test_blocks_are_what_connects_channels(module: nn.Module, groups: int, transposed: bool) -> None:
    """Against a network of zeros with one weight: which output of which group moves, for which input."""
    weight = module.weight.detach().double()
    assert isinstance(weight, Tensor)
    blocks = grouped(weight, groups, transposed)
    assert torch.equal(ungrouped(blocks, tuple(weight.shape[2:]), transposed), weight)
    _, outputs, inputs, taps = blocks.shape
    assert groups * outputs == module.bias.numel() and groups * inputs == 6 and taps == weight[0, 0].numel()
    for group, out, into, tap in [(0, 0, 0, 0), (groups - 1, outputs - 1, inputs - 1, taps - 1)]:
        one = torch.zeros_like(blocks)
        one[group, out, into, tap] = 1.0
        module.double().weight.data = ungrouped(one, tuple(weight.shape[2:]), transposed).contiguous()
        shape = (1, 6) if isinstance(module, nn.Linear) else (1, 6, *[4] * (weight.ndim - 2))
        x = torch.zeros(shape, dtype=torch.float64)
        x[:, group * inputs + into] = 1.0
        moved = (module(x) - module(0 * x)).flatten(2).amax(-1) if x.ndim > 2 else module(x) - module(0 * x)
        assert moved.nonzero()[:, 1].tolist() == [group * outputs + out]


def test_scaled_outputs_and_inputs_by_hand() -> None:
    """One group, W = (1 2; 3 4), b = (5, 6)."""
    blocks, bias = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 2, 1), torch.tensor([5.0, 6.0])
    scale, shift = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 10.0])
    w, b = scaled_outputs(blocks, bias, scale, shift)
    assert w.flatten().tolist() == [2.0, 4.0, -3.0, -4.0] and b.tolist() == [11.0, 4.0]
    w, b = scaled_inputs(blocks, bias, scale, shift)
    assert w.flatten().tolist() == [2.0, -2.0, 6.0, -4.0] and b.tolist() == [5 + 1 + 20, 6 + 3 + 40]


def layer_of(network: Network) -> Layer:
    nodes = [n for n in network.module.graph.nodes if n.op == "call_function"]
    found = read_layer(network, next(n for n in nodes if "linear" in n.name or "conv" in n.name))
    assert isinstance(found, Layer)
    return found


def test_a_layer_says_how_it_moves() -> None:
    conv = nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), dilation=(2, 1), groups=2)
    layer = layer_of(network_of(Does(lambda x, c: c(x), conv), 4, 9, 9))
    assert (layer.stride, layer.dilation, layer.padding, layer.groups) == ((2, 2), (2, 1), (1, 0), 2)
    assert layer.kernel == (3, 1) and layer.channel_axis == 1 and not layer.pointwise and not layer.transposed
    assert layer.title == "parts.0" and layer.name == "parts.0.weight"


@pytest.mark.parametrize(
    ("conv", "padding"),
    [
        (nn.Conv1d(2, 2, 3, padding="same"), (1,)),
        (nn.Conv1d(2, 2, 3, padding="same", dilation=2), (2,)),
        (nn.Conv1d(2, 2, 3, padding="valid"), (0,)),
        (nn.Conv1d(2, 2, 1, padding="same"), (0,)),
        (nn.Conv1d(2, 2, 3), (0,)),
    ],
)
def test_padding_in_words_is_read_as_numbers(conv: nn.Conv1d, padding: tuple[int, ...]) -> None:
    network = network_of(Does(lambda x, c: c(x), conv), 2, 8)
    layer = layer_of(network)
    assert layer.padding == padding
    x = network.examples["x"]
    by_numbers = F.conv1d(x, layer.weight, layer.bias, padding=list(padding), dilation=conv.dilation)
    torch.testing.assert_close(by_numbers, network.run({"x": x})[0])


def test_padding_of_two_sizes_has_no_number() -> None:
    """An even kernel pads one side more. torch warns of the copy that costs, so the call is made from another one."""
    network = network_of(Does(lambda x, c: c(x), nn.Conv1d(2, 2, 2, padding="valid")), 2, 8)
    layer = layer_of(network)
    layer.node.args = (*layer.node.args[:3], [1], "same")
    assert layer_of(network).padding is None and layer_of(network).why_no_shift_before()


@pytest.mark.parametrize(
    ("module", "reaches"),
    [
        (nn.Conv2d(3, 2, 3), True),
        (nn.Conv2d(3, 2, 3, padding=1), False),
        (nn.Conv2d(3, 2, 1, padding="same"), True),
        (nn.ConvTranspose2d(3, 2, 1), True),
        (nn.ConvTranspose2d(3, 2, 2), False),
        (nn.ConvTranspose2d(3, 2, 2, stride=2), False),
        (nn.ConvTranspose2d(3, 2, 1, stride=2), False),
        (nn.ConvTranspose2d(3, 2, 1, padding=1), False),
        (nn.Linear(4, 2), True),
    ],
)
def test_where_a_shift_of_the_input_is_a_shift_of_the_output(module: nn.Module, reaches: bool) -> None:
    """Against what the layer does to a constant: for one channel's shift, is it the same in every place?"""
    network = network_of(Does(lambda x, layer: layer(x), module), 3, 4, 4)
    layer = layer_of(network)
    bias = layer.full_bias.view(-1, 1, 1) if layer.kernel else layer.full_bias
    effect = network.run({"x": torch.ones(1, 3, 4, 4, dtype=torch.float64)})[0] - bias
    constant = torch.allclose(effect, effect[..., :1, :1] if layer.kernel else effect[:, :1, :1])
    may = not layer.why_no_shift_before()
    assert may is reaches and (constant or not may)


def test_why_weights_cannot_be_changed() -> None:
    tied = network_of(Does(lambda x, a: a(a(x)), nn.Linear(3, 3)), 3)
    made = network_of(Does(lambda x, a: F.linear(x, a.weight * 2, a.bias), nn.Linear(3, 3)), 3)
    biased = network_of(Does(lambda x, a: F.linear(x, a.weight, a.bias * 2), nn.Linear(3, 3)), 3)
    flat = network_of(Does(lambda x, a: F.linear(x, a.weight[0]) + x[:, 0], nn.Linear(3, 3)), 3)
    row = network_of(Does(lambda x, a: F.linear(x, a.bias) + x[:, 0], nn.Linear(3, 3)), 3)
    for network, why in (
        (tied, "shared or computed"),
        (made, "the weight of linear is shared or computed"),
        (biased, "the bias of linear is computed"),
        (flat, "shared or computed"),
        (row, "not a matrix or kernel"),
        (traced(Quantized()), "shared or computed"),
    ):
        for node in network.module.graph.nodes:
            if node.target in (aten.linear.default, aten.conv2d.default):
                found = read_layer(network, node)
                assert isinstance(found, str) and why in found
    (relu,) = (n for n in network_of(Does(F.relu), 3).module.graph.nodes if n.op == "call_function")
    assert read_layer(tied, relu) == "relu is no convolution or linear layer"


def test_one_tensor_behind_two_nodes_is_shared() -> None:
    network = network_of(Does(lambda x, a: a(x) + 1, nn.Linear(3, 3)), 3)
    layer = layer_of(network)
    with network.module.graph.inserting_after(layer.node):
        again = network.module.graph.get_attr(layer.name)
    add = next(iter(layer.node.users))
    add.args = (layer.node, again)
    found = read_layer(network, layer.node)
    assert isinstance(found, str) and "shared" in found


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_written_back(bias: bool) -> None:
    network = network_of(Does(lambda x, a: a(x), nn.ConvTranspose2d(3, 4, 2, bias=bias)), 3, 5, 5)
    layer, x = layer_of(network), network.examples["x"]
    expected = 2 * network.run({"x": x})[0] + 1
    write_layer_(network, layer, 2 * layer.blocks, 2 * layer.full_bias + 1)
    network.tidy_().verify()
    torch.testing.assert_close(network.run({"x": x})[0], expected)
    assert len(network.weights()) == 2


def test_a_bias_is_made_only_where_it_is_needed_and_not_taken_from_another() -> None:
    network = network_of(Does(lambda x, a: a(x), nn.Linear(3, 4, bias=False)), 3)
    layer = layer_of(network)
    write_bias_(network, layer, torch.zeros(4))
    assert len(network.weights()) == 1

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
            self.other.bias = self.one.bias

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(x), self.other(x)

    network = network_of(Two(), 3)
    before = network.run(network.examples)
    layer = layer_of(network)
    write_bias_(network, layer, layer.full_bias + 1)
    after = network.tidy_().verify().run(network.examples)
    torch.testing.assert_close(after[0], before[0] + 1)
    torch.testing.assert_close(after[1], before[1])
