import torch
from torch import nn

from slimline.network.shapes import node_shapes
from tests.network.networks import PlainAdds, network_of, randomise_, samples


def test_shapes_are_those_that_the_layers_really_return() -> None:
    """Against forward hooks of the module, in the order of execution."""
    module = randomise_(PlainAdds())
    seen: list[tuple[int, ...]] = []
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        module(samples("plain adds", 2))
    network = network_of("plain adds")
    shapes = node_shapes(network)
    targets = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
    assert [shapes[n.name] for n in network.module.graph.nodes if n.target in targets] == seen
    assert shapes["x"] == (2, 3, 8, 8) and len(seen) == 6


def test_weights_have_shapes_and_sizes_that_are_numbers_have_none() -> None:
    network = network_of("view")
    shapes = node_shapes(network)
    weights = [n for n in network.module.graph.nodes if n.op == "get_attr"]
    assert all(shapes[n.name] == tuple(network.weights()[str(n.target)].shape) for n in weights)
    sizes = [n for n in network.module.graph.nodes if n.target is torch.ops.aten.sym_size.int]
    assert sizes and all(n.name not in shapes for n in sizes)


def test_looking_at_shapes_changes_no_statistics() -> None:
    network = network_of("plain adds").set_training_(True)
    before = {n: t.clone() for n, t in network.weights().items()}
    node_shapes(network)
    assert all(torch.equal(t, before[n]) for n, t in network.weights().items())
    assert network.is_training()
