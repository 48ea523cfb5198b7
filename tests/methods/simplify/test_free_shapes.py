"""Shapes for any batch, against those of real runs."""

import torch
from torch import nn

from slimline.methods.simplify.free_shapes import BATCHES, free_shapes
from slimline.network.shapes import node_shapes
from slimline.network.trace import trace
from tests.methods.simplify.equality import Does, network_of
from tests.toys import toy


def test_they_are_those_of_a_real_run() -> None:
    network = toy()
    found = free_shapes(network)
    real = node_shapes(network)
    assert {n.name: s.small for n, s in found.tensors.items()} == real
    for node, shape in found.tensors.items():
        from_input = node.op != "get_attr"
        assert shape.free_axes() == ([0] if from_input else []) and shape.dtype is torch.float32
        assert [s[0] for s in shape.at] == (list(BATCHES) if from_input else [real[node.name][0]] * len(BATCHES))


def test_a_batch_that_lies_on_another_axis_or_in_a_product_is_found() -> None:
    network = network_of(Does(lambda x: (x.transpose(0, 1) * 2).flatten(1).reshape(3, -1).t().reshape(x.shape)), 3, 5)
    found = {n.name: s for n, s in free_shapes(network).tensors.items()}
    assert found["transpose"].free_axes() == [1] and found["flatten"].at == tuple((3, 5 * batch) for batch in BATCHES)


def test_an_axis_dropped_for_one_sample_leaves_no_rank() -> None:
    network = network_of(Does(lambda x: x.squeeze().view(x.shape[0], -1)), 1, 4)
    found = {n.name: s for n, s in free_shapes(network).tensors.items()}
    assert found["squeeze"].rank is None and found["squeeze"].free_axes() == [] and not found["squeeze"].fixed(0)


def test_numbers_are_known_for_a_small_batch() -> None:
    network = network_of(Does(lambda x: x.new_zeros(x.shape[0], 3) + x), 3)
    found = free_shapes(network)
    (size,) = network.module.graph.find_nodes(op="call_function", target=torch.ops.aten.sym_size.int)
    assert found.numbers == {size: BATCHES} and found.small_number([size, 7]) == [2, 7]


def test_type_and_shape_have_to_be_the_same() -> None:
    network = network_of(Does(lambda x: (x.float(), x + 1, x[:, :2], x.sum(1))), 3)
    found = free_shapes(network)
    (x,) = network.module.graph.find_nodes(op="placeholder")
    single, same, less, total = next(n for n in network.module.graph.nodes if n.op == "output").args[0]
    assert found.same(x, same) and not found.same(x, single) and not found.same(x, less)
    assert found.floating(x) and found.fixed(x, 1) and not found.fixed(x, 0) and found.tensors[total].rank == 1


def test_what_follows_from_values_is_not_known_and_the_rest_is() -> None:
    network = trace(Does(lambda x: x + 1), {"x": torch.ones(2, 3)})
    graph = network.module.graph
    (add,) = graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)
    with graph.inserting_before(add):
        places = graph.call_function(torch.ops.aten.nonzero.default, (add.args[0],))
        sums = graph.call_function(torch.ops.aten.sum.default, (places,))
    found = free_shapes(network)
    assert add in found.tensors and places not in found.tensors and sums not in found.tensors


def test_nothing_is_computed_and_no_statistics_change() -> None:
    network = network_of(Does(lambda x, norm: norm(x), nn.BatchNorm1d(3)), 3).set_training_(True)
    before = {name: tensor.clone() for name, tensor in network.weights().items()}
    free_shapes(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.weights().items())
