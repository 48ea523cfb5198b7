"""MACs against torch's own counter of floating point operations: one MAC is two of them."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.share.codebook import ShareWeights
from slimline.network.cost import layers, macs, weight_bytes, weight_count, weight_name
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from tests.network.networks import NETWORKS, network_of, samples
from tests.toys import toy

BATCH = 2
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(3, 8, 3, padding=1), (3, 9, 7)),
    "strided": (nn.Conv2d(3, 8, (3, 1), stride=(2, 3)), (3, 9, 7)),
    "dilated": (nn.Conv2d(3, 8, 3, dilation=2), (3, 9, 7)),
    "same padding": (nn.Conv2d(3, 8, 5, padding="same"), (3, 9, 7)),
    "grouped": (nn.Conv2d(6, 8, 3, groups=2), (6, 9, 7)),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6), (6, 9, 7)),
    "depthwise, multiplier 3": (nn.Conv2d(6, 18, 3, groups=6), (6, 9, 7)),
    "one dimension": (nn.Conv1d(4, 6, 5, stride=2), (4, 21)),
    "three dimensions": (nn.Conv3d(2, 3, 3), (2, 5, 6, 7)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 6)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 6)),
    "linear": (nn.Linear(12, 7), (12,)),
    "linear on rows": (nn.Linear(12, 7, bias=False), (5, 12)),
}


def counted(network: Network) -> int:
    """Floating point operations of the example batch as torch counts them, which knows no fused kernels of CPUs."""
    with (
        warnings.catch_warnings(action="ignore"),  # torch warns of Intel GPUs whenever these flags are set
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):
        network.module(*network.examples.values())
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", LAYERS)
def test_macs_of_a_layer(name: str) -> None:
    module, shape = LAYERS[name]
    network = trace(nn.Sequential(module), [torch.randn(BATCH, *shape)])
    assert 2 * BATCH * macs(network) == counted(network) > 0
    (layer,) = layers(network)
    weight = module.get_parameter("weight")
    assert (layer.name, layer.parameters, layer.bytes) == ("0", weight.numel(), 4 * weight.numel())
    assert layer.weight_shape == tuple(weight.shape)
    assert layer.output_shape == tuple(module(torch.randn(BATCH, *shape)).shape[1:])


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_of_a_network(name: str) -> None:
    network = network_of(name)
    assert 2 * BATCH * macs(network) == counted(network)
    network.examples = {"x": samples(name, 5)}
    assert 2 * 5 * macs(network) == counted(network)  # one sample costs the same in every batch


def test_products_of_activations_count_too() -> None:
    class Products(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.bmm(a, b) + a @ b

    network = trace(Products(), [torch.randn(BATCH, 3, 4), torch.randn(BATCH, 4, 5)])
    assert macs(network) == 2 * 3 * 4 * 5
    assert 2 * BATCH * macs(network) == counted(network)
    assert [(x.kind, x.parameters) for x in layers(network)] == [("bmm", 0), ("matmul", 0)]


def test_layers_come_in_the_order_they_run() -> None:
    names = [x.name for x in layers(network_of("dense block"))]
    assert names == ["stem", "layers.0", "layers.1", "layers.2", "head"]
    assert [x.name for x in layers(network_of("shared weight"))] == ["stem", "shared", "shared", "tail", "head"]


def test_bytes_are_those_of_every_stored_tensor() -> None:
    network = network_of("plain adds")
    assert weight_bytes(network) == 4 * sum(t.numel() for t in network.weights().values())
    assert weight_count(network) == network.parameter_count()


def test_a_quantised_network_costs_as_many_macs_and_fewer_bytes() -> None:
    network = network_of("plain adds")
    task = Task(validate={"x": samples("plain adds", 32).numpy()})
    quantised = QuantizeStatic().apply(network, task).network
    assert macs(quantised) == macs(network)
    assert weight_count(quantised) == weight_count(network)
    assert weight_bytes(quantised) < 0.6 * weight_bytes(network)
    shapes = {x.name: (x.weight_shape, x.bytes) for x in layers(quantised)}
    for layer in layers(network):
        assert shapes[layer.name] == (layer.weight_shape, layer.bytes // 4)


def test_the_name_of_a_weight_is_found_behind_its_dequantisation() -> None:
    network = network_of("plain adds")
    quantised = QuantizeStatic().apply(network, Task(validate={"x": samples("plain adds", 32).numpy()})).network
    targets = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
    for graph in (network.module.graph, quantised.module.graph):
        found = [weight_name(n) for n in graph.nodes if n.target in targets]
        assert [str(name).split(".")[0] for name in found] == ["stem", *["blocks"] * 4, "head"]


def test_a_layer_with_a_codebook_computes_with_the_weights_it_stands_for() -> None:
    network = toy()
    shared = ShareWeights(clusters=16, smallest=64).apply(network).network
    assert macs(shared) == macs(network)
    assert {x.name: x.weight_shape for x in layers(network)}["inner"] in {x.weight_shape for x in layers(shared)}
